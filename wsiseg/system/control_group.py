"""What Linux's control groups allow this process: its own group's limits and those of every group above it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath

_MEMORY = {"cgroup2": ("memory.max", "memory.high"), "cgroup": ("memory.limit_in_bytes",)}


def memory_limit(process: Path = Path("/proc/self")) -> int | None:
    """Bytes that this process's control groups allow, None where they set no limit.

    Args:
        process: the process's folder in /proc.
    """
    limits = [
        limit
        for kind, folder in _folders(process, "memory")
        for name in _MEMORY[kind]
        if (limit := _number(folder / name)) is not None
    ]
    return min(limits, default=None)


def cpu_limit(process: Path = Path("/proc/self")) -> int | None:
    """Processors' worth of time that this process's control groups allow, rounded up; None where they set no limit."""
    shares = [
        share
        for kind, folder in _folders(process, "cpu")
        if (share := _share(folder) if kind == "cgroup2" else _share_v1(folder)) is not None
    ]
    return max(1, ceil(min(shares))) if shares else None


def usable_cpus(process: Path = Path("/proc/self")) -> int:
    """Processors that this process may keep busy, at least 1: its affinity, its control groups, PYTHON_CPU_COUNT.

    Every number of threads that this program chooses comes from here.

    Args:
        process: this process's folder in /proc.
    """
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:  # macOS, Windows
        count = os.cpu_count() or 1
    return max(1, min(count, cpu_limit(process) or count))


def _folders(process: Path, controller: str) -> Iterator[tuple[str, Path]]:
    """Kind ("cgroup" is version 1, "cgroup2" is 2) and folder of the process's group and of all above it."""
    try:
        groups = (process / "cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        mounts = (process / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # no Linux
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        kind = "cgroup" if controllers else "cgroup2"
        for root, mount in _mounts(mounts, kind, controller):
            yield from ((kind, folder) for folder in _upwards(mount, root, PurePosixPath(path)))


def _mounts(lines: list[str], kind: str, controller: str) -> Iterator[tuple[PurePosixPath, Path]]:
    """Where a hierarchy of groups is mounted, and which of its groups is seen there."""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, (filesystem, _, options) = before.split(), (*after.split(), "", "", "")[:3]
        if filesystem == kind and (kind == "cgroup2" or controller in options.split(",")):
            yield PurePosixPath(_unescaped(fields[3])), Path(_unescaped(fields[4]))


def _upwards(mount: Path, root: PurePosixPath, group: PurePosixPath) -> Iterator[Path]:
    """A group's folder and those above it, as far as they are mounted; in a container that may be its own alone."""
    below = group.relative_to(root).parts if group.is_relative_to(root) else ()
    for depth in range(len(below), -1, -1):
        yield mount.joinpath(*below[:depth])


def _unescaped(text: str) -> str:
    """A path of mountinfo, where white space stands as octal digits."""
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text


def _number(path: Path) -> int | None:
    """What a file holds, None where there is no such file, or "max", or version 1's way to say that."""
    try:
        number = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return number if 0 <= number < 2**60 else None


def _share(folder: Path) -> float | None:
    """Processors' worth of version 2's `cpu.max`, "QUOTA PERIOD"."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" as well
        return None


def _share_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None
