"""Devices by name: which there are, and which one "auto" means."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import torch

from wsiseg.choices import left_open
from wsiseg.system.control_group import usable_cpus

_OWN_NUMBERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which the user tells torch how many threads to take."""


def device_names(name: str) -> list[str]:
    """The devices of "cuda:0,cuda:1", one or several; "auto" is what `pick_device` says."""
    return [pick_device(part.strip()) for part in name.split(",")]


def pick_device(name: str) -> str:
    """The device that "auto" means: the first GPU where there is one, else the CPU."""
    if not left_open(name):
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def keep_to_quota(process: Path = Path("/proc/self")) -> None:
    """Have torch compute in no more threads than this process was granted processors; once in a process.

    Torch follows the affinity of a process, but not the share of time that its control groups allow: with 64 threads
    on a quota of 4 processors most are stopped, and those that run wait for them. A number that the user set stays.

    Args:
        process: this process's folder in /proc.
    """
    granted = usable_cpus(process)
    if granted < torch.get_num_threads() and not any(os.environ.get(name) for name in _OWN_NUMBERS):
        torch.set_num_threads(granted)


def processor_kind(device: torch.device) -> str:
    """What decides in which order a device sums, and so the last bits of what it computes."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
