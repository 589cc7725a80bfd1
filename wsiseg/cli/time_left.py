"""How long a run of `predict` still takes, over all its phases."""

from __future__ import annotations

import time
from collections.abc import Callable

PYRAMID_S, VECTORS_S = (0.1, 0.01), (0.8, 0.027)
"""Seconds that the phase takes for any map, and for a million map pixels with tissue, until it is measured."""

TILES_PER_GATE = 2.0
"""What a patch costs in the tiles' phase, in units of the gate's pass, until it is measured."""


class TimeLeft:
    """Told of progress, it says how many seconds are left.

    The pace of a phase is measured from its first step that is done: what comes before it is warming up. What later
    phases take is a guess from the tissue's area until they are under way; they are short beside the tiles.

    Args:
        vectors: whether polygons will be drawn.
        now: a clock, in seconds.
    """

    def __init__(self, *, vectors: bool = True, now: Callable[[], float] = time.monotonic) -> None:
        self._vectors = vectors
        self._now = now
        self._begin = now()
        self._phase = ""
        self._megapixels = 0.0
        self._since = self._mark = self._latest = self._begin
        self._first = self._marked = self._done = self._total = 0

    def update(self, phase: str, done: int, total: int) -> None:
        """A phase has come so far; the phase "plan" tells thousands of map pixels with tissue as its total."""
        now = self._now()
        if phase == "plan":
            self._megapixels = total / 1000
            return
        if phase != self._phase:
            self._phase, self._since, self._first = phase, now, done
            self._mark, self._marked = now, done
        elif self._marked == self._first and done > self._first:
            self._mark, self._marked = now, done
        self._done, self._total, self._latest = done, total, now

    def seconds(self) -> float | None:
        """Seconds left; None where nothing is known yet."""
        if self._phase in ("gate", "tiles"):
            each = self._each()
            if each is None:
                return None
            left = each * (self._total - self._done)
            if self._phase == "gate":
                left += TILES_PER_GATE * each * self._total
            return max(0.0, left - (self._now() - self._latest)) + self._later(PYRAMID_S) + self._drawing
        passed = self._now() - self._since
        if self._phase == "pyramid":
            return max(0.0, self._later(PYRAMID_S) - passed) + self._drawing
        if self._phase == "vectors":
            return max(0.0, self._later(VECTORS_S) - passed)
        return None

    @property
    def _drawing(self) -> float:
        return self._later(VECTORS_S) if self._vectors else 0.0

    def _later(self, cost: tuple[float, float]) -> float:
        return cost[0] + cost[1] * self._megapixels

    def _each(self) -> float | None:
        """Seconds of a step, None before two of them are done."""
        if self._done == self._marked:
            return None
        return (self._latest - self._mark) / (self._done - self._marked)
