"""Seconds of the phases of a run."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from wsiseg.system.json_values import JsonObject


class Clock:
    """Books the time since the last call to a phase.

    Attributes:
        started: when it was made.
        seconds: of each phase, and in "total".
    """

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._start = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """Book the time since the last call to a phase."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self.seconds["total"] = now - self._start
        self._last = now

    def times(self) -> JsonObject:
        """Start, end and the seconds of each phase, plain JSON."""
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {phase: round(value, 3) for phase, value in self.seconds.items()},
        }
