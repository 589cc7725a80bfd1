"""The bytes of a slide's file, wherever it lies: any ranges of it, from several threads at once."""

from __future__ import annotations

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from wsiseg.errors import SlideError

Range = tuple[int, int]
"""Where some bytes begin in a file, and how many they are."""

_EDGE_BYTES = 2**20
_SAMPLE_BYTES = 2**16
_SAMPLES = 16


class ByteSource(ABC):
    """A file that is read by ranges; safe to use from several threads.

    Attributes:
        name: last part of its path or address, for messages.
        length: its bytes.
        version: what a server says of its state, None for files of this machine.
    """

    name: str
    length: int
    version: str | None = None

    @abstractmethod
    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of each range, in their order; shorter where a range ends behind the file.

        Raises:
            SlideError: the file cannot be read. That is never damage of what lies there.
        """

    def expect(self, ranges: Sequence[Range]) -> None:  # noqa: B027  (a disk needs no notice)
        """Begin to fetch what will be read soon, where fetching takes long. Never waits, and raises nothing."""

    @abstractmethod
    def file(self) -> BinaryIO:
        """The bytes as an open file, for libraries that need one. The caller closes it."""

    @abstractmethod
    def close(self) -> None:
        """Give back the file. Reading afterwards is an error."""

    def check(self) -> None:  # noqa: B027  (a file may not be able to fail as a whole)
        """Raise the `SlideError` that reading ended with, where it did.

        Libraries that were given `file()` may take an error of it for damage of the slide: who uses them asks here.
        """

    def require_unchanged(self) -> None:  # noqa: B027  (files of this machine are watched by their directory entry)
        """Raise `SlideError` where another file has the address now, or none."""

    def forget(self) -> None:  # noqa: B027  (a source may keep nothing)
        """Free what is kept of bytes to come; they are read again where one needs them."""

    def quick_hash(self) -> str:
        """SHA-256 of the length, the beginning, the end, and sixteen samples between them.

        Raises:
            SlideError: the file cannot be read.
        """
        samples = [(self.length * index // (_SAMPLES + 1), _SAMPLE_BYTES) for index in range(1, _SAMPLES + 1)]
        edge = max(0, self.length - _EDGE_BYTES)
        digest = hashlib.sha256(str(self.length).encode())
        for part in self.read_many([(0, _EDGE_BYTES), *samples, (edge, _EDGE_BYTES)]):
            digest.update(part)
        return digest.hexdigest()

    def read_at(self, start: int, count: int) -> bytes:
        """The bytes of one range; see `read_many`."""
        return self.read_many([(start, count)])[0]


class LocalSource(ByteSource):
    """A file of this machine.

    Args:
        path: the file.

    Raises:
        SlideError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        try:
            self._file = path.open("rb", buffering=0)
            self.length = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise SlideError(f"{path.name} cannot be read ({error.strerror})") from error

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """See `ByteSource.read_many`."""
        try:
            return [self._read(start, count) for start, count in ranges]
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SlideError(f"{self.name} cannot be read any more ({reason})") from error

    def _read(self, start: int, count: int) -> bytes:
        parts = []
        while count > 0 and (part := os.pread(self._file.fileno(), count, start)):
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def file(self) -> BinaryIO:
        """See `ByteSource.file`."""
        return io.BufferedReader(self._path.open("rb", buffering=0))

    def close(self) -> None:
        """See `ByteSource.close`."""
        self._file.close()
