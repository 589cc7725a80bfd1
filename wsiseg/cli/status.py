"""`wsiseg status`: how far a cohort is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsiseg.cli.command import Command
from wsiseg.cli.options import json_option, quiet_option
from wsiseg.system.printable import printable

if TYPE_CHECKING:
    from wsiseg.cohort.status import Status

_BAR = 40


@click.command(cls=Command)
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@json_option
@quiet_option
def status(folder: Path, as_json: bool, quiet: bool) -> int:
    """Show how far the cohort is whose maps `wsiseg predict --slides` writes into FOLDER.

    Exit codes: 0 all done, 2 some failed for good, 75 not all done yet.
    """
    from wsiseg.cohort.status import Status

    found = Status.of(folder)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    elif not quiet:
        _print(found)
    if found.left:
        return 75
    return 2 if found.counts["failed"] else 0


def _print(found: Status) -> None:
    counts = found.counts
    filled = round(_BAR * found.done / max(1, found.slides))
    click.echo(f"[{'#' * filled}{'.' * (_BAR - filled)}] {found.done} of {found.slides} slides have their map")
    details = [f"{counts[name]} {said}" for name, said in (("no tissue", "without tissue"), ("damaged", "damaged"))]
    others = [f"{counts[name]} {name}" for name in ("running", "pending", "try again", "failed")]
    click.echo(printable(f"{', '.join(others)}; of the maps {' and '.join(details)}; list: {found.source}"))
    if found.tissue_mm2:
        areas = ", ".join(f"{name} {area:.1f}" for name, area in found.areas_mm2.items())
        click.echo(printable(f"tissue: {found.tissue_mm2:.1f} mm² ({areas})"))
    for name, cause in sorted(found.causes.items(), key=lambda item: -item[1].slides):
        again = f", {cause.transient} to be tried again" if cause.transient else ""
        click.echo(printable(f"{cause.slides} failed: {name}{again}"))
        for slide, error in cause.examples:
            click.echo(printable(f"  {slide}: {error}", 300))
        if cause.slides > len(cause.examples):
            click.echo(f"  and {cause.slides - len(cause.examples)} more")
    for slide, where in found.running[:20]:
        click.echo(printable(f"running: {slide} ({where})"))
    if (seconds := found.seconds_left) is not None and found.left:
        runs = f"{len(found.running)} running" if found.running else "one run"
        click.echo(f"time left: about {_span(seconds)} with {runs}, {found.seconds / found.predicted:.0f} s a slide")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
