"""The images of a data set through prediction's stream: their maps are counted, and what the gate sees is judged."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain

from wsiseg.evaluation.case_maps import CaseMap, Tally
from wsiseg.evaluation.gates import ComparedGate, JudgedGate, LabelGate, parted
from wsiseg.evaluation.opened import Known, OpenedCase, opened_cases
from wsiseg.evaluation.truth import Source, TruthKind
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gated import Gated, calibration_of
from wsiseg.prediction.options import ResolvedOptions
from wsiseg.prediction.piece_reader import PatchBatch
from wsiseg.prediction.stream import SlideWork, Stream
from wsiseg.system.memory import MemoryPlan

Progress = Callable[[int, int], None]
"""Called with the images that are done and all of them."""

_GATES: dict[TruthKind, type[JudgedGate]] = {"pixels": ComparedGate, "cells": ComparedGate, "labels": LabelGate}


def collected(
    model: TissueModel, source: Source, options: ResolvedOptions, progress: Progress, flips: bool = False
) -> Tally:
    """What is counted of all images of a data set, as its kind of truth allows.

    Args:
        model: ready to compute.
        source: the data set.
        options: resolved.
        progress: called as images are done.
        flips: average over flips and rotations as well, which takes eight times the time.
    """
    tally = Tally(len(model.classes), len(source.classes.names), calibration_of(model, options))
    gate = _GATES[source.kind](model, options, flips)
    memory = MemoryPlan.from_limit(options.max_memory, 1 + len(model.classes))
    stream = Stream(model, gate, options, memory, joined=True, calibrated=False)  # images are small, as a rule
    total = len(source.entries)
    numbers = iter(range(total + 1))
    progress(next(numbers), total)
    cases = opened_cases(source, model.spec.mpp, gate.tiling, memory.piece_px)
    with closing(_works(cases, gate, tally, lambda: progress(next(numbers), total))) as works:
        stream.run(_classified(works, stream, options.batch_size) if gate.context else works)
    return tally


def _works(
    cases: Iterable[OpenedCase], gate: JudgedGate, tally: Tally, done: Callable[[], None]
) -> Generator[SlideWork, None, None]:
    """The images as work for the stream."""
    for opened in cases:
        grid, pieces, windows = opened.plan.grid, opened.pieces, gate.windows

        def told(batch: PatchBatch, found: Gated, opened: OpenedCase = opened) -> None:
            _judge(batch, found, opened.case.group, gate, tally)
            if batch.last and batch.piece == opened.pieces[-1]:
                done()

        yield SlideWork(
            opened.reader,
            opened.plan,
            pieces,
            Known(opened, windows, tally.num_classes, gate.field(opened.plan)),
            [CaseMap(key, opened.case, grid, len(pieces), tally) for key in gate.columns],
            told,
        )


def _judge(batch: PatchBatch, found: Gated, group: str, gate: JudgedGate, tally: Tally) -> None:
    """Count what the gate saw in the patches of a batch; those that pieces share are counted where they belong."""
    assert batch.presence is not None
    assert found.presence is not None
    mine = [batch.piece.owns(patch.tile) for patch in batch.patches]
    truth = parted(batch.presence, gate.windows, tally.num_classes)[0]
    tally.add_presence(group, found.presence.cpu().numpy()[mine], truth[mine])


def _classified(works: Iterable[SlideWork], stream: Stream, batch_size: int) -> Iterator[SlideWork]:
    """The same images, once what the gate sees of their patches lies in their fields; as many as fill a batch."""
    group: list[SlideWork] = []
    patches = 0
    for work in chain(works, [None]):
        if work is not None:
            group.append(work)
            patches += len(work.plan.tiles)
        if work is None or patches >= batch_size:
            stream.classify(group, lambda piece: None, lambda count: None)
            yield from group
            group, patches = [], 0
