"""`wsiseg predict` with several slides: the phases of each as they go, and a line as it is done."""

from __future__ import annotations

import json
import traceback
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from wsiseg.cli.progress import shown_progress
from wsiseg.errors import OptionError
from wsiseg.system.addresses import without_secrets
from wsiseg.system.json_values import JsonObject
from wsiseg.system.printable import printable

if TYPE_CHECKING:
    from wsiseg.cli.log import RunLog
    from wsiseg.export.vector_options import VectorOptions
    from wsiseg.prediction.batch import SlideResult
    from wsiseg.prediction.options import PredictOptions
    from wsiseg.prediction.progress import ProgressFunction
    from wsiseg.prediction.result import Prediction

TRY_AGAIN = 75
"""What `sysexits.h` calls a temporary failure: schedulers may repeat the command."""


def many_slides(
    slides: tuple[str, ...],
    folder: Path | str,
    model: str,
    options: PredictOptions,
    events: RunLog,
    *,
    vectors: VectorOptions,
    polygons: bool,
    overwrite: bool,
    restart: bool,
    keep_folders: bool,
    as_json: bool,
    quiet: bool,
    scratch: Path | None = None,
) -> int:
    """Predict them; results are lines for people, or JSON objects, one a line, with a summary at the end.

    Returns:
        See `exit_code`.
    """
    from wsiseg.prediction.slide_list import map_paths, slides_among
    from wsiseg.slides.arguments import slides_of

    # Names that cannot be are refused before torch is loaded; `predict_many` does it for all who call it.
    map_paths(slides_among(slides_of(slides))[0], Path(folder), keep_folders=keep_folders)
    from wsiseg.prediction.batch import BatchSummary
    from wsiseg.prediction.many import predict_many

    silent = quiet or as_json
    summary, defect = BatchSummary(), False
    with SlideBars(events, silent=silent, vectors=polygons) as bars:
        results = predict_many(
            slides, folder, model, options, polygons=polygons, vectors=vectors, overwrite=overwrite,
            restart=restart, keep_folders=keep_folders, progress=bars.advance, began=bars.began, scratch=scratch,
        )  # fmt: skip
        for found in results:
            bars.close()
            summary.add(found)
            defect = defect or found.defect is not None
            tell(found, events, as_json=as_json, quiet=quiet)
    events.event("summary", **summary.to_json())
    if as_json:
        click.echo(json.dumps({"summary": summary.to_json()}))
    elif not quiet:
        click.echo("\n" + "\n".join(summary.lines()))
    if summary.failed:
        click.echo(f"wsiseg: {len(summary.failed)} of {summary.slides} slides failed", err=True)
    if not summary.slides:
        raise OptionError(f"none of the {len(slides)} names is a slide; give paths or addresses of slides")
    return exit_code(bool(summary.transient), defect, bool(summary.failed))


class SlideBars:
    """Progress of the slide whose turn it is; its bars are closed before its line is printed.

    Args:
        events: told of each slide and its progress.
        silent: show nothing.
        vectors: whether polygons are drawn as well.
    """

    def __init__(self, events: RunLog, *, silent: bool, vectors: bool) -> None:
        self._events, self._silent, self._vectors = events, silent, vectors
        self._shown = ExitStack()
        self._progress: ProgressFunction | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, trace)  # bars may end otherwise after an error

    def began(self, slide: str) -> None:
        """Say which slide it is, and show its bars."""
        self._events.next_slide(slide)
        if not self._silent:
            click.echo(printable(without_secrets(slide)), err=True)
        self._progress = self._shown.enter_context(shown_progress(self._silent, self._events, vectors=self._vectors))

    def advance(self, phase: str, done: int, total: int) -> None:
        """See `wsiseg.prediction.progress.ProgressFunction`."""
        if self._progress is not None:
            self._progress(phase, done, total)

    def close(self) -> None:
        """Take the bars away."""
        self._shown.close()


def exit_code(again: bool, defect: bool, failed: bool) -> int:
    """Of several slides: 75 if repeating the command may do more, else 1 for a defect, 2 if one failed, or 0."""
    return TRY_AGAIN if again else 1 if defect else 2 if failed else 0


def tell(found: SlideResult, events: RunLog, *, as_json: bool, quiet: bool) -> None:
    """Log and print what became of a slide."""
    slide = without_secrets(found.slide)
    events.end_phase()
    if found.prediction is not None:
        events.finished(found.prediction)
    elif found.status == "failed":
        events.event("failed", slide=slide, message=found.error)
    elif found.status == "skipped":
        events.event("skipped", slide=slide, reason=found.skipped)
    else:
        events.event("kept", slide=slide, map=str(found.map_path), notes=found.notes)
    if found.defect is not None:
        click.echo("".join(traceback.format_exception(found.defect)), err=True)
    if as_json:
        click.echo(json.dumps(_facts(found, slide), default=str))
    elif found.status == "failed":
        click.echo(f"wsiseg: {printable(f'{slide}: {found.error}')}", err=True)
    elif not quiet:
        _print(found, slide)


def _facts(found: SlideResult, slide: str) -> JsonObject:
    """What `--json` prints of a slide, as one line."""
    facts: JsonObject = {"slide": slide, "status": found.status, "error": found.error}
    if found.skipped is not None:
        facts["reason"] = found.skipped
    if found.kept is not None:
        facts |= {"map_path": found.map_path, **found.kept.to_json()}
    return facts if found.prediction is None else {**facts, **found.prediction.to_json()}


def _print(found: SlideResult, slide: str) -> None:
    """A slide's line for people, and a line for each note."""
    if found.skipped is not None:
        click.echo(printable(f"{slide}: skipped, {found.skipped}"))
        return
    drawn = " and got its polygons" if found.kept is not None and found.kept.drawn is not None else ""
    said = f"had its map already{drawn}" if found.prediction is None else _one_line(found.prediction)
    click.echo(printable(f"{slide}: {said} -> {found.map_path}"))
    for note in found.notes:
        click.echo(f"  note: {printable(note)}")


def _one_line(result: Prediction) -> str:
    areas = ", ".join(f"{area.name} {area.area_mm2:.3f}" for area in result.areas)
    return f"{areas} mm² of {result.tissue_mm2:.3f} mm² tissue, {result.seconds['total']:.0f} s"
