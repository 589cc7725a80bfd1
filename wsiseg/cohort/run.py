"""A cohort is predicted: each slide is claimed, done and written down, by as many runs at once as there are."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from wsiseg.cohort.books import LOCKED, open_books
from wsiseg.cohort.maker import SlideMaker
from wsiseg.cohort.names import Cohort, Named, map_path
from wsiseg.cohort.options import CohortOptions
from wsiseg.errors import LockedError
from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.batch import SlideResult
from wsiseg.prediction.many import refuse_impossible, wanted_maps
from wsiseg.prediction.options import PredictOptions
from wsiseg.prediction.progress import Progress, ProgressFunction, as_progress
from wsiseg.system import leases
from wsiseg.system.files import refuse_address
from wsiseg.system.leases import Lease, Watcher, holder_of
from wsiseg.system.locks import is_locked, lease_path, locked

__all__ = ["LOCKED", "CohortOptions", "CohortRun"]


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
        refuse_address(self.folder)
        refuse_impossible(self.options)
        self._watcher = Watcher()

    def __iter__(self) -> Iterator[SlideResult]:
        """The results of the slides that are done, looked at or failed now.

        Raises:
            WsisegError: where model, options, list or folder are to blame, and not one slide.
        """
        wanted = wanted_maps(self.model, self.options)
        with ExitStack() as stack:
            self._books = stack.enter_context(
                open_books(self.cohort, self.folder, self.how, wanted, self.tally, self._watcher)
            )
            self._maker = stack.enter_context(
                SlideMaker(self.model, self.options, self.how, wanted, as_progress(self.progress))
            )
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
            if ahead[0] is not None:
                self._maker.ahead(ahead[0].named.entry, ahead[0].path)

        try:
            claim = next(claims, None)
            while claim is not None:
                begun = monotonic()
                with claim.stack:
                    self._books.begin(claim.named, claim.turn, socket.gethostname(), os.getpid())
                    self.began(claim.named.entry.slide)
                    result = self._maker.make(claim.named.entry, claim.path, claim.lease, look_ahead)
                    self._books.end(claim.named, claim.turn, result, monotonic() - begun)
                yield result
                look_ahead()
                if failed:
                    raise failed[0]
                claim = ahead.pop()
        finally:  # what was claimed ahead of an interrupt
            for left in ahead:
                if left is not None:
                    left.stack.close()

    def _claims(self) -> Generator[_Claim, None, None]:
        """The slides that are to be done, each claimed; those that others do come last, once nobody does them."""
        others: dict[str, Named] = {}
        for named in self.cohort.part(*self.how.part):
            claim = self._claimed(named)
            if claim is not None:
                yield claim
            elif self._books.is_left(named):
                others[named.map] = named
        signs = {name: sign_of(map_path(self.folder, named)) for name, named in others.items()}
        while others and not self.how.skip_locked:
            for name, named in list(others.items()):
                claim = self._claimed(named)
                path = map_path(self.folder, named)
                if claim is not None:
                    yield claim
                elif self._books.is_left(named) and not (is_locked(path) or sign_of(path) not in (signs[name], None)):
                    continue  # nobody was seen to renew its lease
                elif self._books.is_left(named):
                    self.tally[LOCKED] += 1
                del others[name]
            if others:
                sleep(leases.RENEWED_S / 4)
        self.tally[LOCKED] += len(others)

    def _claimed(self, named: Named) -> _Claim | None:
        """A slide, claimed; None where nothing is to be done, which is counted, or where another run does it."""
        books = self._books
        if books.is_decided(named):
            return None
        path = map_path(self.folder, named)
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                lease = stack.enter_context(locked(path, self._watcher))
            except LockedError:
                books.marks.refresh()
                books.is_decided(named)
                return None
            books.marks.refresh()
            if books.is_decided(named):
                return None
            return _Claim(named, path, lease, books.next_turn(named), stack.pop_all())


def sign_of(path: Path) -> object:
    """What changes as the lease of an output is renewed; None where there is none."""
    lease = lease_path(path)
    holder = holder_of(lease)
    return (holder.token, holder.beat) if lease.is_dir() else None
