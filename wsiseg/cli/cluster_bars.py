"""Progress of a cohort on a cluster: a bar for each slide that a worker is at, or a line as each begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from wsiseg.cli.options import is_terminal
from wsiseg.system.addresses import last_part, without_secrets
from wsiseg.system.printable import printable

if TYPE_CHECKING:
    from wsiseg.cli.log import RunLog


class ClusterBars:
    """Shows what happens on a cluster; see `wsiseg.cluster.run.Onlooker`.

    Args:
        events: told as well.
        silent: show nothing.
    """

    def __init__(self, events: RunLog, *, silent: bool) -> None:
        self._events, self._silent = events, silent
        self._stack = ExitStack()
        self._bars: Any = None
        self._tasks: dict[str, int] = {}

    def __enter__(self) -> Self:
        if not self._silent and is_terminal():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            self._bars = self._stack.enter_context(Progress(*columns, console=Console(stderr=True)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def line(self) -> Iterator[None]:
        """Keep bars away while a line is printed."""
        if self._bars is not None:
            self._bars.stop()
        try:
            yield
        finally:
            if self._bars is not None:
                self._bars.start()

    def _say(self, text: str) -> None:
        if not self._silent:
            with self.line():
                click.echo(printable(text), err=True)

    def opened(self, workers: str, dashboard: str | None) -> None:
        """See `wsiseg.cluster.run.Onlooker`."""
        self._events.event("cluster", workers=workers, dashboard=dashboard)
        self._say(f"cluster: {workers}{f'; dashboard {dashboard}' if dashboard else ''}")

    def waiting(self) -> None:
        """See `wsiseg.cluster.run.Onlooker`."""
        self._say("cluster: no worker so far; the run goes on as soon as there is one")

    def began(self, slide: str) -> None:
        """See `wsiseg.cluster.run.Onlooker`."""
        self._events.event("slide", slide=without_secrets(slide))
        if self._bars is None:
            self._say(f"{without_secrets(slide)}: begun")

    def step(self, slide: str, phase: str, done: int, total: int) -> None:
        """See `wsiseg.cluster.run.Onlooker`."""
        if self._bars is None:
            return
        text = printable(f"{without_secrets(last_part(slide)):.40} {phase}")
        if slide not in self._tasks:
            self._tasks[slide] = self._bars.add_task(text, total=total)
        self._bars.update(self._tasks[slide], description=text, completed=done, total=total)

    def ended(self, slide: str) -> None:
        """See `wsiseg.cluster.run.Onlooker`."""
        if slide in self._tasks:
            self._bars.remove_task(self._tasks.pop(slide))

    def died(self, slide: str) -> None:
        """See `wsiseg.cluster.run.Onlooker`."""
        self._events.event("died", slide=without_secrets(slide))
        self._say(f"{without_secrets(slide)}: its worker died; another one resumes it")
