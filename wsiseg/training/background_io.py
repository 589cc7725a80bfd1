"""Writing many small files behind a computation, in a bounded number of threads and with bounded memory.

Encoding of images releases the interpreter's lock, so threads suffice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

_THREADS = 2


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
