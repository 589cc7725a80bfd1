"""Threads beside the main one: readers that run ahead and may hang, and a writer that lags behind.

Their threads are daemons. A thread that hangs in a library on a dead network drive must not keep the program from
ending, as the standard library's pools would.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType
from typing import Generic, Self, TypeVar

from wsiseg.errors import OptionError, SlideError

Item = TypeVar("Item")
Result = TypeVar("Result")


PATIENCE_S = 20.0
"""How long to wait for reads that nobody needs any more."""


class ReadTimeoutError(SlideError, TimeoutError):
    """A read that did not come back in time."""

    transient = True


def check_timeout(seconds: float) -> None:
    """Raise `OptionError` on a time limit that is none."""
    if not 0 < seconds <= 10**6:
        raise OptionError(f"the time limit of a read is 0 to a million seconds, got {seconds}")


def check_retry_time(seconds: float) -> None:
    """Raise `OptionError` on a time to ask a server again that is none."""
    if not 0 <= seconds <= 10**6:
        raise OptionError(f"the time in which a server is asked again is 0 to a million seconds, got {seconds}")


class ReaderPool:
    """Threads that call a function; a context manager, leaving it abandons what is under way.

    Args:
        workers: number of threads.
    """

    def __init__(self, workers: int) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"reader-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        """Have a thread call `function(item)`; the future gets what it returns or raises."""
        future: Future[Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(item))
            except BaseException as error:  # raised again where the result is asked for
                future.set_exception(error)

        self._tasks.put(run)
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def abandon(self) -> None:
        """Have the threads end after what was submitted, without waiting for them."""
        for _thread in self._threads:
            self._tasks.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.abandon()
        if kind is not None and issubclass(kind, ReadTimeoutError):
            return
        # A thread that still computes in a library when the interpreter ends can abort the process.
        limit = time.monotonic() + PATIENCE_S
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))


def read_ahead(
    items: Iterable[Item],
    read: Callable[[Item], Result],
    *,
    workers: int,
    ahead: int,
    timeout_s: float | None = None,
    waited: Callable[[float], None] | None = None,
) -> Generator[tuple[Item, Result], None, None]:
    """Items and what `read` makes of them, in the order of the items, a bounded number of them ahead.

    Items are taken in the caller's thread, so they may come from a generator, which no two threads may call. Whoever
    may stop before the end has to close this generator (`contextlib.closing`), so that its threads end.

    Args:
        items: what to read.
        read: called in other threads.
        workers: their number.
        ahead: reads that are under way or waiting to be taken.
        timeout_s: seconds to wait for one of them; None waits for ever.
        waited: told the seconds of each wait.

    Raises:
        ReadTimeoutError: a read took longer.
    """
    pending: deque[tuple[Item, Future[Result]]] = deque()
    source = iter(items)
    with ReaderPool(workers) as pool:
        try:
            while True:
                while len(pending) < max(1, ahead):
                    item = next(source, pool)  # the pool stands for the end: no item is it
                    if item is pool:
                        break
                    pending.append((item, pool.submit(read, item)))  # type: ignore[arg-type]
                if not pending:
                    return
                item, future = pending.popleft()
                start = time.perf_counter()
                try:
                    result = future.result(timeout_s)
                except FutureTimeout as error:
                    if future.done():  # an error of the reader's own
                        raise
                    raise ReadTimeoutError(
                        f"reading the slide took more than {timeout_s:g} s at one place; its disk or server does not "
                        "answer. Repeat the command when it does; --read-timeout sets the limit"
                    ) from error
                if waited is not None:
                    waited(time.perf_counter() - start)
                yield item, result
        finally:
            for _, future in pending:
                future.cancel()


def within(function: Callable[[], Result], timeout_s: float) -> Result:
    """Call `function` in a thread and return its result; raises `ReadTimeoutError` where that takes longer."""
    for _, result in read_ahead([None], lambda _: function(), workers=1, ahead=1, timeout_s=timeout_s):
        return result
    raise AssertionError


class WriteBehind(Generic[Item]):
    """A thread that calls `write` with one item after the other, in order.

    `put` waits until the item before is done with, so that no more than one takes memory beside the caller's next. An
    error of the thread is raised by the next `put` or at the end. Leaving the context without an error waits for what
    was put.

    Args:
        write: called in the thread.
    """

    def __init__(self, write: Callable[[Item], None]) -> None:
        self._write = write
        self._items: queue.Queue[Item | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand an item to the thread; waits until the one before is written."""
        self._items.join()
        self._raise()
        self._items.put(item)

    def _raise(self) -> None:
        if self._error is not None:
            # Before the error is taken away: seeing neither, the thread would write the item that waits.
            self._stopped = True
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while (item := self._items.get()) is not None:
            try:
                if not self._stopped and self._error is None:  # else the queue is emptied, so that nobody waits on it
                    self._write(item)
            except BaseException as error:
                self._error = error
            finally:
                del item  # before the next one is waited for
                self._items.task_done()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error what is under way is still finished, so that no shard is cut; what waits is dropped.
        self._stopped = kind is not None
        self._items.put(None)
        self._thread.join()
        if kind is None:
            self._raise()
