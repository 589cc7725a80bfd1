"""Reading ahead of a computation and writing behind it, in a bounded number of threads and with bounded memory.

Decoding and encoding of images release the interpreter's lock, so threads suffice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")

_THREADS = 2


def read_ahead(
    batches: Iterable[Sequence[Item]],
    read: Callable[[Item], Content],
    ahead: int = 2,
    threads: int = _THREADS,
) -> Generator[tuple[Sequence[Item], list[Content]], None, None]:
    """Each batch with what `read` made of its items, in order, while the next ones are being read.

    What `read` raises is raised here, once its batch is due. Nothing is read on after the iterator is closed.

    Args:
        batches: what to read.
        read: called in another thread, once for each item.
        ahead: how many batches to read before they are asked for.
        threads: how many items to read at once.
    """
    pool = ThreadPoolExecutor(threads, "read")
    waiting: deque[tuple[Sequence[Item], list[Future[Content]]]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, [pool.submit(read, item) for item in batch]))
            if len(waiting) > ahead:
                yield _read(*waiting.popleft())
        while waiting:
            yield _read(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _read(batch: Sequence[Item], contents: list[Future[Content]]) -> tuple[Sequence[Item], list[Content]]:
    return batch, [content.result() for content in contents]


class WriteBehind:
    """Writes in other threads. Leaving the context waits for all of them, or, after an error, drops those not begun.

    What a write raises is raised by the next `submit` or at the end.

    Args:
        limit: how many writes may wait; then `submit` waits too, so that a slow disk does not fill the memory.
        threads: how many to do at once.
    """

    def __init__(self, limit: int = 256, threads: int = _THREADS) -> None:
        self._limit = limit
        self._pool = ThreadPoolExecutor(threads, "write")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, write: Callable[..., None], *arguments: Any) -> None:
        """Have a thread call `write(*arguments)`."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= self._limit):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(write, *arguments))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
