"""`wsiseg info`: what a slide says of itself, and what predict would do with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsiseg.cli.command import Command
from wsiseg.cli.info_map import is_map, show_map
from wsiseg.cli.options import json_option, mpp_option, quiet_option, reader_option, retry_option, series_option
from wsiseg.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from wsiseg.slides.base import ImageInFile, SlideReader
    from wsiseg.tissue.mask import TissueMask


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
        show_map(Path(slide), as_json, quiet)
        return
    from wsiseg.errors import MissingMppError
    from wsiseg.slides import open_slide
    from wsiseg.system.threads import check_retry_time

    check_retry_time(retry_s)
    with open_slide(slide, mpp=mpp, reader=reader, series=series, retry_s=retry_s) as opened:
        facts = describe(opened)
        try:
            facts |= tissue_and_plan(opened, model)
        except MissingMppError as error:
            facts["notes"].append(str(error))
        facts["damaged_tiles_met"] = opened.damaged_tiles
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    elif not quiet:
        _print(facts)


def describe(slide: SlideReader) -> dict[str, Any]:
    """What the file records; sizes in pixels as [width, height], mpp as [x, y] in um per pixel."""
    mpp = slide.stated_mpp or slide.recorded_mpp
    bounds = slide.bounds
    return {
        "slide": slide.shown_path,
        "vendor": slide.vendor,
        "reader": slide.reader,
        "size": [slide.size.width, slide.size.height],
        "mpp": None if mpp is None else [mpp.x, mpp.y],
        "mpp_source": slide.mpp_source or None,
        "objective": slide.objective,
        "bounds": None if bounds is None else [bounds.x, bounds.y, bounds.width, bounds.height],
        "levels": [
            {
                "size": [level.size.width, level.size.height],
                "downsample": level.downsample,
                "mpp": None if mpp is None else [mpp.x * level.downsample_x, mpp.y * level.downsample_y],
            }
            for level in slide.levels
        ],
        "associated": {name: [size.width, size.height] for name, size in slide.associated.items()},
        "images": [_image(image) for image in slide.images],
        "left_out": list(slide.left_out),
        "notes": list(slide.notes),
    }


def _image(image: ImageInFile) -> dict[str, Any]:
    mpp = image.mpp
    return {
        "index": image.index,
        "name": image.name,
        "role": image.role,
        "size": [image.size.width, image.size.height],
        "mpp": None if mpp is None else [mpp.x, mpp.y],
        "refused": image.refused,
    }


def _image_row(image: dict[str, Any]) -> str:
    name = f" {image['name']!r}" if image["name"] and image["name"] != image["role"] else ""
    mpp = "" if image["mpp"] is None else f", {_mpp(image['mpp'])} um/px"
    refused = f", not read: {image['refused']}" if image["refused"] else ""
    return f"{image['index']}: {image['role']}{name}, {_size(image['size'])} px{mpp}{refused}"


def tissue_and_plan(slide: SlideReader, model: str | None) -> dict[str, Any]:
    """Where the tissue is, and what predict would read with a model.

    Raises:
        MissingMppError: the slide's resolution is unknown or implausible.
        BundleError: there is no such model.
    """
    from wsiseg.models.folder import list_bundles
    from wsiseg.models.summary import read_summary
    from wsiseg.prediction.plan import plan
    from wsiseg.tissue.find import tissue_mask

    if model is None and DEFAULT_MODEL not in list_bundles():
        return _tissue(slide, tissue_mask(slide))
    about = read_summary(model or DEFAULT_MODEL)
    todo = plan(slide, about.mpp, about.tiling)
    grid, read = todo.grid, int(todo.selected.sum())
    found = _tissue(slide, todo.mask)
    found["predict"] = {
        "model": about.name,
        "level": grid.level,
        "resampled": grid.resamples,
        "zoom": [grid.zoom_x, grid.zoom_y],
        "map_size": [grid.size.width, grid.size.height],
        "map_mpp": [grid.mpp.x, grid.mpp.y],
        "patch_size_px": todo.tiles.patch_px,
        "patches_read": read,
        "patches_skipped": len(todo.tiles) - read,
    }
    return found


def _tissue(slide: SlideReader, mask: TissueMask) -> dict[str, Any]:
    return {"tissue_mm2": mask.area_px * slide.mpp.pixel_area_um2 / 1e6, "tissue_share": mask.share}


def _print(facts: dict[str, Any]) -> None:
    """Tables for people."""
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
    for index, level in enumerate(facts["levels"]):
        levels.add_row(str(index), _size(level["size"]), f"{level['downsample']:.6g}", _mpp(level["mpp"]))
    console.print()
    console.print(levels)


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Format names and values as text."""
    source = f" ({facts['mpp_source']})" if facts["mpp_source"] else ""
    bounds = facts["bounds"]
    rows = [
        ("slide", facts["slide"]),
        ("format", f"{facts['vendor']}, read by {facts['reader']}"),
        ("size", f"{_size(facts['size'])} px"),
        ("um per pixel", _mpp(facts["mpp"]) + source),
        ("objective", "not recorded" if facts["objective"] is None else f"{facts['objective']:g}x"),
        ("bounds", "all of it" if bounds is None else f"{_size(bounds[2:])} px from ({bounds[0]}, {bounds[1]})"),
        ("associated", ", ".join(f"{k} {_size(v)}" for k, v in facts["associated"].items()) or "none"),
    ]
    if len(facts["images"]) > 1:
        rows += [("image", _image_row(image)) for image in facts["images"]]
    if "tissue_mm2" in facts:
        rows.append(("tissue", f"{facts['tissue_mm2']:.4g} mm2, {100 * facts['tissue_share']:.1f} %"))
    if facts["damaged_tiles_met"]:
        rows.append(("damaged tiles", f"{facts['damaged_tiles_met']} met while looking for tissue"))
    if "predict" in facts:
        rows += _plan_rows(facts["predict"])
    rows += [("left out", why) for why in facts["left_out"]]
    return rows + [("note", note) for note in facts["notes"]]


def _plan_rows(plan: dict[str, Any]) -> list[tuple[str, str]]:
    how = f"resampled by {plan['zoom'][0]:.4g}" if plan["resampled"] else "as it is"
    patches = f"{plan['patches_read']} read, {plan['patches_skipped']} without tissue skipped"
    return [
        ("predict with", plan["model"]),
        ("  reads", f"level {plan['level']}, {how}"),
        ("  map", f"{_size(plan['map_size'])} px at {_mpp(plan['map_mpp'])} um/px"),
        ("  patches", f"{patches} ({plan['patch_size_px']} px)"),
    ]


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"


def _mpp(mpp: list[float] | None) -> str:
    from wsiseg.geometry import Mpp

    return "not recorded" if mpp is None else str(Mpp(*mpp))
