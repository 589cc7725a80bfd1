"""Memory that is free but still held."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_back_memory() -> None:
    """Return freed memory to the system, where glibc would keep it for later.

    Networks leave hundreds of megabytes of small freed pieces, which the next phase of a run would come on top of.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
