"""`wsiseg evaluate`: how well a model does on a data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsiseg.choices import EVALUATION_PRECISIONS, GATE_MODES, SPLITS
from wsiseg.cli.command import Command
from wsiseg.cli.options import (
    OUTPUT,
    PRINTED,
    Told,
    device_option,
    is_terminal,
    json_file_option,
    names_of,
    overwrite_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from wsiseg.evaluation.calibration import CalibrationReport
    from wsiseg.evaluation.figures import Figure
    from wsiseg.evaluation.result import Evaluation

FILE = click.Path(path_type=Path)
MIN_COLUMNS = 100
"""Narrower terminals wrap lines, not cells."""


@click.command(cls=Command)
@click.argument("bundle")
@click.argument("dataset", type=FILE)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="test",
    show_default=True,
    help="Images to measure on.",
)
@click.option(
    "--mpp", type=float, metavar="UM", help="Microns per pixel of the images; overrides what the data set says."
)
@click.option(
    "--classes",
    metavar="NAME|FILE",
    help="The data set's classes: luad-histoseg, bcss-wsss, wsss4luad, or a JSON file.",
)
@click.option(
    "--excluded",
    type=int,
    metavar="N",
    help="Mask value that is not counted [default: what the data set says, or the number of classes].",
)
@click.option(
    "--cell-classes", metavar="V=NAME,…", help="Names of the class values of cell dots, e.g. 2=Tumour,3=Stroma."
)
@click.option("--map", "merged", multiple=True, metavar="CLASS=CLASS",
              help="Class of the model that one of the data set is; CLASS= leaves it out. Repeatable.")  # fmt: skip
@click.option(
    "--others",
    type=click.Choice(["count", "leave-out"]),
    default="count",
    show_default=True,
    help="Classes that the model does not know: each pixel counts as an error, or does not count.",
)
@click.option("--ignore-columns", metavar="NAME,…", help="Columns of labels.csv that are no classes.")
@click.option("--flips", is_flag=True, help="Average over flips and rotations as well; eight times the time.")
@click.option(
    "--gate-mode",
    type=click.Choice(GATE_MODES),
    help="See `wsiseg predict` [default: the model's].",
)
@click.option("--gate-context", type=float, metavar="SIDES", help="See `wsiseg predict` [default: the model's].")
@click.option("--gate-floor", type=float, metavar="SHARE", help="See `wsiseg predict` [default: the model's].")
@click.option(
    "--gate-threshold", type=float, metavar="P", help="Probability a class must exceed [default: the model's]."
)
@click.option("--choose-thresholds", is_flag=True, help="Choose the gate's thresholds; only on --split val.")
@click.option(
    "--gate-recall",
    type=float,
    default=0.98,
    show_default=True,
    metavar="R",
    help="Recall that --choose-thresholds keeps, class by class.",
)
@click.option(
    "--write-bundle", type=OUTPUT, metavar="FOLDER", help="Write a copy of BUNDLE with the chosen thresholds."
)
@click.option("--into-bundle", is_flag=True, help="Put the figures into BUNDLE, where `wsiseg report` finds them.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="Choose one temperature for the probabilities and put it into BUNDLE, for `predict`; only on --split val.",
)
@json_file_option
@click.option("--picture", type=OUTPUT, metavar="FILE", help="Draw the confusion matrices (.png).")
@click.option(
    "--resamples",
    type=int,
    default=2000,
    show_default=True,
    help="Resamples of the bootstrap over slides or patients; 0 for none.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap.")
@device_option
@click.option(
    "--precision",
    type=click.Choice(EVALUATION_PRECISIONS),
    default="float32",
    show_default=True,
    help="Arithmetic of the networks.",
)
@click.option("--batch-size", type=int, metavar="N", help="Patches at once [default: fits the device].")
@overwrite_option
@click.option("--quiet", is_flag=True, help="Show no progress and no table.")
def evaluate(
    bundle: str,
    dataset: Path,
    classes: str | None,
    cell_classes: str | None,
    choose_thresholds: bool,
    gate_recall: float,
    write_bundle: Path | None,
    into_bundle: bool,
    calibrate: bool,
    as_json: Path | None,
    picture: Path | None,
    overwrite: bool,
    quiet: bool,
    merged: tuple[str, ...],
    ignore_columns: str | None,
    **options: Any,
) -> None:
    """Measure BUNDLE on the pixel masks or cell dots of DATASET: no gate, predicted gate, and oracle gate."""
    if write_bundle is not None and not choose_thresholds:
        raise click.UsageError("--write-bundle writes chosen thresholds; give --choose-thresholds as well")
    for chosen_there, what in ((choose_thresholds, "thresholds are"), (calibrate, "a temperature is")):
        if chosen_there and options["split"] != "val":
            raise click.UsageError(f"{what} chosen on --split val alone, not on {options['split']}")
    table = cell_table(cell_classes)
    from wsiseg.models.folder import CALIBRATION_FILE, EVALUATION_FILE, find_bundle
    from wsiseg.system.files import check_file

    json_file = None if as_json == PRINTED else as_json
    kept = find_bundle(bundle) / EVALUATION_FILE if into_bundle else None
    temperature = find_bundle(bundle) / CALIBRATION_FILE if calibrate else None
    for path, suffix in ((json_file, ".json"), (kept, ".json"), (temperature, ".json"), (picture, ".png")):
        if path is not None:
            check_file(path, (suffix,), overwrite)

    from wsiseg.corrections.names import parse_map
    from wsiseg.datasets.dataset import read_classes
    from wsiseg.evaluation.picture import write_picture
    from wsiseg.evaluation.run import EvaluateOptions
    from wsiseg.evaluation.run import evaluate as run
    from wsiseg.evaluation.thresholds import check_new_bundle
    from wsiseg.evaluation.thresholds import write_bundle as copy_bundle

    if write_bundle is not None:
        check_new_bundle(write_bundle)
    chosen = EvaluateOptions(
        classes=read_classes(classes) if classes else None,
        cell_classes=table,
        merged=parse_map(merged),
        ignore_columns=names_of(ignore_columns),
        gate_recall=gate_recall if choose_thresholds else None,
        **options,
    )
    result = run(bundle, dataset, chosen, _progress if is_terminal() and not quiet else None)
    asked = "--picture draws" if picture is not None else "--into-bundle keeps" if into_bundle else ""
    if asked and not result.columns:
        raise click.UsageError(f"{asked} confusion matrices, but the data set has no masks or dots")
    card = _keep(result, bundle, calibrate, [path for path in (json_file, kept) if path is not None], kept is not None)
    if picture is not None:
        write_picture(result, picture)
    if write_bundle is not None and result.chosen_thresholds is not None:
        copy_bundle(bundle, write_bundle, result.chosen_thresholds, result.settings["gate_mode"])
    if as_json == PRINTED:
        click.echo(json.dumps(result.to_json(), indent=2, allow_nan=False))
    elif not quiet:
        _print(result)
    told = Told(as_json == PRINTED, quiet)
    for written in filter(None, (json_file, kept, temperature, card, picture, write_bundle)):
        told.wrote(written)


def cell_table(text: str | None) -> dict[str, str]:
    """Parse `2=Tumour,3=Stroma` into a table."""
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    if any(not value.strip() or not name.strip() for value, _, name in pairs):
        raise click.UsageError(f"expected --cell-classes VALUE=NAME,VALUE=NAME, got {text!r:.60}")
    return {value.strip(): name.strip() for value, _, name in pairs}


def _progress(done: int, total: int) -> None:
    click.echo(f"\rimages {done}/{total}", err=True, nl=done == total)


def _write_json(result: Evaluation, path: Path) -> None:
    from wsiseg.system.files import whole_file

    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _keep(result: Evaluation, bundle: str, calibrate: bool, files: list[Path], into_bundle: bool) -> Path | None:
    """Write figures, and into the bundle its temperature; the card that says so, or None where nothing went there."""
    from wsiseg.evaluation.calibrate import calibration_from
    from wsiseg.evaluation.card import write_card
    from wsiseg.models.calibration import save
    from wsiseg.models.folder import find_bundle
    from wsiseg.models.spec import read_spec

    if calibrate:
        save(calibration_from(result, read_spec(bundle).networks), find_bundle(bundle))
    for path in files:
        _write_json(result, path)
    return write_card(find_bundle(bundle)) if calibrate or into_bundle else None


def _print(result: Evaluation) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.width = max(console.width, MIN_COLUMNS)
    data = result.data
    console.print(
        f"{result.model['name']} on {data['name']}, {data['split']}: "
        f"{data['images']} images of {data['groups']} groups, truth: {result.kind} at {data['mpp']:g} um/px"
    )
    for note in data["notes"]:
        console.print(f"note: {note}")
    if result.columns:
        _print_figures(console, result)
        shown = result.columns["predicted_gate"]
        _print_confusion(console, shown.title, shown.confusion.tolist(), result.classes)
    if result.calibration is not None:
        _print_calibration(console, result.calibration, result.kind)
    _print_gate(console, result)


def _print_figures(console: Console, result: Evaluation) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("figure [95 % by group]")
    columns = list(result.columns.values())
    for column in columns:
        table.add_column(column.title.replace(" (", "\n(").replace(", ", ",\n"), justify="right")
    for name in columns[0].overall:
        table.add_row(name.replace("_", " "), *(_shown(column.overall[name], "\n") for column in columns))
    first = next(iter(columns[0].per_class.values()))
    for figure in first:
        table.add_section()
        for class_name in result.classes:
            row = (_shown(column.per_class[class_name][figure], None) for column in columns)
            table.add_row(Text(f"{figure}, {class_name}"), *row)
    console.print(table)


def _print_confusion(console: Console, title: str, rows: list[list[int]], names: tuple[str, ...]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text(f"\n{title}: true, in % of row"))
    for name in names:
        table.add_column(Text(name), justify="right")
    table.add_column("all", justify="right")
    for name, row in zip(names, rows, strict=True):
        total = sum(row)
        table.add_row(Text(name), *(f"{100 * n / total:.1f}" if total else "-" for n in row), str(total))
    console.print(table)


def _print_calibration(console: Console, found: CalibrationReport, kind: str) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"\nshare of all {kind}, %")
    for name in ("true", "counted", "by probabilities", "calibration error"):
        table.add_column(name, justify="right")
    for name, area in found.areas.items():
        shares = (f"{100 * share:.1f}" for share in (area.true, area.counted, area.summed))
        table.add_row(Text(name), *shares, _shown(found.class_errors[name], None))
    console.print(table)
    before = "" if found.before is None else f"; {_shown(found.before[0])} without the model's temperature"
    console.print(
        f"\nprobability of the class that won: expected calibration error {_shown(found.error)}{before}\n"
        "probability  mean   right   count"
    )
    _print_bins(console, found.reliability)
    best = found.temperatures
    if best is not None:
        each = ", ".join(f"{name} {value:.2f}" for name, value in best.per_class.items())
        console.print(
            f"temperature {best.one:.2f} (by class: {each}) would bring the error from {best.error[0]:.3f} to "
            f"{best.error[1]:.3f} ({best.error[2]:.3f}) on slides or patients that it was not fitted to"
        )


def _print_bins(console: Console, bins: Iterable[Mapping[str, float]]) -> None:
    for bin_ in bins:
        if bin_["count"]:
            console.print(f"{bin_['low']:.1f} to {bin_['high']:.1f}   {bin_['mean_probability']:.3f}  "
                          f"{bin_['share']:.3f}   {bin_['count']:.0f}")  # fmt: skip


def _print_gate(console: Console, result: Evaluation) -> None:
    from rich.table import Table
    from rich.text import Text

    gate = result.gate
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"\ngate, {gate.tiles} tiles")
    names = ("recall", "specificity", "precision", "average_precision", "prevalence")
    for name in ("threshold", *names, *(["chosen"] if result.chosen_thresholds else [])):
        table.add_column(name.replace("_", " "), justify="right")
    for k, (name, row) in enumerate(gate.per_class.items()):
        chosen = [f"{result.chosen_thresholds[k]:.4f}"] if result.chosen_thresholds else []
        values = [f"{row[n]:.3f}" if row[n] == row[n] else "-" for n in names]
        table.add_row(Text(name), f"{gate.thresholds[k]:.4f}", *values, *chosen)
    console.print(table)
    console.print(
        f"\nBrier score {_shown(gate.brier)}, expected calibration error {_shown(gate.calibration_error)}\n"
        "probability  mean   occurs  count"
    )
    _print_bins(console, gate.reliability)


def _shown(figure: Figure, gap: str | None = " ") -> str:
    """A figure and, after `gap`, its interval where it has one."""
    if figure.value != figure.value:
        return "-"
    interval = "" if gap is None or figure.low != figure.low else f"{gap}[{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.value:.3f}{interval}"
