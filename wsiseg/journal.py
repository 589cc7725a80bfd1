"""What of a run is done: one JSON line a finished step.

The journal begins with the fingerprint of slide, model and parameters. A step is on disk before its line is. A line
that was cut off by a kill does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

JOURNAL_FORMAT = 1

Fingerprint = Mapping[str, Any]
"""What a result depends on, by name: plain JSON values."""

Step = dict[str, Any]


class Journal:
    """The finished steps of a run, in order.

    Args:
        path: of the file.
        fingerprint: written as its first line if the file is new.

    Attributes:
        steps: those that were there, and those added since.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        self.path = path
        head, self.steps, whole = read_journal(path)
        self._file: IO[bytes] = path.open("r+b" if head is not None else "wb")
        if head is None:
            self._append({"journal": JOURNAL_FORMAT, "fingerprint": dict(fingerprint)})
        else:
            self._file.truncate(whole)
            self._file.seek(whole)

    def add(self, step: Step) -> None:
        """Book a step, and see it onto the disk."""
        self._append(step)
        self.steps.append(step)

    def of(self, kind: str) -> list[Step]:
        """The steps of one kind."""
        return [step for step in self.steps if step.get("step") == kind]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, line: Step) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_journal(path: Path) -> tuple[Fingerprint | None, list[Step], int]:
    """The fingerprint (None where there is no whole first line), the steps, and the bytes of whole lines."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, [], 0
    lines: list[Step] = []
    whole = 0
    for line in data.splitlines(keepends=True):
        try:
            found = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            break
        lines.append(found)
        whole += len(line)
    if not lines or lines[0].get("journal") != JOURNAL_FORMAT or not isinstance(lines[0].get("fingerprint"), dict):
        return None, [], 0
    return lines[0]["fingerprint"], lines[1:], whole


def sync_folder(path: Path) -> None:
    """See a folder's entries onto the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
