"""What a run of a cohort knows of each slide, and what it writes down: whoever does the slides, here or elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from wsiseg.cohort.names import Cohort, Named, map_path
from wsiseg.cohort.options import CohortOptions
from wsiseg.cohort.state import Mark, Marks, RunJournal, State, now, to_line
from wsiseg.errors import WsisegError
from wsiseg.prediction.batch import SlideResult
from wsiseg.prediction.kept_map import Wanted
from wsiseg.prediction.many import made_folder
from wsiseg.prediction.options import OF_SPEED
from wsiseg.prediction.result import Prediction, tissue_provenance
from wsiseg.system.addresses import without_secrets
from wsiseg.system.leases import Watcher
from wsiseg.tissue_map.reader import open_map

LOCKED = "locked"
"""What a slide is counted as that another run is doing."""


@dataclass(frozen=True, slots=True)
class Books:
    """The marks of all slides, the run's own lines, and its tally.

    Attributes:
        folder: of the maps.
        how: see `CohortOptions`.
        digest: one text for the model and all options that change a map.
        journal: this run's lines.
        marks: what all runs said.
        tally: slides of this run's part by the text of their `State`, or `LOCKED`.
    """

    folder: Path
    how: CohortOptions
    digest: str
    journal: RunJournal
    marks: Marks
    tally: Counter[str]

    def is_decided(self, named: Named) -> bool:
        """Whether nothing is to be done for a slide; then it is counted."""
        mark = self.marks.of(named.map)
        if self.is_left(named, mark):
            return False
        self.tally[mark.state.text] += 1
        return True

    def is_left(self, named: Named, mark: Mark | None = None) -> bool:
        """Whether something is to be done for a slide."""
        mark = self.marks.of(named.map) if mark is None else mark
        if mark.state <= State.RUNNING:
            return True
        if mark.is_new:  # by another run, at the same time as this one
            return False
        if self.how.overwrite or mark.state is State.TRY_AGAIN or mark.how != self._how(named):
            return True
        if mark.state is State.FAILED:
            return self.how.retry_failed
        path = map_path(self.folder, named)
        return not path.is_dir() or (self.how.polygons and not path.with_suffix(".geojson").exists())

    def next_turn(self, named: Named) -> int:
        """The number of the turn that a slide would have if it began now."""
        return self.marks.of(named.map).turn + 1

    def begin(self, named: Named, turn: int, host: str, process: int) -> None:
        """Write down who does a slide."""
        self.journal.append(self._line(named, turn, State.RUNNING, host=host, process=process))

    def end(self, named: Named, turn: int, result: SlideResult, seconds: float) -> None:
        """Write down a slide's result, and count it."""
        state = state_of(result)
        self.tally[state.text] += 1
        if result.failure is not None:
            line = self._line(
                named, turn, state, cause=result.failure.cause, error=without_secrets(result.error or ""),
                seconds=round(seconds, 1),
            )  # fmt: skip
        else:
            tiles, damaged_mm2 = result.damage
            line = self._line(
                named, turn, state, seconds=round(seconds, 1), kept=result.kept is not None or None,
                tissue_mm2=result.tissue_mm2, areas_mm2=_areas(result.prediction, map_path(self.folder, named)),
                damaged_tiles=tiles or None, damaged_mm2=damaged_mm2 or None,
            )  # fmt: skip
        self.journal.append(line)

    def _how(self, named: Named) -> str:
        return self.digest if named.entry.mpp is None else f"{self.digest} {named.entry.mpp:g}"

    def _line(self, named: Named, turn: int, state: State, **more: object) -> dict[str, object]:
        entry = named.entry
        return to_line(
            map=named.map, slide=without_secrets(entry.slide), group=entry.group, state=state.text, turn=turn,
            how=self._how(named), at=now(), **more,
        )  # fmt: skip


@contextmanager
def open_books(
    cohort: Cohort, folder: Path, how: CohortOptions, wanted: Wanted, tally: Counter[str], watcher: Watcher
) -> Iterator[Books]:
    """The books of a run as long as it lasts; the folder is made if it is not there."""
    with (
        made_folder(folder),
        RunJournal(folder, cohort.slides, cohort.source.text, how.part, watcher) as journal,
    ):
        digest = _digest(wanted.model_hash, wanted.options, wanted.runtime.name, wanted.asked.probabilities)
        yield Books(folder, how, digest, journal, Marks(folder), tally)


def state_of(result: SlideResult) -> State:
    """The state that a slide's result leaves it in."""
    if result.failure is not None:
        return State.TRY_AGAIN if result.failure.transient else State.FAILED
    if result.damage[0]:
        return State.DAMAGED
    return State.NO_TISSUE if result.tissue_mm2 == 0 else State.DONE


def _areas(prediction: Prediction | None, path: Path) -> dict[str, float] | None:
    """The area of each class in mm2, of what was predicted or of the map that is there."""
    if prediction is not None:
        return {area.name: round(area.area_mm2, 6) for area in prediction.areas}
    with suppress(WsisegError):  # a map of long ago may not say; its slide is done all the same
        return {row.name: round(row.area_mm2, 6) for row in open_map(path).areas}
    return None


def _digest(model_hash: str, options: object, runtime: str, probabilities: object) -> str:
    """One text for a model and all options that change a map; of probabilities what was asked for.

    Where nothing was, full and coarse ones count as done; a later run may ask for one of them.
    """
    values = asdict(options) | {"probabilities": probabilities}  # type: ignore[call-overload]
    for name in (*OF_SPEED, "device", "batch_size"):
        values.pop(name, None)
    facts = [model_hash, values, tissue_provenance(values["tissue"]), runtime]
    return blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()
