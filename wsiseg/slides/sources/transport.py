"""How bytes come from a server: one request, its answer, and what may go wrong with it."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

LONGEST_TRY_S, SHORTEST_TRY_S = 20.0, 0.5
"""Bounds of a single try: after so many seconds without an answer it counts as failed."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 8.0

FEW = 2
"""Further tries where trying again hardly helps."""


class Retry(Enum):
    """Whether asking again may help."""

    NEVER = "never"
    FEW = "few"
    LONG = "long"


class Cause(Enum):
    """The cause of a failure."""

    MISSING = "missing"
    DENIED = "denied"
    CHANGED = "changed"
    NO_RANGES = "no ranges"
    SERVER = "server"


class Fault(Exception):  # noqa: N818  (one of several tries)
    """A try that failed; only for use among the classes that fetch.

    Args:
        cause: what it comes from.
        text: in words, to stand behind "the server".
        retry: whether asking again may help.
        wait_s: seconds that the server wants to be left alone.
    """

    def __init__(self, cause: Cause, text: str, retry: Retry = Retry.LONG, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.cause, self.text, self.retry, self.wait_s = cause, text, retry, wait_s


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a server.

    Attributes:
        data: the bytes.
        total: bytes of the whole file.
        version: what tells this state of the file from others, None where the server does not say.
    """

    data: bytes
    total: int
    version: str | None


class Transport(ABC):
    """Asks for ranges of one file; safe to use from several threads."""

    @abstractmethod
    def get(self, start: int, count: int, *, fresh: bool = False) -> Answer:
        """The bytes of a range, shorter only where the file ends.

        Args:
            start: where it begins.
            count: its bytes, at least one.
            fresh: ask for length and version anew, also where an answer does not hold them anyway.

        Raises:
            Fault: they did not come.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back its connections."""


def try_seconds(retry_s: float) -> float:
    """How long one try may take, so that several fit into the time for all."""
    return min(LONGEST_TRY_S, max(SHORTEST_TRY_S, retry_s / 3))


def insist(ask: Callable[[], Answer], retry_s: float, stopped: threading.Event, *, opening: bool) -> Answer:
    """What `ask` returns, asked again with growing pauses as long as that may help.

    Args:
        ask: one try; raises `Fault`.
        retry_s: seconds from the first failure on in which a new try may begin.
        stopped: set where nobody needs the answer any more.
        opening: whether this is the first of a file, where what is missing or forbidden is believed at once.

    Raises:
        Fault: the last one.
    """
    tries, limit = 0, 0.0
    while True:
        try:
            return ask()
        except Fault as fault:
            now = time.monotonic()
            limit = limit or now + retry_s
            few = fault.retry is Retry.FEW
            if fault.retry is Retry.NEVER or (few and (opening or tries >= FEW)) or stopped.is_set():
                raise
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tries) * random.uniform(0.5, 1.0)
            pause = max(pause, fault.wait_s)
            if now + pause >= limit:
                raise
            tries += 1
            stopped.wait(pause)


STATUS = {
    400: "says 400 (bad request)",
    401: "says 401 (not logged in)",
    403: "says 403 (forbidden)",
    404: "says 404 (not found)",
    410: "says 410 (gone)",
    412: "says 412 (it changed)",
    416: "says 416 (no such range)",
    429: "says 429 (too many requests)",
    500: "says 500 (internal error)",
    502: "says 502 (bad gateway)",
    503: "says 503 (unavailable, or asked too fast)",
    504: "says 504 (no answer from behind it)",
}

_BUSY = (408, 425, 429)


def of_status(status: int, wait_s: float = 0.0) -> Fault:
    """The fault that a status stands for."""
    text = STATUS.get(status, f"says {status}")
    if status in (401, 403, 407):
        return Fault(Cause.DENIED, text, Retry.FEW)
    if status in (404, 410):
        return Fault(Cause.MISSING, text, Retry.FEW)
    if status in (412, 416):
        return Fault(Cause.CHANGED, text, Retry.FEW)
    if status >= 500 or status in _BUSY:
        return Fault(Cause.SERVER, text, Retry.LONG, wait_s)
    return Fault(Cause.SERVER, text, Retry.FEW)


def require_all(data: bytes, start: int, count: int, total: int) -> None:
    """Raise `Fault` where other bytes came than were asked for."""
    expected = max(0, min(count, total - start))
    if len(data) != expected:
        raise Fault(Cause.SERVER, f"sent {len(data)} bytes where {expected} were asked for")
