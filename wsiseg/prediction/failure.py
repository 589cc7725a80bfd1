"""Why a slide failed, as a word that failures are counted by, and whether the same command may do better later."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Self

from wsiseg.errors import (
    ClusterError,
    DeviceError,
    LockedError,
    MissingExtraError,
    MissingMppError,
    NonFiniteError,
    OptionError,
    OutputError,
    RemoteError,
    SlideError,
    WsisegError,
)

_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (LockedError, "locked"),
    (RemoteError, "network"),
    (MissingMppError, "no mpp"),
    (TimeoutError, "timeout"),
    (SlideError, "slide"),
    (OutputError, "output"),
    (NonFiniteError, "network values"),
    (DeviceError, "device"),
    (ClusterError, "cluster"),
    (MissingExtraError, "package"),
    (OptionError, "options"),
    (WsisegError, "input"),
    (MemoryError, "memory"),
)
"""From the special to the general: the first that fits counts."""

_PASSING = {errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}
"""What a network drive says that was away for a while."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The kind of a failure.

    Attributes:
        cause: "network", "timeout", "locked", "no mpp", "slide", "disk full", "output", … or "defect".
        transient: whether the same command may do better later.
    """

    cause: str
    transient: bool

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The kind of an error, also by what the system said of it."""
        said = error if isinstance(error, OSError) and error.errno is not None else error.__cause__
        number = said.errno if isinstance(said, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT):
            return cls("disk full", transient=False)
        if number in _PASSING:
            return cls("network", transient=True)
        cause = next((name for kind, name in _CAUSES if isinstance(error, kind)), "defect")
        transient = isinstance(error, WsisegError) and error.transient
        return cls("address" if cause == "network" and not transient else cause, transient)
