"""The images of a data set through prediction's stream: their maps are counted, and what the gate sees is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import chain

import numpy as np

from wsiseg.evaluation.case_maps import CaseMap, Tally
from wsiseg.evaluation.gates import ComparedGates, parted
from wsiseg.evaluation.opened import Known, OpenedCase, opened_cases
from wsiseg.evaluation.result import TITLES
from wsiseg.evaluation.truth import Source, TruthKind
from wsiseg.models.context import context_tiles
from wsiseg.models.large_tiles import Windows
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gate_field import GateField
from wsiseg.prediction.gated import Gate, Gated, make_gate
from wsiseg.prediction.options import ResolvedOptions
from wsiseg.prediction.piece_reader import PatchBatch
from wsiseg.prediction.stream import SlideWork, Stream
from wsiseg.system.memory import MemoryPlan
from wsiseg.tiling.grid import Tiling
from wsiseg.tiling.pieces import Piece

Works = Generator[tuple[SlideWork, OpenedCase], None, None]
"""Images for the stream, and what they are of."""

Progress = Callable[[int, int], None]
"""Called with the images that are done and all of them."""


class Collector(ABC):
    """Has the images of a data set read, shown to the networks and counted.

    Args:
        model: ready to compute.
        source: the data set.
        options: resolved.
        progress: called as images are done.

    Attributes:
        tally: what was counted.
    """

    def __init__(self, model: TissueModel, source: Source, options: ResolvedOptions, progress: Progress) -> None:
        self.tally = Tally(len(model.classes))
        self._model = model
        self._source = source
        self._options = options
        self._gate = make_gate(model, options)
        self._memory = MemoryPlan.of(options.max_memory, 1 + len(model.classes))
        self._progress = progress
        self._done = 0
        progress(0, len(source.entries))

    @abstractmethod
    def collect(self) -> None:
        """Count all images."""

    def _stream(self, gate: Gate) -> Stream:
        return Stream(self._model, gate, self._options, self._memory, joined=True)  # images are small, as a rule

    def _opened(self, tiling: Tiling) -> Iterator[OpenedCase]:
        return opened_cases(self._source, self._model.spec.mpp, tiling, self._memory.piece_px)

    def _known(self, opened: OpenedCase, windows: Windows, views: int) -> Known:
        """The field of an image, with room for so many views of what the gate sees in context (or in each patch)."""
        tiles, classes = opened.plan.tiles, self.tally.num_classes
        values = np.zeros((tiles.rows, tiles.columns, views * classes), np.float32)
        means = GateField(values, opened.plan.selected, context_tiles(self._gate.context, tiles))
        return Known(opened, windows, classes, means if views else None)

    def _image_done(self) -> None:
        self._done += 1
        self._progress(self._done, len(self._source.entries))


class MapCollector(Collector):
    """Images whose pixels or cells are known: their maps under every gate are held against them."""

    def collect(self) -> None:
        """See `Collector`."""
        gate = ComparedGates(self._gate, self._options.gate_rule, self._model.device, self.tally.num_classes)
        stream = self._stream(gate)
        with closing(self._works()) as works:
            ready = classified(works, stream, self._options.batch_size) if gate.context else works
            stream.run(work for work, _ in ready)

    def _works(self) -> Works:
        tiling = self._model.spec.tiling(self._options.gate_mode, self._options.overlap)
        windows = self._gate.windows(tiling.side_px)
        for opened in self._opened(tiling):
            field = self._known(opened, windows, views=2 if self._gate.context else 0)
            judge = partial(self._judge, opened.case.group, windows)
            yield SlideWork(opened.reader, opened.plan, opened.pieces, field, self._maps(opened), judge), opened

    def _maps(self, opened: OpenedCase) -> list[CaseMap]:
        """The maps of an image, one for each column; the last one to be whole ends the image."""
        pieces, grid = len(opened.pieces), opened.plan.grid
        maps = [CaseMap(key, opened.case, grid, pieces, self.tally) for key in TITLES]
        maps[-1].when_whole = self._image_done
        return maps

    def _judge(self, group: str, windows: Windows, batch: PatchBatch, found: Gated) -> None:
        """Count what the gate saw in the patches of a batch; those that pieces share are counted where they belong."""
        assert batch.presence is not None
        assert found.presence is not None
        mine = [batch.piece.owns(patch.tile) for patch in batch.patches]
        truth = parted(batch.presence, windows, self.tally.num_classes)[0]
        self.tally.add_presence(group, found.presence.cpu().numpy()[mine], truth[mine])


class LabelCollector(Collector):
    """Patches of which the labels alone are known: the gate is judged, and no map is made."""

    def collect(self) -> None:
        """See `Collector`."""
        stream = self._stream(self._gate)
        with closing(self._works()) as works:
            for work, opened in classified(works, stream, self._options.batch_size):
                for piece in work.pieces:
                    self._judge(work, opened, piece)
                self._image_done()

    def _works(self) -> Works:
        tiling = self._model.spec.tiling("patches", self._options.overlap)  # in every mode: a patch is its only window
        for opened in self._opened(tiling):
            field = self._known(opened, self._gate.windows(tiling.side_px), views=1)
            yield SlideWork(opened.reader, opened.plan, opened.pieces, field, (), lambda batch, found: None), opened

    def _judge(self, work: SlideWork, opened: OpenedCase, piece: Piece) -> None:
        assert work.field is not None
        boxes = [work.plan.tiles.box(row, column) for row in piece.rows for column in piece.columns]
        mine = [piece.box.x <= box.x < piece.box.right and piece.box.y <= box.y < piece.box.bottom for box in boxes]
        known = work.field.of(piece).reshape(len(boxes), 2, self.tally.num_classes)[mine]
        self.tally.add_presence(opened.case.group, known[:, 1], known[:, 0])


_COLLECTORS: dict[TruthKind, type[Collector]] = {
    "pixels": MapCollector,
    "cells": MapCollector,
    "labels": LabelCollector,
}


def collected(model: TissueModel, source: Source, options: ResolvedOptions, progress: Progress) -> Tally:
    """What is counted of all images of a data set, as its kind of truth allows.

    Args:
        model: ready to compute.
        source: the data set.
        options: resolved.
        progress: called as images are done.
    """
    collector = _COLLECTORS[source.kind](model, source, options, progress)
    collector.collect()
    return collector.tally


def classified(works: Works, stream: Stream, batch_size: int) -> Iterator[tuple[SlideWork, OpenedCase]]:
    """The same works, once what the gate sees of their patches lies in their fields.

    As many are taken at once as fill a batch.
    """
    group: list[tuple[SlideWork, OpenedCase]] = []
    patches = 0
    for item in chain(works, [None]):
        if item is not None:
            group.append(item)
            patches += len(item[1].plan.tiles)
        if item is None or patches >= batch_size:
            stream.classify((work for work, _ in group), lambda piece: None, lambda count: None)
            yield from group
            group, patches = [], 0
