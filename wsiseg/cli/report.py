"""`wsiseg report`: what maps say for a paper, as a page and tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import OUTPUT, Told, echo, is_terminal, json_option, overwrite_option, quiet_option

if TYPE_CHECKING:
    from wsiseg.report.endpoints import Measured
    from wsiseg.report.run import Report
    from wsiseg.report.slide_report import SlideReport
    from wsiseg.system.json_values import JsonObject

FILE = click.Path(path_type=Path)


@click.command(cls=Command)
@click.argument("maps", metavar="MAP.zarr|FOLDER...", nargs=-1, required=True, type=FILE)
@click.option("--out", required=True, type=OUTPUT, metavar="REPORT.html", help="The page: one file, no network.")
@click.option("--csv", type=OUTPUT, help="A row for each slide, .csv.")
@click.option("--parquet", type=OUTPUT, help="The same as Parquet.")
@click.option("--long", "long_form", type=OUTPUT, help="A row for each figure, .csv or .parquet.")
@click.option("--slides", type=FILE, metavar="FOLDER", help="Folder of the maps' slides: pictures, pen, blur.")
@click.option("--slide", help="The slide of a single map.")
@click.option(
    "--patients", type=FILE, metavar="TABLE.csv", help="Columns slide, patient; further ones are carried along."
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE=CLASS",
    help="What a class is: tumour, stroma, lymphocytes, necrosis, normal, in_situ, fat, …, none.",
)
@click.option(
    "--regions", type=FILE, metavar="GEOJSON", help="The tumour bed; of several maps a folder with NAME.geojson each."
)
@click.option(
    "--evaluation",
    type=FILE,
    metavar="FILE.json|BUNDLE",
    help="What evaluate wrote of the model: areas corrected by its confusion matrix [default: the shipped model's].",
)
@click.option(
    "--specimen",
    type=click.Choice(["resection", "biopsy"]),
    default="resection",
    show_default=True,
    help="Sets the bulk's disc and smallest part; a biopsy has no invasive margin.",
)
@click.option(
    "--bulk-diameter",
    type=float,
    metavar="UM",
    help="Disc that closes and opens the tumour [default: 1000, biopsy 500].",
)
@click.option("--bulk-min-area", type=float, metavar="MM2", help="Smallest part of the bulk [default: 1, biopsy 0.25].")
@click.option(
    "--bulk-buffer",
    type=float,
    default=250.0,
    show_default=True,
    metavar="UM",
    help="How far the bulk reaches beyond its outline.",
)
@click.option(
    "--margin", type=float, default=500.0, show_default=True, metavar="UM", help="Half of the invasive margin's width."
)
@click.option(
    "--field", type=float, default=2000.0, show_default=True, metavar="UM", help="Diameter of the hot spot field."
)
@click.option(
    "--block",
    type=float,
    default=1000.0,
    show_default=True,
    metavar="UM",
    help="Blocks that intervals are resampled over.",
)
@click.option("--resamples", type=int, default=2000, show_default=True, help="Of each interval; 0 for none.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resampling.")
@click.option(
    "--low-confidence",
    type=float,
    default=0.6,
    show_default=True,
    help="Probability below which a place is of low confidence.",
)
@click.option("--title", default="Tissue map report", show_default=True, help="Of the page.")
@overwrite_option
@json_option
@quiet_option
def report(
    maps: tuple[Path, ...],
    out: Path,
    csv: Path | None,
    parquet: Path | None,
    long_form: Path | None,
    slides: Path | None,
    slide: str | None,
    patients: Path | None,
    roles: tuple[str, ...],
    regions: Path | None,
    evaluation: Path | None,
    specimen: Any,
    bulk_diameter: float | None,
    bulk_min_area: float | None,
    bulk_buffer: float,
    margin: float,
    field: float,
    block: float,
    resamples: int,
    seed: int,
    low_confidence: float,
    title: str,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Report the endpoints of tissue maps: shares of stroma, lymphocytes, necrosis with intervals; quality, areas.

    FOLDER is that of a cohort (`wsiseg predict --slides`): all of its slides that are done.
    """
    from wsiseg.cohort.state import is_cohort
    from wsiseg.cohort.status import maps_of
    from wsiseg.errors import OptionError
    from wsiseg.report.bulk import BulkOptions
    from wsiseg.report.measure import MeasureOptions
    from wsiseg.report.run import ReportOptions, ReportOutputs
    from wsiseg.report.run import report as write_report

    bulk = BulkOptions.of(specimen, bulk_diameter, bulk_min_area, margin, bulk_buffer)
    options = ReportOptions(
        MeasureOptions(bulk, field, block, resamples, seed),
        roles,
        slides,
        slide,
        regions,
        patients,
        evaluation,
        low_confidence,
        title,
    )
    maps = tuple(found for path in maps for found in (maps_of(path) if is_cohort(path) else (path,)))
    if not maps:
        raise OptionError("none of these slides is done yet; see `wsiseg status`")
    outputs = ReportOutputs(out, csv, parquet, long_form)
    silent = quiet or as_json or not is_terminal()

    def progress(done: int, total: int, name: str) -> None:
        if not silent:
            echo(f"{done + 1}/{total} {name}")

    found = write_report(maps, outputs, options, overwrite=overwrite, progress=progress)
    told = Told(as_json, quiet)
    if not (as_json or quiet):
        _print(found)
    for note in (*found.notes, *_far(found)):
        told.note(note)
    for _, path in outputs.named():
        told.wrote(path)
    told.end(slides=[_facts(one) for one in found.slides], cohort=[_figure(row[0]) for row in found.cohort])


def _print(found: Report) -> None:
    """A line for each slide: main endpoints and what to look at."""
    from wsiseg.report.endpoints import MAIN
    from wsiseg.system.printable import printable

    for slide in found.slides:
        shown = [one for name in MAIN if (one := slide.of(name)) is not None and one.known]
        said = ", ".join(
            f"{one.title} {one.value:.1f}" + (f" ({one.low:.1f} to {one.high:.1f})" if one.low == one.low else "")
            for one in shown
        )
        first = next((one.reason for one in slide.endpoints if one.reason), "no endpoint of these classes")
        flags = f"; look at: {', '.join(flag.name for flag in slide.flagged)}" if slide.flagged else ""
        click.echo(printable(f"{slide.slide}: {said or first}{flags}"))


def _far(found: Report) -> list[str]:
    """A sentence for each slide that looks unlike what its model was trained on."""
    from wsiseg.system.printable import printable

    flags = ((slide.slide, flag) for slide in found.slides for flag in slide.flagged if flag.name == "stain")
    return [printable(f"{slide}: {flag.text}") for slide, flag in flags]


def _facts(slide: SlideReport) -> JsonObject:
    return {
        "slide": slide.slide, "patient": slide.patient, "map": slide.map_name, "model_hash": slide.model.hash,
        "measures": [_figure(one) for one in (*slide.areas, *slide.measures)],
        "flags": [{"name": flag.name, "state": flag.state, "text": flag.text} for flag in slide.flags],
        "notes": list(slide.notes),
    }  # fmt: skip


def _figure(one: Measured) -> JsonObject:
    numbers = {key: getattr(one, key) for key in ("value", "low", "high", "denominator_mm2")}
    return {
        "name": one.name,
        **{key: None if value != value else value for key, value in numbers.items()},  # noqa: PLR0124
        **{key: getattr(one, key) for key in ("unit", "method", "includes", "reason")},
    }
