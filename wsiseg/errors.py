"""Errors of this package: each says what was expected, what came and what to do, on one line.

Every one is also the matching builtin, so a caller from Python can catch what it would expect. Only the command
line turns them into an exit code (2) and a message.
"""


class WsisegError(Exception):
    """Bad input or an environment that cannot do what was asked; never a bug in this package.

    Attributes:
        transient: whether the same command may do better later: a server that did not answer, an output that another
            run is writing.
    """

    transient = False


class SlideError(WsisegError, OSError):
    """A slide that is missing, unreadable, damaged, or of no known format."""


class MissingMppError(SlideError, ValueError):
    """A slide that does not say how large its pixels are."""


class MapError(WsisegError, OSError):
    """A tissue map is missing, was not written by this program, or is damaged."""


class OutputError(WsisegError, OSError):
    """An output that exists already, or cannot be written."""


class LockedError(OutputError):
    """An output that another run is writing."""

    transient = True


class BundleError(WsisegError, ValueError):
    """A model bundle that is incomplete, altered, or newer than this program."""


class DatasetError(WsisegError, ValueError):
    """A data set whose images and labels do not fit together."""


class OptionError(WsisegError, ValueError):
    """A parameter outside its range, or two that contradict each other."""


class DeviceError(WsisegError, RuntimeError):
    """A device that this machine does not have."""


class ClusterError(WsisegError, RuntimeError):
    """A cluster whose scheduler is gone, or whose workers die again and again."""

    transient = True


class NonFiniteError(WsisegError, ArithmeticError):
    """A network that returned values that are not finite numbers."""


class RemoteError(SlideError):
    """A slide behind an address that its server does not deliver, or no longer delivers. Never damage of the slide.

    Attributes:
        transient: false where asking again would not help: it is not there, or must not be read.
    """

    transient = True


class MissingExtraError(WsisegError, ImportError):
    """A library that an optional part of this package needs, and that is not installed."""
