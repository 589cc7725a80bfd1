"""Memory: what may be taken, what is taken, and what is free but still held."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import OptionError
from wsiseg.system.control_group import memory_limit, usable_cpus

MOST_BYTES = 4 * 2**30
"""Beyond this more memory gains nothing."""

LEAST_BYTES = 2**30
"""Below this the networks' library alone does not fit."""

PIECE_PX, CHUNK_PX = 3072, 512
"""Largest side of a piece of the map, and the step of smaller ones.

Every side is a multiple of `CHUNK_PX`: shards, the pyramid and the cells of white rely on that.
"""

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def available_bytes() -> int:
    """The machine's memory, or what the control groups of this process allow where that is less."""
    total = MOST_BYTES * 2
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(total, memory_limit() or total)


def default_max_memory() -> int:
    """Half of what the machine or its control group allows, 1 to 4 GiB."""
    return max(LEAST_BYTES, min(MOST_BYTES, available_bytes() // 2))


def parse_bytes(text: str) -> int:
    """A number of bytes from "1.5G", "800 MB" or "2GiB"; units are powers of 1024.

    Raises:
        OptionError: for anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if match is None:
        raise OptionError(f"expected an amount of memory such as 2G or 1500M, got {text!r:.40}")
    return int(float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a run divides the memory that it may take.

    Attributes:
        max_memory: bytes in all.
        piece_px: side of a piece of the map, which is a shard of the store.
        ahead_bytes: pixels that are read before they are asked for.
    """

    max_memory: int
    piece_px: int
    ahead_bytes: int

    @classmethod
    def from_limit(cls, max_memory: int | None, channels: int) -> MemoryPlan:
        """Divide `max_memory` bytes (None takes the default) for a map of `channels` arrays.

        A piece exists about five times: filled, written, and being compressed with its copies. They get a quarter.

        Raises:
            OptionError: too little for any piece.
        """
        most = default_max_memory() if max_memory is None else max_memory
        if most < LEAST_BYTES:
            raise OptionError(
                f"the networks' library alone needs about a gigabyte, so --max-memory must be at least 1G, got {most}"
            )
        side = int((most / 4 / 5 / channels) ** 0.5) // CHUNK_PX * CHUNK_PX
        return cls(most, max(CHUNK_PX, min(PIECE_PX, side)), most // 16)


def resident_bytes() -> int:
    """What this process holds in memory now; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back_memory() -> None:
    """Return freed memory to the system, where glibc would keep it for later.

    Networks leave hundreds of megabytes of small freed pieces, which the next phase of a run would come on top of.
    """
    gc.collect()
    trim_memory()


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 16 * 2**20


def keep_little_freed_memory() -> None:
    """Have glibc return freed memory of 16 MiB and more at once, for the whole process, from now on.

    Left alone it learns from the first large array that is freed to keep the next ones, up to 32 MiB each, and has
    eight arenas a core to keep them in. For the command alone, before it has threads: a library does not decide this
    for the program that uses it. What the environment says of it counts.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, usable_cpus())


def trim_memory() -> None:
    """Have glibc return what is free at once: large pieces of several threads otherwise stay in its arenas."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
