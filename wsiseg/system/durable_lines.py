"""A file of JSON lines that survives a kill: each line is on the disk before its writer goes on, and checks itself.

Every line ends with a checksum. A line that was cut off by a kill, or altered since, does not count, and neither does
what follows it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from wsiseg.errors import OutputError, WsisegError
from wsiseg.system.files import cannot_write, sync_path, whole_file
from wsiseg.system.json_values import JsonObject

Line = JsonObject
"""A line as the file has it: a JSON object."""

_CHECKSUM = b',"crc":'


class DurableLines:
    """JSON lines, appended one by one.

    What a kill left of a last line is cut off as the file is opened.

    Args:
        path: of the file, made if it is not there.
        whole_bytes: how many bytes of it are whole lines, 0 for a new file; see `read_lines`.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, whole_bytes: int) -> None:
        self.path = path
        with cannot_write(path):
            # Without a buffer, which would try to write a failed line once more when the file is closed.
            self._file: IO[bytes] = path.open("r+b" if whole_bytes else "wb", buffering=0)
            # A line that a kill cut off must go: every line behind it would be lost.
            self._file.truncate(whole_bytes)
            self._file.seek(whole_bytes)
        if not whole_bytes:
            with cannot_write(path):
                sync_path(path.parent)

    def append(self, line: Line) -> None:
        """Write a line, and see it onto the disk.

        Raises:
            OutputError: it cannot be written; the file is then as it was before.
        """
        left = memoryview(_encoded(line))
        start = self._file.tell()
        with cannot_write(self.path):
            try:
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            except OSError:
                with suppress(OSError):
                    self._file.truncate(start)
                    self._file.seek(start)
                raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: Path) -> tuple[list[Line], int]:
    """The whole lines of a file, and how many bytes they take; none where there is no file.

    Raises:
        OutputError: it cannot be read.
    """
    lines: list[Line] = []
    whole = 0
    for line, whole in each_line(path):  # noqa: B007  (the last one counts)
        lines.append(line)
    return lines, whole


def each_line(path: Path, start: int = 0) -> Iterator[tuple[Line, int]]:
    """The whole lines of a file one by one, each with where it ends; none where there is no file.

    Args:
        path: of the file.
        start: where the first of them begins.

    Raises:
        OutputError: it cannot be read.
    """
    if path.is_symlink() or not path.is_file():
        return
    try:
        with path.open("rb") as file:
            file.seek(start)
            for content in file:
                found = _decoded(content)
                if found is None:
                    return
                start += len(content)
                yield found, start
    except OSError as error:
        if isinstance(error, WsisegError):  # of whoever takes the lines
            raise
        raise OutputError(f"cannot read {path}: {error.strerror}; remove its folder, or choose another name") from error


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Write a file of lines, and see it onto the disk before it gets its name.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.writelines(map(_encoded, lines))
        file.flush()
        os.fsync(file.fileno())
    sync_path(path.parent)


def _encoded(line: Line) -> bytes:
    content = json.dumps(line, separators=(",", ":")).encode()
    return content[:-1] + _CHECKSUM + b"%d}\n" % zlib.crc32(content)


def _decoded(line: bytes) -> Line | None:
    """What a line says, None where it is not whole."""
    content, _, checksum = line.rpartition(_CHECKSUM)
    content += b"}"
    if checksum != b"%d}\n" % zlib.crc32(content):
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
