"""`wsiseg correct`: corrections made in QuPath or in the viewer become training data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import OUTPUT, echo, json_option, quiet_option


@click.command(cls=Command)
@click.argument("tissue_map", metavar="MAP", type=click.Path(path_type=Path))
@click.option("--corrected", required=True, type=click.Path(path_type=Path), metavar="FILE.geojson",
              help="The corrected annotations, as QuPath or wsiseg view exported them.")  # fmt: skip
@click.option("--slide", required=True, metavar="SLIDE", help="The slide that the map was made from.")
@click.option("--out", type=OUTPUT, metavar="FOLDER", help="Data set to begin, or to append to.")
@click.option("--dry-run", is_flag=True, help="Tell what each correction would come to; write nothing.")
@click.option("--original", type=click.Path(path_type=Path), metavar="FILE.geojson",
              help="The file that was opened in QuPath [default: the one beside the map].")  # fmt: skip
@click.option("--map", "names", multiple=True, metavar="NAME=CLASS",
              help="Class of the model that NAME in the file means; NAME= leaves it out. Repeatable.")  # fmt: skip
@click.option("--group", default="", help="Patient or slide that the patches belong to [default: the slide's name].")
@click.option("--labeller", default="", help="Who corrected.")
@click.option("--model", help="The map's model, where it did not ship with wsiseg.")
@click.option("--partial", is_flag=True, help="FILE holds a selection: regions missing from it were not deleted.")
@click.option("--trust-locked", is_flag=True,
              help="Untouched locked regions are right. All are written locked: unlock them first.")  # fmt: skip
@quiet_option
@json_option
def correct(
    tissue_map: Path,
    corrected: Path,
    slide: str,
    out: Path | None,
    dry_run: bool,
    original: Path | None,
    names: tuple[str, ...],
    group: str,
    labeller: str,
    model: str | None,
    partial: bool,
    trust_locked: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Turn corrections of MAP into patches and masks that wsiseg train learns from.

    Regions that were changed, redrawn, deleted or added count, and so does what lies in an area called Reviewed. What
    was left as it was says nothing.
    """
    if out is None and not dry_run:
        raise click.UsageError("expected --out FOLDER, or --dry-run to see what would be written")
    import json

    from wsiseg.corrections.names import parse_map
    from wsiseg.corrections.run import CorrectOptions
    from wsiseg.corrections.run import correct as run
    from wsiseg.slides import open_slide
    from wsiseg.tissue_map.reader import open_map

    found = open_map(tissue_map)
    parameters = found.metadata.get("parameters") or {}
    options = CorrectOptions(original, parse_map(names), group, labeller, model, partial, trust_locked)
    with open_slide(
        slide, mpp=parameters.get("mpp"), reader=parameters.get("reader"), series=parameters.get("series")
    ) as opened:
        if dry_run or out is None:
            from wsiseg.corrections.preview import preview

            record = preview(found, corrected, opened, options)
        else:
            record = run(found, corrected, opened, out, options)
    if as_json:
        click.echo(json.dumps(record))
    elif dry_run:  # is asked for nothing but what it tells
        show_regions(record)
        show(record, None)
    elif not quiet:
        show(record, out)


def show_regions(record: Mapping[str, Any]) -> None:
    """Tell what each correction would come to."""
    echo("feature  correction                     mm²  patches  labels  masks  counts as")
    for row in record["regions"]:
        names = " to ".join(name for name in (row["from"], row["to"]) if name)
        what = f"{row['kind']}: {names}" if names else row["kind"]
        number = row["feature"] or "-"
        echo(
            f"{number:>7}  {what:24.60} {row['area_um2'] / 1e6:9.4f} {row['patches']:8} {row['labels']:7} "
            f"{row['masks']:6}  {row['strength']}"
        )
    echo("")


def show(record: Mapping[str, Any], out: Path | None) -> None:
    """Tell what became of a file of annotations, or without a folder what would become of it."""
    for kind, count in record["changes"].items():
        echo(f"{count:6} {kind}")
    for row in record["moved"]:
        echo(f"{row['area_um2'] / 1e6:.4f} mm²: {row['from']} to {row['to']}")
    place = "" if out is None else f", in {out}"
    echo(f"{record['patches']} patches of {record['patch_px']} px, {record['masks']} with masks{place}")
    for name, counts in record["labels"].items():
        known = f"; {counts['mask_um2'] / 1e6:.4f} mm² in masks" if "mask_um2" in counts else ""
        echo(
            f"{name}: present in {counts['present']}, absent in {counts['absent']}, unknown in {counts['unknown']}"
            f"{known}"
        )
    for note in record["notes"]:
        echo(f"note: {note}")
    echo("wrote nothing" if out is None else f"wrote {out / record['record']}")
