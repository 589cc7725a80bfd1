"""`wsiseg predict --slides`: a line for each slide as it is done, and what became of all of them."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsiseg.cli.many_slides import tell
from wsiseg.cli.progress import shown_progress
from wsiseg.system.addresses import without_secrets
from wsiseg.system.printable import printable

if TYPE_CHECKING:
    from wsiseg.cli.log import RunLog
    from wsiseg.export.vector_options import VectorOptions
    from wsiseg.prediction.options import PredictOptions
    from wsiseg.prediction.progress import ProgressFunction

TRY_AGAIN = 75
"""What `sysexits.h` calls a temporary failure: schedulers may repeat the command."""


def predict_list(
    slide_list: str,
    folder: Path,
    model: str,
    options: PredictOptions,
    events: RunLog,
    *,
    part: str | None,
    skip_locked: bool,
    retry_failed: bool,
    vectors: VectorOptions,
    polygons: bool,
    overwrite: bool,
    restart: bool,
    keep_folders: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Predict the slides of a list; results are lines for people, or JSON objects, one a line.

    Returns:
        75 if repeating the command may do more, else 1 if one failed by a defect of this program, 2 if one failed
        otherwise, else 0.
    """
    from wsiseg.cohort.names import Cohort
    from wsiseg.cohort.slide_source import SlideSource
    from wsiseg.system.files import folds_case

    parts = _part(part)
    cohort = Cohort(SlideSource(slide_list), keep_folders=keep_folders, folds_case=folds_case(folder))
    from wsiseg.cohort.run import LOCKED, CohortOptions, CohortRun

    how = CohortOptions(parts, skip_locked, retry_failed, polygons, vectors, overwrite, restart)
    silent, defect = quiet or as_json, False
    with ExitStack() as shown:  # bars of the slide whose turn it is; closed before its line is printed
        progress: ProgressFunction | None = None

        def began(slide: str) -> None:
            nonlocal progress
            events.next_slide(slide)
            if not silent:
                click.echo(printable(without_secrets(slide)), err=True)
            progress = shown.enter_context(shown_progress(silent, events, vectors=polygons))

        def advance(phase: str, done: int, total: int) -> None:
            if progress is not None:
                progress(phase, done, total)

        run = CohortRun(cohort, folder, model, options, how, advance, began)
        for found in run:
            shown.close()
            defect = defect or found.defect is not None
            tell(found, events, as_json=as_json, quiet=quiet)
    tally = {name: count for name, count in run.tally.items() if count}
    events.event("summary", slides=cohort.slides, counts=tally)
    if as_json:
        click.echo(json.dumps({"summary": {"slides": cohort.slides, "part": part, "counts": tally}}))
    elif not quiet:
        click.echo(f"\n{sum(tally.values())} slides: {', '.join(f'{count} {name}' for name, count in tally.items())}")
    again = tally.get("try again", 0) + (0 if skip_locked else tally.get(LOCKED, 0))
    failed = tally.get("failed", 0)
    if failed or again:
        said = [f"{failed} failed for good (`wsiseg status {folder}`)"] if failed else []
        said += [f"{again} are to be tried again: repeat the command"] if again else []
        click.echo(f"wsiseg: of {sum(tally.values())} slides {', '.join(said)}", err=True)
    if again:
        return TRY_AGAIN
    return 1 if defect else 2 if failed else 0


def _part(text: str | None) -> tuple[int, int]:
    """The part and the number of parts that `--part` states."""
    if text is None:
        return 1, 1
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if found is None:
        raise click.UsageError(f"--part is I/N, as 3/8 for the third of eight, got {text!r:.40}")
    return int(found[1]), int(found[2])
