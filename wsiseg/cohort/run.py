"""A cohort is predicted: each slide is claimed, done and written down, by as many runs at once as there are."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from time import monotonic, sleep

from wsiseg.cohort.names import Cohort, Named, map_path
from wsiseg.cohort.state import Mark, Marks, RunJournal, State, now, to_line
from wsiseg.errors import LockedError, OptionError, WsisegError
from wsiseg.export.vector_options import VectorOptions
from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.batch import SlideResult
from wsiseg.prediction.many import Keeper, made_folder, refuse_impossible, wanted_maps, whatever_comes
from wsiseg.prediction.map_folders import LocalFolder
from wsiseg.prediction.opener import Opener
from wsiseg.prediction.options import OF_SPEED, PredictOptions
from wsiseg.prediction.output import Output
from wsiseg.prediction.progress import Progress, ProgressFunction, as_progress
from wsiseg.prediction.result import Prediction, tissue_provenance
from wsiseg.prediction.run import loaded_model, predict_opened
from wsiseg.prediction.unfinished import unfinished_folder
from wsiseg.system import leases
from wsiseg.system.addresses import without_secrets
from wsiseg.system.files import is_tissue_map, refuse_address
from wsiseg.system.leases import Lease, Watcher, holder_of
from wsiseg.system.locks import is_locked, lease_path, locked
from wsiseg.tissue_map.reader import open_map

LOCKED = "locked"
"""What a slide is counted as that another run is doing."""


@dataclass(frozen=True, slots=True)
class CohortOptions:
    """How a cohort is done.

    Attributes:
        part: which part of the list, from 1 on, and of how many.
        skip_locked: leave to other runs what they are doing, without a word.
        retry_failed: try again what failed for good.
        polygons: whether they are written beside each map.
        vectors: how.
        overwrite: replace maps that are there.
        restart: forget unfinished runs.
    """

    part: tuple[int, int] = (1, 1)
    skip_locked: bool = False
    retry_failed: bool = False
    polygons: bool = True
    vectors: VectorOptions | None = None
    overwrite: bool = False
    restart: bool = False

    def __post_init__(self) -> None:
        number, parts = self.part
        if not 1 <= number <= parts:
            raise OptionError(
                f"parts count from 1, so that the last of {max(1, parts)} is {max(1, parts)}/{max(1, parts)}; got "
                f"{number}/{parts}"
            )


@dataclass(frozen=True, slots=True)
class _Claim:
    """A slide that no other run does meanwhile."""

    named: Named
    path: Path
    lease: Lease
    turn: int
    stack: ExitStack


@dataclass
class CohortRun:
    """Predicts the slides of a cohort, one after the other; each result comes when it is asked for.

    Several runs with the same folder share the slides. What an earlier run did is not done again.

    Attributes:
        cohort: the slides and the names of their maps.
        folder: of the maps; made if it is not there.
        model: see `wsiseg.predict`.
        options: for all slides; the list may state an mpp for each. Probabilities are "coarse" unless they say others.
        how: see `CohortOptions`.
        progress: told as the work on a slide goes on.
        began: called with each slide whose turn it is.
        tally: slides of this part by the text of their `State`, or `LOCKED`; complete at the end.
    """

    cohort: Cohort
    folder: Path
    model: str | Path | TissueModel = DEFAULT_MODEL
    options: PredictOptions = field(default_factory=PredictOptions)
    how: CohortOptions = field(default_factory=CohortOptions)
    progress: Progress | ProgressFunction | None = None
    began: Callable[[str], None] = lambda _: None
    tally: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._asked_probabilities = self.options.probabilities
        self.options = replace(self.options, probabilities=self.options.probabilities or "coarse")
        refuse_address(self.folder)
        refuse_impossible(self.options)
        self._watcher = Watcher()

    def __iter__(self) -> Iterator[SlideResult]:
        """The results of the slides that are done, looked at or failed now.

        Raises:
            WsisegError: where model, options, list or folder are to blame, and not one slide.
        """
        self._wanted = wanted_maps(self.model, self.options)
        self._digest = _digest(
            self._wanted.model_hash, self._wanted.options, self._wanted.runtime.name, self._asked_probabilities
        )
        with made_folder(self.folder), ExitStack() as stack:
            self._journal = stack.enter_context(
                RunJournal(self.folder, self.cohort.slides, self.cohort.source.text, self.how.part, self._watcher)
            )
            self._marks = Marks(self.folder)
            self._opener: Opener | None = None
            self._stack = stack
            claims = self._claims()
            stack.callback(claims.close)
            yield from self._results(claims)

    def _results(self, claims: Iterator[_Claim]) -> Iterator[SlideResult]:
        ahead: list[_Claim | None] = []
        failed: list[Exception] = []

        def look_ahead() -> None:
            """Claim the slide that comes next, and begin to open it; what fails there is not this slide's fault."""
            if ahead or failed:
                return
            try:
                ahead.append(next(claims, None))
            except Exception as error:
                failed.append(error)
                return
            if ahead[0] is not None and self._opener is not None and not self._is_there(ahead[0].path):
                self._opener.ahead(ahead[0].named.entry.slide, ahead[0].named.entry.mpp)

        try:
            claim = next(claims, None)
            while claim is not None:
                begun = monotonic()
                with claim.stack:
                    where = {"host": socket.gethostname(), "process": os.getpid()}
                    self._journal.append(self._line(claim, State.RUNNING, **where))
                    self.began(claim.named.entry.slide)
                    result = self._done(claim, look_ahead)
                    self._journal.append(self._line_of(claim, result, monotonic() - begun))
                yield result
                look_ahead()
                if failed:
                    raise failed[0]
                claim = ahead.pop()
        finally:  # what was claimed ahead of an interrupt
            for left in ahead:
                if left is not None:
                    left.stack.close()

    def _done(self, claim: _Claim, look_ahead: Callable[[], None]) -> SlideResult:
        """The result of a slide: its map as it is there, or made now."""
        entry, path = claim.named.entry, claim.path
        if not self.how.overwrite and self._is_there(path):
            asked = replace(self.options, mpp=entry.mpp or self.options.mpp, probabilities=self._asked_probabilities)
            wanted = replace(self._wanted, asked=asked)
            return Keeper(wanted, self.how.polygons, self.how.vectors, LocalFolder(self.folder)).look_at(
                entry.slide, path
            )
        if self._opener is None:
            loaded, resolved = loaded_model(self.model, self.options)
            self._opener = self._stack.enter_context(Opener(loaded, resolved, as_progress(self.progress)))
        return whatever_comes(entry.slide, path, partial(self._made, claim, self._opener, look_ahead))

    def _made(self, claim: _Claim, opener: Opener, look_ahead: Callable[[], None]) -> SlideResult:
        entry, path = claim.named.entry, claim.path
        geojson = path.with_suffix(".geojson") if self.how.polygons else None
        output = Output(path, geojson, self.how.vectors, self.how.overwrite, self.how.restart, held=claim.lease)
        output.check()
        job = opener.open(entry.slide, str(self.model), entry.mpp, streamed=look_ahead)
        with job.slide:
            found = predict_opened(job, output)
        return SlideResult(entry.slide, path, found)

    def _claims(self) -> Generator[_Claim, None, None]:
        """The slides that are to be done, each claimed; those that others do come last, once nobody does them."""
        others: dict[str, Named] = {}
        for named in self.cohort.part(*self.how.part):
            claim = self._claimed(named)
            if claim is not None:
                yield claim
            elif self._is_left(named):
                others[named.map] = named
        signs = {name: _sign(map_path(self.folder, named)) for name, named in others.items()}
        while others and not self.how.skip_locked:
            for name, named in list(others.items()):
                claim = self._claimed(named)
                path = map_path(self.folder, named)
                if claim is not None:
                    yield claim
                elif self._is_left(named) and not (is_locked(path) or _sign(path) not in (signs[name], None)):
                    continue  # nobody was seen to renew its lease
                elif self._is_left(named):
                    self.tally[LOCKED] += 1
                del others[name]
            if others:
                sleep(leases.RENEWED_S / 4)
        self.tally[LOCKED] += len(others)

    def _claimed(self, named: Named) -> _Claim | None:
        """A slide, claimed; None where nothing is to be done, which is counted, or where another run does it."""
        if self._is_decided(named):
            return None
        path = map_path(self.folder, named)
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                lease = stack.enter_context(locked(path, self._watcher))
            except LockedError:
                self._marks.refresh()
                self._is_decided(named)
                return None
            self._marks.refresh()
            if self._is_decided(named):
                return None
            mark = self._marks.of(named.map)
            return _Claim(named, path, lease, mark.turn + 1, stack.pop_all())

    def _is_decided(self, named: Named) -> bool:
        """Whether nothing is to be done for a slide; then it is counted."""
        mark = self._marks.of(named.map)
        if self._is_left(named, mark):
            return False
        self.tally[mark.state.text] += 1
        return True

    def _is_left(self, named: Named, mark: Mark | None = None) -> bool:
        """Whether something is to be done for a slide."""
        mark = self._marks.of(named.map) if mark is None else mark
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

    def _is_there(self, path: Path) -> bool:
        return is_tissue_map(path) and not unfinished_folder(path).exists()

    def _how(self, named: Named) -> str:
        return self._digest if named.entry.mpp is None else f"{self._digest} {named.entry.mpp:g}"

    def _line(self, claim: _Claim, state: State, **more: object) -> dict[str, object]:
        entry = claim.named.entry
        return to_line(
            map=claim.named.map, slide=without_secrets(entry.slide), group=entry.group, state=state.text,
            turn=claim.turn, how=self._how(claim.named), at=now(), **more,
        )  # fmt: skip

    def _line_of(self, claim: _Claim, result: SlideResult, seconds: float) -> dict[str, object]:
        """The line of a slide's result, which is counted."""
        state = state_of(result)
        self.tally[state.text] += 1
        if result.failure is not None:
            return self._line(
                claim, state, cause=result.failure.cause, error=without_secrets(result.error or ""),
                seconds=round(seconds, 1),
            )  # fmt: skip
        tiles, damaged_mm2 = result.damage
        return self._line(
            claim, state, seconds=round(seconds, 1), kept=result.kept is not None or None,
            tissue_mm2=result.tissue_mm2, areas_mm2=_areas(result.prediction, claim.path),
            damaged_tiles=tiles or None, damaged_mm2=damaged_mm2 or None,
        )  # fmt: skip


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


def _sign(path: Path) -> object:
    """What changes as a lease is renewed; None where there is none."""
    lease = lease_path(path)
    holder = holder_of(lease)
    return (holder.token, holder.beat) if lease.is_dir() else None
