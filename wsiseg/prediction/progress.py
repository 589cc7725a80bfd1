"""How a run tells what it has done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

ProgressFunction = Callable[[str, int, int], None]
"""Called with a phase ("tissue", "gate", "tiles", "pyramid", "vectors"), the steps of it that are done, and all.

Once also with "plan", 0, and thousands of map pixels with tissue, by which the time that later phases take is guessed.
"""


class Progress(Protocol):
    """What a run calls as it goes on; implement it to show progress."""

    def plan(self, tissue_px: int) -> None:
        """Called once, with the map pixels that hold tissue: what later phases cost grows with them."""

    def step(self, phase: str, done: int, total: int) -> None:
        """Called with a phase ("tissue", "gate", "tiles", "pyramid", "vectors"), its steps done, and all of them."""


class Silent:
    """A `Progress` that tells nobody."""

    def plan(self, tissue_px: int) -> None:
        """See `Progress`."""

    def step(self, phase: str, done: int, total: int) -> None:
        """See `Progress`."""


class _Function:
    """A `Progress` that calls a plain function."""

    def __init__(self, function: ProgressFunction) -> None:
        self._function = function

    def plan(self, tissue_px: int) -> None:
        """See `Progress`."""
        self._function("plan", 0, tissue_px // 1000)

    def step(self, phase: str, done: int, total: int) -> None:
        """See `Progress`."""
        self._function(phase, done, total)


def as_progress(given: Progress | ProgressFunction | None) -> Progress:
    """Make a `Progress` of what a caller gave: an object, a function or None."""
    if given is None:
        return Silent()
    return _Function(given) if callable(given) else given


class Advance:
    """Reports patches as they are done."""

    def __init__(self, progress: Progress, phase: str, done: int, total: int) -> None:
        self._progress = progress
        self._phase = phase
        self._done = done
        self._total = total
        progress.step(phase, done, total)

    def __call__(self, patches: int) -> None:
        """Report that so many more patches are done."""
        self._done += patches
        self._progress.step(self._phase, self._done, self._total)
