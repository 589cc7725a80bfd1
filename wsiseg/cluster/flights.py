"""Slides under way on a cluster: what is sent, what comes back, and what becomes of a slide whose worker dies."""

from __future__ import annotations

import math
import queue
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from distributed import Client, Future, KilledWorker

from wsiseg.cluster.worker import Busy, Dropped, Settings, SlideTask, do_slide
from wsiseg.cohort.books import LOCKED, Books
from wsiseg.cohort.names import Named, map_path
from wsiseg.cohort.run import sign_of
from wsiseg.errors import ClusterError, LockedError, OptionError
from wsiseg.prediction.batch import SlideResult
from wsiseg.prediction.failure import Failure
from wsiseg.prediction.many import whatever_comes
from wsiseg.system import leases
from wsiseg.system.addresses import is_address
from wsiseg.system.json_values import JsonObject
from wsiseg.system.leases import Watcher
from wsiseg.system.locks import is_locked, locked

if TYPE_CHECKING:
    from wsiseg.cluster.run import Onlooker

DEATHS = 4
"""So many workers in a row may die at one slide without getting any further in it; then it has failed."""

STOP_S = 15.0
"""How long workers have to leave what they are at, when the run ends before its slides do."""


COUNTED_S, ALONE_S = 1.0, 60.0
"""How often workers are counted, and after how long without any it is told."""


class ClusterLostError(ClusterError):
    """The scheduler is gone; workers that live end what they are at."""


@dataclass
class _Flight:
    """A slide that is sent to a worker, or waits for one.

    Attributes:
        named: the slide.
        since: when it was first sent, of the monotonic clock.
        turn: of the slide, 0 before a worker began it.
        fruitless: workers in a row that died without getting any further.
        sign: of the lease that another process holds, where one does.
        future: of the task.
        began: how often workers began it in this attempt.
        starts: with how much of each phase the attempts began: what is kept of those before.
        seen: phases that this attempt came to.
    """

    named: Named
    since: float = 0.0
    turn: int = 0
    fruitless: int = 0
    sign: object = None
    future: Future | None = None
    began: int = 0
    starts: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def note(self, phase: str, done: int) -> None:
        """Where an attempt begins a phase further on than those before, the worker before did not die in vain."""
        if phase not in self.seen:
            self.seen.add(phase)
            if done > self.starts.get(phase, -1):
                self.starts[phase], self.fruitless = done, 0


