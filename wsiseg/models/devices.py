"""Devices by name: which there are, and which one "auto" means."""

from __future__ import annotations

import torch

from wsiseg.choices import left_open


def device_names(name: str) -> list[str]:
    """The devices of "cuda:0,cuda:1", one or several; "auto" is what `pick_device` says."""
    return [pick_device(part.strip()) for part in name.split(",")]


def pick_device(name: str) -> str:
    """The device that "auto" means: the first GPU where there is one, else the CPU."""
    if not left_open(name):
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
