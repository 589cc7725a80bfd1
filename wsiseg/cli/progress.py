"""Phases of a run as they go: bars for a person, a line every tenth for what keeps its output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from wsiseg.cli.command import is_verbose
from wsiseg.cli.options import is_terminal
from wsiseg.cli.time_left import TimeLeft
from wsiseg.cli.verbose import PhaseTimes

if TYPE_CHECKING:
    from wsiseg.cli.log import RunLog
    from wsiseg.prediction.progress import ProgressFunction


@contextmanager
def shown_progress(silent: bool, log: RunLog, *, vectors: bool) -> Iterator[ProgressFunction]:
    """What to tell of progress.

    Args:
        silent: show nothing.
        log: is told as well.
        vectors: whether polygons will be drawn.
    """
    left = TimeLeft(vectors=vectors)
    times = PhaseTimes() if is_verbose() else None
    with _shown(silent, left) as show:

        def report(phase: str, done: int, total: int) -> None:
            left.update(phase, done, total)
            log.progress(phase, done, total, left)
            if phase != "plan":
                show(phase, done, total)
            if times is not None:
                times.report(phase, done, total)

        yield report
        if times is not None:
            times.end()


@contextmanager
def _shown(silent: bool, left: TimeLeft) -> Iterator[ProgressFunction]:
    if silent:
        yield lambda phase, done, total: None
    elif is_terminal():
        yield from _bars(left)
    else:
        yield _lines(left)


def _bars(left: TimeLeft) -> Iterator[ProgressFunction]:
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        """A column that shows steps a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    class Left(ProgressColumn):
        """A column that shows the time left of the run, beside the phase that is under way."""

        def render(self, task: Task) -> Text:
            return Text("" if task.finished else _left(left))

    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), Speed(), Left())
    with rich_progress.Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bars:
        tasks: dict[str, rich_progress.TaskID] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)
            if phase != "start" and "start" in tasks:
                bars.update(tasks["start"], completed=1)

        yield report


@dataclass(slots=True)
class _Phase:
    """The phase that is under way.

    Attributes:
        name: of it.
        since: when it began, of the monotonic clock.
        first: what was done then.
        tenth: the last tenth of it that was told.
    """

    name: str
    since: float
    first: int
    tenth: int = -1


def _lines(left: TimeLeft) -> ProgressFunction:
    now = _Phase("", 0.0, 0)

    def report(phase: str, done: int, total: int) -> None:
        nonlocal now
        if now.name != phase:
            now = _Phase(phase, time.monotonic(), done)
        tenth = 10 * done // max(total, 1)
        if phase not in ("gate", "tiles") or tenth <= now.tenth:
            return
        now.tenth = tenth
        seconds = time.monotonic() - now.since
        speed = f", {(done - now.first) / seconds:.1f}/s" if done > now.first and seconds > 0 else ""
        known = _left(left)
        click.echo(f"{phase} {done}/{total}{speed}{f', {known}' if known else ''}", err=True)

    return report


def _left(left: TimeLeft) -> str:
    seconds = left.seconds()
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min left"