class Flights:
    """The slides of one run that are under way.

    Args:
        client: of the scheduler.
        settings: of the run.
        books: that are kept of the slides.
        watcher: of leases.
        onlooker: is told what happens.
    """

    def __init__(self, client: Client, settings: Settings, books: Books, watcher: Watcher, onlooker: Onlooker) -> None:
        self._client, self._settings, self._books = client, settings, books
        self._watcher, self._onlooker = watcher, onlooker
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._flying: dict[str, _Flight] = {}
        self._again: deque[_Flight] = deque()
        self._busy: list[_Flight] = []
        self._looked = monotonic()
        self._sent = 0
        self._counted = -COUNTED_S, 0  # when workers were counted, and how many
        self._alone_since = monotonic()

    def __enter__(self) -> Self:
        self._client.subscribe_topic(self._settings.topic, self._heard)
        return self

    def __exit__(self, *error: object) -> None:
        """Have workers leave what they are at, and wait until they did: their leases are free then."""
        futures = {key: flight.future for key, flight in self._flying.items() if flight.future is not None}
        if futures and self._client.status == "running":
            with suppress(Exception):  # the scheduler may go away meanwhile; workers then end by themselves
                self._client.cancel(list(futures.values()), force=True)
                self._wait_for({key for key in futures if self._flying[key].began})
        with suppress(Exception):
            self._client.unsubscribe_topic(self._settings.topic)

    def _wait_for(self, keys: set[str]) -> None:
        """Wait until workers have left these slides."""
        limit = monotonic() + STOP_S
        while keys and (left_s := limit - monotonic()) > 0:
            with suppress(queue.Empty):
                message = self._messages.get(timeout=left_s)
                if isinstance(message, dict) and message["kind"] == "left":
                    keys.discard(message["key"])

    def _heard(self, event: tuple[float, Any]) -> None:
        self._messages.put(event[1])

    def results(self, first: Named, slides: Iterator[Named]) -> Iterator[SlideResult]:
        """The results of slides as they come."""
        self._again.append(_Flight(first))
        while True:
            self._send(slides)
            if not (self._flying or self._busy or self._again):
                return
            with suppress(queue.Empty):
                message = self._messages.get(timeout=0.2)
                if isinstance(message, dict):
                    self._told(message)
                elif (result := self._landed(message)) is not None:
                    yield result
            self._look_at_busy()

    def _send(self, slides: Iterator[Named]) -> None:
        """Send as many slides as there are workers without one: each has one at a time."""
        while len(self._flying) < self._workers():
            flight = self._again.popleft() if self._again else None
            if flight is None:
                named = next(slides, None)
                if named is None:
                    return
                flight = _Flight(named)
            self._sent += 1
            key = f"{self._settings.topic}-{self._sent}"
            entry = flight.named.entry
            if not is_address(entry.slide):
                entry = replace(entry, slide=str(Path(entry.slide).absolute()))
            task = SlideTask(key, entry, map_path(self._books.folder, flight.named))
            flight.since, flight.began = flight.since or monotonic(), 0
            self._flying[key] = flight
            flight.future = self._client.submit(do_slide, self._settings, task, key=key, pure=False)
            flight.future.add_done_callback(self._messages.put)

    def _workers(self) -> int:
        """Workers that are there now; asked for once a second."""
        if self._client.status not in ("running", "newly-created"):
            raise _lost()
        if monotonic() - self._counted[0] > COUNTED_S:
            try:
                found = self._client.scheduler_info(n_workers=-1)["workers"]
            except (OSError, TimeoutError) as error:
                raise _lost() from error
            if any(worker["nthreads"] != 1 for worker in found.values()):
                raise OptionError(
                    "a worker does one slide at a time, and has one thread of Dask's for that; start workers with "
                    "`dask worker ADDRESS --nthreads 1`, and OMP_NUM_THREADS for the threads they compute in"
                )
            if found:
                self._alone_since = monotonic()
            elif monotonic() - self._alone_since > ALONE_S:
                self._onlooker.waiting()
                self._alone_since = math.inf
            self._counted = monotonic(), len(found)
        return self._counted[1]

    def _told(self, message: JsonObject) -> None:
        """What a worker says of a slide."""
        flight = self._flying.get(message["key"])
        if flight is None:
            return
        slide = flight.named.entry.slide
        if message["kind"] == "began":
            if flight.began:  # a scheduler with settings of its own gave it to another worker
                self._count_death(flight)
            flight.began += 1
            flight.turn = max(self._books.next_turn(flight.named), flight.turn + 1)
            self._books.begin(flight.named, flight.turn, message["host"], message["process"])
            self._onlooker.began(slide)
        elif message["kind"] == "step":
            flight.note(message["phase"], message["done"])
            self._onlooker.step(slide, message["phase"], message["done"], message["total"])

    def _landed(self, future: Future) -> SlideResult | None:
        """What came back of a slide; None where it is not at its end."""
        flight = self._flying.pop(str(future.key), None)
        if flight is None:
            return None
        flight.future = None
        status, error = future.status, future.exception() if future.status == "error" else None
        if status not in ("finished", "error"):
            raise _lost()
        found = None if error is not None else future.result()
        future.release()
        self._onlooker.ended(flight.named.entry.slide)
        if isinstance(error, KilledWorker):
            self._count_death(flight)
            self._counted = -COUNTED_S, 0  # one less, perhaps
            if flight.fruitless < DEATHS:
                self._again.appendleft(flight)
                return None
            found = self._killer(flight)
        elif isinstance(error, ImportError):
            raise OptionError(f"workers cannot load what this run needs: {error}; install wsiseg there as well")
        elif error is not None:
            found = whatever_comes(flight.named.entry.slide, map_path(self._books.folder, flight.named), _raise(error))
        if isinstance(found, Dropped):
            self._again.appendleft(flight)
        elif isinstance(found, Busy):
            flight.sign = sign_of(map_path(self._books.folder, flight.named))
            self._busy.append(flight)
        elif isinstance(found, SlideResult):
            turn = flight.turn or self._books.next_turn(flight.named)
            self._books.end(flight.named, turn, found, monotonic() - flight.since)
            return replace(found, slide=flight.named.entry.slide)
        return None

    def _count_death(self, flight: _Flight) -> None:
        flight.fruitless += 1
        flight.seen.clear()
        self._onlooker.died(flight.named.entry.slide)

    def _killer(self, flight: _Flight) -> SlideResult:
        """The result of a slide at which one worker after the other dies."""
        text = (
            f"{DEATHS} workers in a row died at it without getting any further, perhaps for lack of memory; try it "
            "alone, or with a smaller --max-memory and --retry-failed"
        )
        path = map_path(self._books.folder, flight.named)
        return SlideResult(flight.named.entry.slide, path, error=text, failure=Failure("worker died", transient=False))

    def _look_at_busy(self) -> None:
        """Take back slides that another process held and left; count those that it goes on with, at the end."""
        if not self._busy or monotonic() - self._looked < leases.RENEWED_S / 4:
            return
        self._looked = monotonic()
        self._books.marks.refresh()
        idle = not (self._flying or self._again)
        for flight in list(self._busy):
            path = map_path(self._books.folder, flight.named)
            if self._books.is_decided(flight.named):
                self._busy.remove(flight)
                continue
            try:
                with locked(path, self._watcher):
                    self._again.append(flight)
            except LockedError:
                renewed = is_locked(path) or sign_of(path) not in (flight.sign, None)
                if not idle or not (renewed or self._books.how.skip_locked):
                    continue
                self._books.tally[LOCKED] += 1
            self._busy.remove(flight)


def _raise(error: BaseException) -> Callable[[], SlideResult]:
    def fail() -> SlideResult:
        raise error

    return fail


def _lost() -> ClusterLostError:
    return ClusterLostError("the scheduler is gone; what its workers had done is kept: repeat the command")
