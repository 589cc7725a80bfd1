"""How a run tells what it has done."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a phase ("tissue", "gate", "tiles", "pyramid", "vectors"), the steps of it that are done, and all.

Once also with "plan" and thousands of map pixels with tissue, by which the time that later phases take is guessed.
"""


class Advance:
    """Reports patches as they are done."""

    def __init__(self, report: Progress, phase: str, done: int, total: int) -> None:
        self._report = report
        self._phase = phase
        self._done = done
        self._total = total
        report(phase, done, total)

    def __call__(self, patches: int) -> None:
        """Some more are done."""
        self._done += patches
        self._report(self._phase, self._done, self._total)


def silent(phase: str, done: int, total: int) -> None:
    """Progress for nobody."""
