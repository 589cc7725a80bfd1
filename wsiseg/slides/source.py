"""The bytes of a slide's file, wherever it lies: any ranges of it, from several threads at once."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from wsiseg.errors import SlideError

Range = tuple[int, int]
"""Where some bytes begin in a file, and how many they are."""


class ByteSource(ABC):
    """A file that is read by ranges; safe to use from several threads.

    Attributes:
        name: last part of its path or address, for messages.
        length: its bytes.
    """

    name: str
    length: int

    @abstractmethod
    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of each range, in their order; shorter where a range ends behind the file.

        Raises:
            SlideError: the file cannot be read. That is never damage of what lies there.
        """

    @abstractmethod
    def file(self) -> BinaryIO:
        """The same bytes as an open file for libraries that want one; who asks for it closes it."""

    @abstractmethod
    def close(self) -> None:
        """Give back the file. Reading afterwards is an error."""

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
