"""What is kept of a remote file: blocks of its directories, and the pieces that were asked for last."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from wsiseg.geometry import ceil_div
from wsiseg.slides.sources.source import Range

Key = TypeVar("Key", bound=Hashable)

BLOCK = 2**16
"""A directory with its tables fits into a few of these."""


class ByteCache(Generic[Key]):
    """The bytes that were used last, up to a limit; safe to use from several threads.

    Args:
        limit: bytes that are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> bytes | None:
        """The bytes kept under a key, None where there are none."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Key, data: bytes) -> None:
        """Keep bytes, and forget those that were not used for longest."""
        with self._lock:
            self._bytes += len(data) - len(self._kept.pop(key, b""))
            self._kept[key] = data
            while self._bytes > self._limit:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget all bytes that are kept."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


Run = tuple[Range, list[Range]]
"""A range that is fetched at once, and those in it that were asked for."""


def merged(ranges: Sequence[Range], gap: int, longest: int) -> list[Run]:
    """Ranges in runs: each run's own range, and those in it.

    Args:
        ranges: in any order.
        gap: bytes between two of them that are read along rather than asking twice.
        longest: bytes of a run, unless a single range has more.
    """
    runs: list[Run] = []
    for start, count in sorted(set(ranges)):
        if runs:
            (first, length), inside = runs[-1]
            end = max(first + length, start + count)
            if start <= first + length + gap and end - first <= longest:
                runs[-1] = ((first, end - first), [*inside, (start, count)])
                continue
        runs.append(((start, count), [(start, count)]))
    return runs


class BlockFile(io.RawIOBase):
    """A remote file for libraries that want to open one; reads whole blocks, which stay.

    Args:
        length: of the file.
        fetch: gives the bytes of ranges.
        cache: of blocks by their number, which outlives this object.
    """

    def __init__(self, length: int, fetch: Callable[[Sequence[Range]], list[bytes]], cache: ByteCache[int]) -> None:
        self._length = length
        self._fetch = fetch
        self._cache = cache
        self._place = 0

    def readable(self) -> bool:
        """True; see `io.IOBase.readable`."""
        return True

    def seekable(self) -> bool:
        """True; see `io.IOBase.seekable`."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot go to byte {base + offset}")
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """See `io.IOBase.tell`."""
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """See `io.RawIOBase.readinto`; fills the buffer unless the file ends."""
        view = memoryview(buffer).cast("B")
        end = min(self._length, self._place + len(view))
        if end <= self._place:
            return 0
        numbers = range(self._place // BLOCK, ceil_div(end, BLOCK))
        found = {number: data for number in numbers if (data := self._cache.get(number)) is not None}
        missing = [number for number in numbers if number not in found]
        ranges = [(number * BLOCK, min(BLOCK, self._length - number * BLOCK)) for number in missing]
        for number, data in zip(missing, self._fetch(ranges) if ranges else [], strict=True):
            found[number] = data
            self._cache.put(number, data)
        data = b"".join(found[number] for number in numbers)
        first = self._place - numbers.start * BLOCK
        count = end - self._place
        view[:count] = data[first : first + count]
        self._place = end
        return count
