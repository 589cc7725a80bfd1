"""`wsiseg dataset cut`: patches and labels from what people have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import OUTPUT, Told, echo, is_terminal, json_option, quiet_option

if TYPE_CHECKING:
    from wsiseg.classes import ClassTable
    from wsiseg.datasets.cut.run import CutRecord


@click.command(cls=Command)
@click.argument("source", metavar="SOURCE")
@click.option("--out", required=True, type=OUTPUT, metavar="FOLDER", help="Data set to begin, or to append to.")
@click.option("--patch", required=True, type=int, metavar="PX", help="Side of a patch.")
@click.option("--mpp", type=float, metavar="UM", help="Microns per pixel of the images [default: the source's].")
@click.option(
    "--classes", metavar="NAME|FILE", help="luad-histoseg, bcss-wsss, wsss4luad, or a JSON file of names and colours."
)
@click.option("--excluded", type=int, metavar="N", help="Mask value of excluded pixels [default: number of classes].")
@click.option(
    "--cell-classes",
    "cells",
    metavar="V=NAME,…",
    help="Names of values of cell dots, e.g. 2=Tumour,3=Stroma.",
)
@click.option("--annotations", type=click.Path(path_type=Path), metavar="FILE.geojson",
              help="Areas and points drawn on SOURCE, a slide, in QuPath.")  # fmt: skip
@click.option("--map", "names", multiple=True, metavar="NAME=CLASS",
              help="With --annotations: class that NAME means; NAME= leaves it out. Repeatable.")  # fmt: skip
@click.option("--group", default="", help="With --annotations: patient of the slide [default: the slide's name].")
@click.option("--coarse", is_flag=True, help="With --annotations: areas do not say that nothing else occurs in them.")
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), help="Split of the patches [default: the source's]."
)
@quiet_option
@json_option
def cut(
    source: str,
    out: Path,
    patch: int,
    mpp: float | None,
    classes: str | None,
    excluded: int | None,
    cells: str | None,
    annotations: Path | None,
    names: tuple[str, ...],
    group: str,
    coarse: bool,
    split: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Cut SOURCE into square patches with labels, a data set to train with.

    SOURCE is a folder of images of any size: with masks (img and mask), with labels in their names ([1, 0, 0]) or in
    labels.csv, or with cell dots (BRCA-M2C, cells.csv). With --annotations it is a slide.

    A class is present where it covers 5 % of a patch or one of its cells lies there, absent where it covers nothing and
    95 % are known; else unknown. Of a labelled image that is cut into small parts, only what it lacks, or its one
    class, is known of a part.
    """
    from wsiseg.datasets.facts import read_classes

    table = read_classes(classes) if classes else None
    if annotations is not None:
        if excluded is not None or cells is not None:
            raise click.UsageError("--excluded and --cell-classes belong to folders of images, not to --annotations")
        _cut_slide(source, annotations, out, patch, mpp, table, names, group, coarse, split or "", quiet, as_json)
        return
    if names or group or coarse:
        raise click.UsageError("--map, --group and --coarse belong to --annotations")

    from rich.console import Console
    from rich.progress import Progress

    from wsiseg.cli.evaluate import cell_table
    from wsiseg.datasets.cut.run import CutOptions
    from wsiseg.datasets.cut.run import cut as run

    options = CutOptions(patch, mpp, table, excluded, cell_table(cells), split or "")
    hidden = quiet or as_json or not is_terminal()
    with Progress(console=Console(stderr=True), transient=True, disable=hidden) as bars:
        bar = bars.add_task("Images", total=None)
        record = run(source, out, options, lambda done, total: bars.update(bar, completed=done, total=total))
    if as_json:
        click.echo(json.dumps({**record.to_json(), "output": str(out)}))
    elif not quiet:
        _show(record, out)


def _cut_slide(
    slide: str,
    annotations: Path,
    out: Path,
    patch: int,
    mpp: float | None,
    table: ClassTable | None,
    names: tuple[str, ...],
    group: str,
    coarse: bool,
    split: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """As `dataset from-qupath` does it."""
    from wsiseg.cli.correct import show
    from wsiseg.corrections.from_qupath import AnnotationOptions, from_qupath
    from wsiseg.corrections.names import parse_map
    from wsiseg.slides import open_slide

    options = AnnotationOptions(None, table, mpp, patch, parse_map(names), group, "", split, coarse)
    with open_slide(slide) as opened:
        record = from_qupath(opened, annotations, out, options)
    if as_json:
        click.echo(json.dumps(record))
    elif not quiet:
        show(record, out)


def _show(record: CutRecord, out: Path) -> None:
    echo(
        f"{record.images} images: {record.patches} patches of {record.patch_px} px at {record.mpp:g} um/px, "
        f"{record.masks} with masks"
    )
    for name, counts in record.labels.items():
        echo(f"{name}: present in {counts['present']}, absent in {counts['absent']}, unknown in {counts['unknown']}")
    if record.small:
        echo(f"note: {record.small} images are less than half of a patch and were left out")
    if record.unlabelled:
        echo(f"note: {record.unlabelled} patches were left out, since nothing is known of them")
    Told(as_json=False, quiet=False).wrote(out)
