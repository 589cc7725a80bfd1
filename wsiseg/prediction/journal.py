"""What of a run is done: one JSON line a finished step.

The journal begins with the fingerprint of slide, model and parameters. A step is on disk before its line is; a line
that was cut off by a kill does not count, see `wsiseg.system.durable_lines`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wsiseg.errors import OutputError
from wsiseg.prediction.steps import AnyStep, Step
from wsiseg.system.durable_lines import DurableLines, Line, read_lines

JOURNAL_FORMAT = 2
"""Raise it when the form of a step changes: a run of another version is then refused instead of misread."""

Fingerprint = Mapping[str, Any]
"""What a result depends on, by name: plain JSON values."""


class Journal:
    """The finished steps of a run, in order.

    Args:
        path: of the file.
        fingerprint: written as its first line if the file is new.
        check: called before a step is booked; raises where this process must not write any more.

    Attributes:
        fingerprint: of the run that began it.
        steps: those that were there, and those added since.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint, check: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._check = check
        head, self.steps, whole = read_journal(path)
        self.fingerprint: Fingerprint = dict(fingerprint) if head is None else head
        self._lines = DurableLines(path, whole if head is not None else 0)
        if head is None:
            self._lines.append({"journal": JOURNAL_FORMAT, "fingerprint": dict(fingerprint)})

    def add(self, step: Line) -> None:
        """Book a step, and see it onto the disk.

        Raises:
            OutputError: it cannot be written; the journal is then as it was before.
        """
        self._check()
        self._lines.append(step)
        self.steps.append(step)

    def of(self, kind: str) -> list[Line]:
        """The steps of one kind as the file has them, in order."""
        return [step for step in self.steps if step.get("step") == kind]

    def book(self, step: Step) -> None:
        """Book a step that knows its form; see `add`."""
        self.add(step.to_json())

    def booked(self, kind: type[AnyStep]) -> list[AnyStep]:
        """The steps of one kind as objects, in order."""
        return [kind.from_json(line) for line in self.of(kind.KIND)]

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def read_journal(path: Path) -> tuple[Fingerprint | None, list[Line], int]:
    """The fingerprint (None where there is no whole first line), the steps, and the bytes of whole lines.

    Raises:
        OutputError: it cannot be read, or another version of the program wrote it in another form.
    """
    steps, whole = read_lines(path)
    if not steps:
        return None, [], 0
    head = steps[0]
    if head.get("journal") != JOURNAL_FORMAT or not isinstance(head.get("fingerprint"), dict):
        raise OutputError(
            f"{path.parent} is a run that another version of this program began (journal {head.get('journal')!r:.20}, "
            f"this one writes {JOURNAL_FORMAT}); finish it with that one, or begin anew with --restart"
        )
    return head["fingerprint"], steps[1:], whole
