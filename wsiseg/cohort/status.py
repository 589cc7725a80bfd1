"""How far a cohort is: counts, failures by cause, areas, what runs where, and the time that is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wsiseg.cohort.state import State, latest
from wsiseg.system.durable_lines import Line
from wsiseg.system.json_values import JsonObject
from wsiseg.system.leases import seems_held
from wsiseg.system.locks import is_locked, lease_path

EXAMPLES = 5
"""Slides that are named for each cause of failures."""


@dataclass
class Cause:
    """Failures of one cause.

    Attributes:
        slides: how many.
        transient: of them, those that the same command tries again.
        examples: the first of them, and what was said of each.
    """

    slides: int = 0
    transient: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Status:
    """The state of a cohort.

    Attributes:
        slides: of the whole list.
        source: the list.
        counts: slides by state, as `State.text` names them; those that were interrupted are pending.
        causes: of failures, by name.
        running: slides that are being done, and where.
        areas_mm2: of each class, of all maps together.
        tissue_mm2: of all maps together.
        seconds: for the slides that were predicted, together.
        predicted: how many of these there are.
    """

    slides: int = 0
    source: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    causes: dict[str, Cause] = field(default_factory=dict)
    running: list[tuple[str, str]] = field(default_factory=list)
    areas_mm2: Counter[str] = field(default_factory=Counter)
    tissue_mm2: float = 0.0
    seconds: float = 0.0
    predicted: int = 0

    @classmethod
    def of(cls, folder: Path) -> Status:
        """The state of the cohort in a folder; raises `OptionError` where there is none."""
        found = cls()
        for line in latest(folder):
            if "cohort" in line:
                found.slides, found.source = int(line.get("slides") or 0), str(line.get("list") or "")
            else:
                found._add(folder, line)
        found.slides = max(found.slides, sum(found.counts.values()))
        found.counts[State.PENDING.text] += found.slides - sum(found.counts.values())
        return found

    def _add(self, folder: Path, line: Line) -> None:
        state, slide = str(line["state"]), str(line.get("slide") or line["map"])
        if state == State.RUNNING.text:
            path = folder / str(line["map"])
            if not (is_locked(path) or seems_held(lease_path(path))):
                self.counts[State.PENDING.text] += 1
                return
            self.running.append((slide, f"process {line.get('process')} on {line.get('host')}, since {line.get('at')}"))
        self.counts[state] += 1
        if "cause" in line:
            cause = self.causes.setdefault(str(line["cause"]), Cause())
            cause.slides += 1
            cause.transient += state == State.TRY_AGAIN.text
            if len(cause.examples) < EXAMPLES:
                cause.examples.append((slide, str(line.get("error") or "")))
        self.tissue_mm2 += float(line.get("tissue_mm2") or 0.0)
        self.areas_mm2.update(line.get("areas_mm2") or {})
        if "tissue_mm2" in line and not line.get("kept"):
            self.seconds += float(line.get("seconds") or 0.0)
            self.predicted += 1

    @property
    def done(self) -> int:
        """Slides that have their map."""
        return sum(self.counts[state.text] for state in State if state.has_map)

    @property
    def left(self) -> int:
        """Slides that the same command will do."""
        return sum(self.counts[state.text] for state in (State.PENDING, State.RUNNING, State.TRY_AGAIN))

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all are done, by as many runs as there are now (one if there is none); None if unknown."""
        if not self.predicted:
            return None
        return self.left * self.seconds / self.predicted / max(1, len(self.running))

    def to_json(self) -> JsonObject:
        """Plain JSON values."""
        return {
            "slides": self.slides, "list": self.source,
            "counts": {state.text: self.counts[state.text] for state in State},
            "failures": [
                {
                    "cause": name, "slides": cause.slides, "try_again": cause.transient,
                    "examples": [{"slide": slide, "error": error} for slide, error in cause.examples],
                }
                for name, cause in sorted(self.causes.items(), key=lambda item: -item[1].slides)
            ],
            "running": [{"slide": slide, "where": where} for slide, where in self.running],
            "tissue_mm2": self.tissue_mm2, "areas_mm2": dict(self.areas_mm2),
            "seconds": self.seconds, "seconds_left": self.seconds_left,
        }  # fmt: skip


def maps_of(folder: Path) -> Iterator[Path]:
    """The maps of the slides of a cohort that are done, as far as they are still there."""
    with_map = {state.text for state in State if state.has_map}
    for line in latest(folder):
        if line.get("state") in with_map and (path := folder / str(line["map"])).is_dir():
            yield path
