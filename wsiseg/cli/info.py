"""`wsiseg info`: what a slide says of itself, and what predict would do with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from wsiseg.cli.command import Command
from wsiseg.cli.info_map import is_map, show_map
from wsiseg.cli.options import json_option, mpp_option, quiet_option, reader_option, retry_option, series_option
from wsiseg.cli.slide_facts import describe, with_tissue_and_plan
from wsiseg.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from wsiseg.cli.slide_facts import PlanFacts, SlideFacts
    from wsiseg.geometry import Mpp
    from wsiseg.slides.base import ImageInFile


@click.command(cls=Command)
@click.argument("slide")
@mpp_option
@reader_option
@series_option
@retry_option
@click.option("--model", metavar="NAME|FOLDER", help=f"Model that would predict [default: {DEFAULT_MODEL}].")
@json_option
@quiet_option
def info(
    slide: str,
    mpp: float | None,
    reader: str | None,
    series: str | None,
    retry_s: float,
    model: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show what SLIDE (a path or a URL) records, and what predict would do with it.

    Of a tissue map (MAP.zarr): slide, model, size, classes and areas, and how it was made.
    """
    if is_map(slide):
        if any(value is not None for value in (mpp, reader, series, model)):
            raise click.UsageError("--mpp, --reader, --series and --model are for slides; a tissue map has its own")
        show_map(slide, as_json, quiet)
        return
    from wsiseg.slides import open_slide
    from wsiseg.system.threads import check_retry_time

    check_retry_time(retry_s)
    with open_slide(slide, mpp=mpp, reader=reader, series=series, retry_s=retry_s) as opened:
        facts = with_tissue_and_plan(describe(opened), opened, model)
    if as_json:
        click.echo(json.dumps(facts.to_json(), indent=2))
    elif not quiet:
        _print(facts)


def _image_row(image: ImageInFile) -> str:
    name = f" {image.name!r}" if image.name and image.name != image.role else ""
    mpp = "" if image.mpp is None else f", {image.mpp} um/px"
    refused = f", not read: {image.refused}" if image.refused else ""
    return f"{image.index}: {image.role}{name}, {image.size} px{mpp}{refused}"


def _print(facts: SlideFacts) -> None:
    """Print the facts of a slide as tables."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in _rows(facts):
        # What a file says of itself must not steer the terminal.
        shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value)
        table.add_row(name, escape(shown))
    console.print(table)
    levels = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("level", "size", "downsample", "um/px"):
        levels.add_column(name, justify="right")
    for index, level in enumerate(facts.levels):
        levels.add_row(str(index), str(level.size), f"{level.downsample:.6g}", _mpp(level.mpp))
    console.print()
    console.print(levels)


def _rows(facts: SlideFacts) -> list[tuple[str, str]]:
    """Format names and values as text."""
    source = f" ({facts.mpp_source})" if facts.mpp_source else ""
    box = facts.bounds
    rows = [
        ("slide", facts.slide),
        ("format", f"{facts.vendor}, read by {facts.reader}"),
        ("size", f"{facts.size} px"),
        ("um per pixel", _mpp(facts.mpp) + source),
        ("objective", "not recorded" if facts.objective is None else f"{facts.objective:g}x"),
        ("bounds", "all of it" if box is None else f"{box.width} x {box.height} px from ({box.x}, {box.y})"),
        ("associated", ", ".join(f"{name} {size}" for name, size in facts.associated.items()) or "none"),
    ]
    if len(facts.images) > 1:
        rows += [("image", _image_row(image)) for image in facts.images]
    if facts.tissue is not None:
        rows.append(("tissue", f"{facts.tissue.area_mm2:.4g} mm2, {100 * facts.tissue.share:.1f} %"))
    if facts.damaged_tiles_met:
        rows.append(("damaged tiles", f"{facts.damaged_tiles_met} met while looking for tissue"))
    if facts.predict is not None:
        rows += _plan_rows(facts.predict)
    rows += [("left out", why) for why in facts.left_out]
    return rows + [("note", note) for note in facts.notes]


def _plan_rows(plan: PlanFacts) -> list[tuple[str, str]]:
    how = f"resampled by {plan.zoom[0]:.4g}" if plan.resampled else "as it is"
    patches = f"{plan.patches_read} read, {plan.patches_skipped} without tissue skipped"
    return [
        ("predict with", plan.model),
        ("  reads", f"level {plan.level}, {how}"),
        ("  map", f"{plan.map_size} px at {plan.map_mpp} um/px"),
        ("  patches", f"{patches} ({plan.patch_size_px} px)"),
    ]


def _mpp(mpp: Mpp | None) -> str:
    return "not recorded" if mpp is None else str(mpp)
