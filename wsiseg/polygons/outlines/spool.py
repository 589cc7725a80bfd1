"""A temporary file of vertices: written once from front to back, then read anywhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.errors import OutputError

VERTEX_BYTES = 8


class Spool:
    """Vertices (N, 2) int32 in a file that has no name where the system allows that: even a kill leaves nothing.

    Args:
        folder: where it lies; None for the system's temporary folder.

    Raises:
        OutputError: from every method, where the file cannot be made, written or read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._place = folder or Path(tempfile.gettempdir())
        with self._said():
            # Without a buffer, which would be written once more, and fail once more, when the file is closed.
            self._file = tempfile.TemporaryFile(dir=self._place, buffering=0)  # noqa: SIM115

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, vertices: npt.NDArray[np.int32]) -> None:
        """Write vertices (N, 2) behind those that are there."""
        rest = memoryview(vertices.tobytes())
        with self._said():
            while rest:
                rest = rest[self._file.write(rest) :]

    def read(self, offset: int, count: int) -> npt.NDArray[np.int32]:
        """The vertices from number `offset` on, (count, 2)."""
        found = bytearray(count * VERTEX_BYTES)
        rest = memoryview(found)
        with self._said():
            self._file.seek(offset * VERTEX_BYTES)
            while rest:
                read = self._file.readinto(rest)
                if not read:
                    raise OSError("it is shorter than what was written")
                rest = rest[read:]
        return np.frombuffer(found, np.int32).reshape(-1, 2)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot use a temporary file of outlines in {self._place}: {error.strerror or error}; "
                "make room there, or choose another place"
            ) from error
