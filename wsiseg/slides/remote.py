"""The bytes of a slide behind an address that fsspec knows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

from wsiseg.slides.source import ByteSource, LocalSource, Range


class RemoteSource(ByteSource):
    """A file behind an address, one read at a time."""

    def __init__(self, address: str) -> None:
        self.name = address.rstrip("/").rsplit("/", 1)[-1]
        self._address = address
        self._lock = threading.Lock()
        self._file = self.file()
        self.length = self._file.seek(0, 2)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """See `ByteSource.read_many`."""
        parts = []
        for start, count in ranges:
            with self._lock:
                self._file.seek(start)
                parts.append(self._file.read(count))
        return parts

    def file(self) -> BinaryIO:
        """See `ByteSource.file`."""
        return cast("BinaryIO", fsspec.open(self._address, "rb").open())

    def close(self) -> None:
        """See `ByteSource.close`."""
        with self._lock:
            self._file.close()


def open_source(path: str) -> ByteSource:
    """The bytes of a file or of what lies behind an address."""
    return RemoteSource(path) if "://" in path else LocalSource(Path(path))
