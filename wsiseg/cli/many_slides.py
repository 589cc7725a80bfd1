"""`wsiseg predict` with several slides: the phases of each as they go, and a line as it is done."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsiseg.addresses import without_secrets
from wsiseg.cli.progress import shown_progress

if TYPE_CHECKING:
    from wsiseg.cli.log import RunLog
    from wsiseg.many import SlideResult
    from wsiseg.prediction import Progress
    from wsiseg.report import Prediction


def many_slides(
    slides: tuple[str, ...],
    folder: Path,
    model: str,
    options: dict[str, Any],
    events: RunLog,
    *,
    tolerance: float | None,
    min_area: float | None,
    qupath_names: bool,
    polygons: bool,
    overwrite: bool,
    restart: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Predict them; results are lines for people, or JSON objects, one a line. Returns 2 if any failed, else 0."""
    from wsiseg.export import VectorOptions
    from wsiseg.many import predict_many
    from wsiseg.prediction import PredictOptions

    vectors = VectorOptions(tolerance_um=tolerance, min_area_um2=min_area, qupath_names=qupath_names)
    silent = quiet or as_json
    failed = 0
    with ExitStack() as shown:  # bars of the slide whose turn it is; closed before its line is printed
        progress: Progress | None = None

        def began(slide: str) -> None:
            nonlocal progress
            events.next_slide(slide)
            if not silent:
                click.echo(without_secrets(slide), err=True)
            progress = shown.enter_context(shown_progress(silent, events, vectors=polygons))

        def advance(phase: str, done: int, total: int) -> None:
            if progress is not None:
                progress(phase, done, total)

        results = predict_many(
            slides, folder, model, PredictOptions(**options), polygons=polygons, vectors=vectors, overwrite=overwrite,
            restart=restart, progress=advance, began=began,
        )  # fmt: skip
        for found in results:
            shown.close()
            failed += found.error is not None
            _tell(found, events, as_json=as_json, quiet=quiet)
    if failed:
        click.echo(f"wsiseg: {failed} of {len(slides)} slides failed", err=True)
    return 2 if failed else 0


def _tell(found: SlideResult, events: RunLog, *, as_json: bool, quiet: bool) -> None:
    """What became of a slide."""
    slide = without_secrets(found.slide)
    if found.prediction is not None:
        events.finished(found.prediction)
    elif found.error is not None:
        events.end_phase()
        events.event("failed", slide=slide, message=found.error)
    if as_json:
        facts = {} if found.prediction is None else facts_of(found.prediction)
        click.echo(json.dumps({"slide": slide, "error": found.error, **facts}, default=str))
    elif found.error is not None:
        click.echo(f"wsiseg: {slide}: {found.error}", err=True)
    elif not quiet:
        click.echo(f"{slide}: {_one_line(found.prediction)} -> {found.map_path}")


def _one_line(result: Prediction | None) -> str:
    if result is None:
        return "had its map already"
    areas = ", ".join(f"{area.name} {area.area_mm2:.3f}" for area in result.areas)
    return f"{areas} mm² of {result.tissue_mm2:.3f} mm² tissue, {result.seconds['total']:.0f} s"


def facts_of(result: Prediction) -> dict[str, Any]:
    """A result as plain JSON values."""
    facts = asdict(result)
    facts["counts"]["skipped"] = result.counts.skipped
    return {**facts, "notes": result.notes}
