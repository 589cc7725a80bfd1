"""Several processes that train in step: started by `torchrun`, or by Lightning from one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from wsiseg.errors import OptionError


def launched() -> int:
    """How many processes `torchrun` started, this one among them; 0 where it did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return not launched() or os.environ.get("RANK", "0") == "0"


@contextmanager
def process_group(device: torch.device, devices: int) -> Iterator[None]:
    """Joins the processes of `torchrun`; does nothing without it.

    Raises:
        OptionError: where `devices` is not how many of this machine's processes there are.
    """
    if not launched():
        yield
        return
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    if devices != local:
        raise OptionError(
            f"torchrun started {local} processes on this machine, expected --devices {local}, got {devices}"
        )
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def wait_for_all() -> None:
    """Returns when every process of `torchrun` has come here."""
    if launched():
        distributed.barrier()
