"""On what a map was computed: the number of threads and the kind of processor decide the last bits of probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch

from wsiseg.models.devices import processor_kind
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.journal import Journal
from wsiseg.prediction.steps import MachineStep


@dataclass(frozen=True, slots=True)
class Machine:
    """What the last bits of a map depend on, besides its fingerprint.

    Attributes:
        threads: that a batch is divided among; 0 on a GPU.
        processor: see `wsiseg.models.devices.processor_kind`.
    """

    threads: int
    processor: str

    @classmethod
    def of(cls, model: TissueModel) -> Self:
        """What a model computes with as it is now."""
        return cls(model.threads, processor_kind(model.device))


def machines_of(journal: Journal) -> list[Machine]:
    """All kinds of machine that a run was on, in order."""
    began = journal.fingerprint
    first = [Machine(began["threads"], began["processor"])] if "processor" in began else []
    later = [Machine(step.threads, step.processor) for step in journal.booked(MachineStep)]
    return list(dict.fromkeys([*first, *later]))


def machine_for(journal: Journal, model: TissueModel) -> Machine:
    """What a run computes with from here on: as many threads as it began with, where the processor is alike.

    A runtime with threads of its own keeps those it was prepared with. What is new is booked.
    """
    now, before = Machine.of(model), machines_of(journal)
    alike = [one for one in before if one.processor == now.processor]
    if alike and not model.runtime.own_threads:
        return alike[0]
    if now not in before:
        journal.book(MachineStep(now.threads, now.processor))
    return now


@contextmanager
def threads_of_torch(threads: int) -> Iterator[None]:
    """Have torch divide a batch among so many threads; 0 leaves it as it is."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def mixed_note(machines: Sequence[Machine]) -> list[str]:
    """A note on a map that several kinds of machine computed, or several numbers of threads."""
    if len(machines) < 2:
        return []
    kinds = ", ".join(f"{one.processor} ({one.threads} threads)" for one in machines)
    return [f"was computed on {kinds}: last bits of probabilities may differ from those of one of them alone"]
