"""What of a run is done: one JSON line a finished step.

The journal begins with the fingerprint of slide, model and parameters. A step is on disk before its line is. Every
line ends with a checksum of itself: one that was cut off by a kill, or altered since, does not count, and neither
does what follows it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from wsiseg.errors import OutputError
from wsiseg.prediction.steps import AnyStep, Step
from wsiseg.system.files import cannot_write, sync_path
from wsiseg.system.json_values import JsonObject

JOURNAL_FORMAT = 1
"""Raise it when the form of a step changes: a run of another version is then refused instead of misread."""

Fingerprint = Mapping[str, Any]
"""What a result depends on, by name: plain JSON values."""

Line = JsonObject
"""A step as the file has it."""

_CHECKSUM = b',"crc":'


class Journal:
    """The finished steps of a run, in order.

    Args:
        path: of the file.
        fingerprint: written as its first line if the file is new.

    Attributes:
        steps: those that were there, and those added since.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        self.path = path
        head, self.steps, whole = read_journal(path)
        with cannot_write(path):
            # Without a buffer, which would try to write a failed line once more when the file is closed.
            self._file: IO[bytes] = path.open("r+b" if head is not None else "wb", buffering=0)
            # A line that a kill cut off must go: every line behind it would be lost.
            self._file.truncate(whole)
            self._file.seek(whole)
        if head is None:
            self._append({"journal": JOURNAL_FORMAT, "fingerprint": dict(fingerprint)})
            sync_path(path.parent)

    def add(self, step: Line) -> None:
        """Book a step, and see it onto the disk.

        Raises:
            OutputError: it cannot be written; the journal is then as it was before.
        """
        self._append(step)
        self.steps.append(step)

    def of(self, kind: str) -> list[Line]:
        """The steps of one kind as the file has them, in order."""
        return [step for step in self.steps if step.get("step") == kind]

    def book(self, step: Step) -> None:
        """Book a step as an object of `wsiseg.prediction.steps`; see `add`."""
        self.add(step.to_json())

    def booked(self, kind: type[AnyStep]) -> list[AnyStep]:
        """The steps of one kind as objects, in order."""
        return [kind.from_json(line) for line in self.of(kind.KIND)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, step: Line) -> None:
        line = memoryview(_line(step))
        start = self._file.tell()
        with cannot_write(self.path):
            try:
                while line:
                    line = line[self._file.write(line) :]
                os.fsync(self._file.fileno())
            except OSError:
                with suppress(OSError):
                    self._file.truncate(start)
                    self._file.seek(start)
                raise


def _line(step: Line) -> bytes:
    content = json.dumps(step, separators=(",", ":")).encode()
    return content[:-1] + _CHECKSUM + b"%d}\n" % zlib.crc32(content)


def _step(line: bytes) -> Line | None:
    """The step that a line holds, None where the line is not whole or was altered."""
    content, _, checksum = line.rpartition(_CHECKSUM)
    content += b"}"
    if checksum != b"%d}\n" % zlib.crc32(content):
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_journal(path: Path) -> tuple[Fingerprint | None, list[Line], int]:
    """The fingerprint (None where there is no whole first line), the steps, and the bytes of whole lines.

    Raises:
        OutputError: it cannot be read, or another version of the program wrote it in another form.
    """
    if path.is_symlink() or not path.is_file():
        return None, [], 0
    steps: list[Line] = []
    whole = 0
    try:
        with path.open("rb") as file:
            for line in file:
                found = _step(line)
                if found is None:
                    break
                steps.append(found)
                whole += len(line)
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}; remove its folder, or choose another name") from error
    if not steps:
        return None, [], 0
    head = steps[0]
    if head.get("journal") != JOURNAL_FORMAT or not isinstance(head.get("fingerprint"), dict):
        raise OutputError(
            f"{path.parent} is a run that another version of this program began (journal {head.get('journal')!r:.20}, "
            f"this one writes {JOURNAL_FORMAT}); finish it with that one, or begin anew with --restart"
        )
    return head["fingerprint"], steps[1:], whole
