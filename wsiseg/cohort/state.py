"""What became of each slide of a cohort: lines of JSON that are only ever appended, and put together now and then.

Beside the maps lies the folder `.wsiseg`. Every run keeps a file of its own there, since several machines cannot append
to one file on a network drive. `state.jsonl` is what ended runs left, one line a slide. Which of two lines about a
slide is the later one does not depend on clocks: a run that begins a slide counts its turns on.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

from wsiseg.errors import LockedError, OptionError
from wsiseg.system.durable_lines import DurableLines, Line, each_line, write_lines
from wsiseg.system.files import cannot_write
from wsiseg.system.json_values import JsonObject
from wsiseg.system.leases import Watcher
from wsiseg.system.locks import locked

FOLDER, FORMAT = ".wsiseg", 1
_STATE, _RUN = "state.jsonl", "run-*.jsonl"


class State(IntEnum):
    """The state of a slide; what is not mentioned is pending."""

    PENDING = 0
    RUNNING = 1
    DONE = 2
    NO_TISSUE = 3
    DAMAGED = 4
    FAILED = 5
    TRY_AGAIN = 6

    @property
    def text(self) -> str:
        """As lines have it."""
        return self.name.lower().replace("_", " ")

    @property
    def has_map(self) -> bool:
        """Whether the slide has its map."""
        return self in (State.DONE, State.NO_TISSUE, State.DAMAGED)


_BY_TEXT = {state.text: state for state in State}


@dataclass(frozen=True, slots=True)
class Mark:
    """The last that is known of a slide.

    Attributes:
        state: of it.
        turn: how often it was begun.
        how: with which model and options; see `wsiseg.cohort.books`.
        is_new: whether another run said so since this one began.
    """

    state: State = State.PENDING
    turn: int = 0
    how: str = ""
    is_new: bool = False


NOTHING = Mark()


class Marks:
    """What is known of all slides, a few bytes each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._known: dict[int, int] = {}
        self._hows: list[str] = []
        self._numbers: dict[str, int] = {}
        self._read: dict[str, tuple[int, int]] = {}
        self._is_new = False
        self.refresh()
        self._is_new = True

    def of(self, map_name: str) -> Mark:
        """What is known of the slide with that map."""
        found = self._known.get(_key(map_name))
        if found is None:
            return NOTHING
        return Mark(State(found & 7), found >> 24, self._hows[(found >> 4) & 0xFFFFF], bool(found & 8))

    def refresh(self) -> None:
        """Read what was appended, by whomever, since the last time."""
        for path in _files(self._folder):
            with suppress(FileNotFoundError):
                inode = path.stat().st_ino
                start = self._read.get(path.name, (inode, 0))
                for line, end in each_line(path, start[1] if start[0] == inode else 0):
                    self.add(line, is_new=self._is_new)
                    self._read[path.name] = (inode, end)

    def add(self, line: Line, *, is_new: bool = False) -> None:
        """Take a line, where it is later than what is known."""
        name, state = line.get("map"), _BY_TEXT.get(str(line.get("state")))
        if not isinstance(name, str) or state is None:
            return
        key, turn, how = _key(name), int(line.get("turn") or 0), str(line.get("how") or "")
        before = self._known.get(key)
        if before is not None and (turn, state > State.RUNNING) <= (before >> 24, (before & 7) > State.RUNNING):
            return
        number = self._numbers.setdefault(how, len(self._numbers))
        if number == len(self._hows):
            self._hows.append(how)
        self._known[key] = turn << 24 | number << 4 | is_new << 3 | state


@dataclass
class RunJournal:
    """The file of one run, held as long as it runs.

    Args:
        folder: of the maps.
        slides: number of slides of the whole list.
        source: the list, for people.
        part: which part of it this run does, and of how many.
    """

    folder: Path
    slides: int
    source: str
    part: tuple[int, int]
    watcher: Watcher = field(default_factory=Watcher)

    def __enter__(self) -> Self:
        place = self.folder / FOLDER
        with cannot_write(place):
            place.mkdir(parents=True, exist_ok=True)
        compact(self.folder, self.watcher)
        path = place / f"run-{secrets.token_hex(6)}.jsonl"
        with ExitStack() as stack:
            stack.enter_context(locked(path))
            self._lines = DurableLines(path, 0)
            stack.callback(self._lines.close)
            self._lines.append(
                {
                    "cohort": FORMAT, "slides": self.slides, "list": self.source, "part": list(self.part),
                    "host": socket.gethostname(), "process": os.getpid(), "at": now(),
                }
            )  # fmt: skip
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        with suppress(OSError):  # a full disk: the lines are kept where they are
            compact(self.folder, self.watcher)

    def append(self, line: JsonObject) -> None:
        """Write a line, and see it onto the disk; raises `OutputError` where it cannot be written."""
        self._lines.append(line)


def now() -> str:
    """The time of this machine, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_cohort(folder: Path) -> bool:
    """Whether a folder of maps says what became of each slide."""
    return any(True for _ in _files(folder / FOLDER))


def latest(folder: Path) -> Iterator[Line]:
    """The last line about each slide, and before them the last line about the cohort itself.

    Raises:
        OptionError: the folder says nothing of a cohort.
    """
    place = folder / FOLDER
    yield from _latest(_files(place), folder)


def _latest(files: list[Path], folder: Path) -> Iterator[Line]:
    head: Line | None = None
    best: dict[int, tuple[int, bool, int, int]] = {}  # of each slide: turn, whether ended, file and line
    for number, path in enumerate(files):
        for index, (line, _) in enumerate(each_line(path)):
            if "cohort" in line:
                if head is None or str(line.get("at")) >= str(head.get("at")):
                    head = line
                continue
            state = _BY_TEXT.get(str(line.get("state")))
            if isinstance(line.get("map"), str) and state is not None:
                rank = (int(line.get("turn") or 0), state > State.RUNNING, number, index)
                key = _key(line["map"])
                if rank[:2] >= best.get(key, rank)[:2]:
                    best[key] = rank
    if head is None:
        raise OptionError(f"{folder} is no folder of a cohort; give the folder that `wsiseg predict --slides` wrote")
    yield head
    for number, path in enumerate(files):
        for index, (line, _) in enumerate(each_line(path)):
            if isinstance(line.get("map"), str) and best.get(_key(line["map"]), (0, False, -1, -1))[2:] == (
                number,
                index,
            ):
                yield line


def compact(folder: Path, watcher: Watcher) -> None:
    """Put what ended runs left into one file with one line a slide; left to another run that is at it."""
    place = folder / FOLDER
    with suppress(LockedError), ExitStack() as stack:
        stack.enter_context(locked(place / _STATE, watcher))
        ended = []
        for path in sorted(place.glob(_RUN)):
            with suppress(LockedError):
                stack.enter_context(locked(path, watcher))
                ended.append(path)
        if not ended:
            return
        base = place / _STATE
        files = [base, *ended] if base.exists() else ended
        with suppress(OptionError):  # runs that were killed before they wrote anything
            write_lines(base, _latest(files, folder))
        for path in ended:
            path.unlink(missing_ok=True)


def _files(place: Path) -> list[Path]:
    base = place / _STATE
    return ([base] if base.is_file() else []) + sorted(place.glob(_RUN))


def _key(map_name: str) -> int:
    return int.from_bytes(blake2b(map_name.encode(errors="surrogateescape"), digest_size=8).digest(), "little")


def to_line(**values: object) -> JsonObject:
    """A line without what is not known."""
    return {name: value for name, value in values.items() if value is not None and value != ""}
