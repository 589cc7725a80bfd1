"""From a slide's pixels to finished pieces of its map: the loop itself, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from wsiseg.arrays import BoolArray, Float32Array
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gate_places import PiecePlaces
from wsiseg.prediction.gated import Gate, Gated, batch_tensor, calibration_of
from wsiseg.prediction.options import ResolvedOptions
from wsiseg.prediction.piece_reader import Field, PatchBatch, PieceReader, block_px
from wsiseg.prediction.plan import Plan
from wsiseg.prediction.result import Counts
from wsiseg.prediction.sums import PiecePixels, PieceSums
from wsiseg.slides.base import SlideReader
from wsiseg.system.memory import MemoryPlan
from wsiseg.system.threads import read_ahead
from wsiseg.tiling.blending import window
from wsiseg.tiling.grid import Tile
from wsiseg.tiling.pieces import Piece


@dataclass(frozen=True, slots=True)
class FinishedPiece:
    """A piece and what was done for it.

    Attributes:
        piece: its place.
        pixels: its classes and probabilities.
        counts: of the patches that the piece owns.
        bright: (height, width) bool, where the piece may be white; None where nobody asked.
        opened: what the gate left open in the windows of its own patches; see `PiecePlaces`. None without a gate.
    """

    piece: Piece
    pixels: PiecePixels
    counts: Counts
    bright: BoolArray | None = None
    opened: BoolArray | None = None


class Writer(Protocol):
    """What finished pieces are given to."""

    def put(self, item: FinishedPiece, /) -> None:
        """Take a piece; may return before it is written."""


class Distances(Protocol):
    """What the distances of patches from the model's training data are given to."""

    def put(self, patches: Sequence[Tile], distances: Float32Array, /) -> None:
        """Take the distances (N,) of patches, in limits."""


@dataclass(frozen=True, eq=False, slots=True)
class SlideWork:
    """Pieces of one slide's map: where their pixels come from, and where the pieces go.

    Attributes:
        slide: open for reading; several threads read from it.
        plan: grid, tissue and patches.
        pieces: which; they are taken ahead of what is computed.
        field: what the gate goes by where it looks beyond a patch, else None.
        writers: each is given the pieces of one map: one for each that the gate makes.
        told: called with batches as they are done, in order, and with what the gate made of them.
        distances: given how far each patch is from the training data, by the piece that owns it; None where nobody
            asked.
    """

    slide: SlideReader
    plan: Plan
    pieces: Iterable[Piece]
    field: Field | None
    writers: Sequence[Writer]
    told: Callable[[PatchBatch, Gated], None]
    distances: Distances | None = None


Batch = tuple[SlideWork, PatchBatch]
"""A batch and the slide that it is of."""


class Stream:
    """Reads, gates, segments and sums the pieces of slides' maps.

    Args:
        model: both networks.
        gate: made for that model and these options.
        options: how to read.
        memory: what may be taken.
        calibrated: whether probabilities are calibrated, where the model knows how.
        joined: whether the networks get patches of several pieces at once, which is quicker where pieces are small.
            Otherwise batches end with their piece, so that its bytes depend on nothing else.

    Attributes:
        waited_s: seconds in which the networks waited for pixels.
    """

    def __init__(
        self,
        model: TissueModel,
        gate: Gate,
        options: ResolvedOptions,
        memory: MemoryPlan,
        *,
        joined: bool = False,
        calibrated: bool = True,
    ) -> None:
        self.model = model
        self.gate = gate
        self.waited_s = 0.0
        self._options = options
        self._memory = memory
        self._joined = joined
        self._calibration = calibration_of(model, options) if calibrated else None

    @torch.inference_mode()
    def run(self, works: Iterable[SlideWork]) -> None:
        """Compute pieces, one after the other."""
        classes = len(self.model.classes)
        with (
            self.threads_for_networks(),
            closing(self._batches(works)) as batches,  # read ahead over the borders of pieces
            closing(self._gated(batches)) as gated,
        ):
            for (work, piece), of_piece in groupby(gated, key=lambda found: (found[0], found[1].piece)):  # one shard
                maps = [self._sums(work, piece) for _ in work.writers]
                counts = Counts(0, 0, shut=[0] * classes)
                bright = None if work.plan.white is None else np.zeros(piece.box.size.shape, np.bool_)
                places = PiecePlaces(piece, work.plan.tiles)
                for _, batch, found in of_piece:
                    for sums, probabilities in zip(maps, found.probabilities, strict=True):  # (N, K, P, P)
                        _add(sums, batch, probabilities)
                    _mark_bright(bright, batch)
                    mine = [piece.owns(patch.tile) for patch in batch.patches]  # others are counted where they belong
                    counts.read += sum(mine)
                    counts.add(found.allowed.cpu().numpy()[mine], segmented=self.gate.always_segments)
                    _keep_distances(work, batch, found.distance)
                    if self.gate.thresholds is not None:
                        owned = [patch.tile for patch in batch.patches if piece.owns(patch.tile)]
                        places.add(owned, found.opened.cpu().numpy()[mine])
                    work.told(batch, found)
                for writer, sums in zip(work.writers, maps, strict=True):
                    writer.put(
                        FinishedPiece(piece, sums.finish(), counts, bright, places.opened)
                    )  # written, then booked

    @torch.inference_mode()
    def classify(
        self, works: Iterable[SlideWork], book: Callable[[Piece], None], advance: Callable[[int], None]
    ) -> None:
        """The pass before, for a gate that looks beyond a patch: what it sees in all patches is put into the fields.

        Args:
            works: whose own patches are classified.
            book: called with each piece when that is done.
            advance: told of patches as they are done.
        """
        with closing(self._batches(works, owned=True)) as batches:
            for group in self._together(batches):
                pixels = batch_tensor([patch for _, batch in group for patch in batch.patches], self.model.device)
                seen, distance = self.gate.presence_and_distance(pixels)
                presence = seen.flatten(1).cpu().numpy()  # (N, C)
                for work, batch, share in _shares(group):
                    assert work.field is not None
                    work.field.put([patch.tile for patch in batch.patches], presence[share])
                    _keep_distances(work, batch, None if distance is None else distance[share])
                    advance(len(batch.patches))
                    if batch.last:
                        book(batch.piece)

    def _batches(self, works: Iterable[SlideWork], *, owned: bool = False) -> Generator[Batch, None, None]:
        """The patches of slides, one slide after the other; of those that pieces share, each once where `owned`."""
        options = self._options
        for work in works:
            reader = PieceReader(
                work.slide,
                work.plan,
                batch_size=options.batch_size,
                workers=options.workers,
                ahead_bytes=self._memory.ahead_bytes,
                timeout_s=options.read_timeout_s,
            )
            batches = reader.owned_batches(work.pieces) if owned else reader.batches(work.pieces, work.field)
            with closing(batches):
                for batch in batches:
                    yield work, batch
            self.waited_s += reader.waited_s

    def _together(self, batches: Iterable[Batch]) -> Iterator[list[Batch]]:
        """What the networks get at once: each batch by itself, or as many as fit where they are joined."""
        if not self._joined:
            yield from ([batch] for batch in batches)  # at once: none waits for the next one to be read
            return
        group: list[Batch] = []
        patches = 0
        for work, batch in batches:
            if patches + len(batch.patches) > self._options.batch_size and group:
                yield group
                group, patches = [], 0
            group.append((work, batch))
            patches += len(batch.patches)
        if group:
            yield group

    def _gated(self, batches: Iterable[Batch]) -> Generator[tuple[SlideWork, PatchBatch, Gated], None, None]:
        """Batches and what the gate makes of them.

        A runtime with threads of its own computes the next batch while one is summed.
        """
        groups = self._together(batches)
        with closing(
            read_ahead(groups, self._gate_together, workers=2, ahead=2)
            if self.side_by_side
            else ((group, self._gate_together(group)) for group in groups)
        ) as gated:
            for group, found in gated:
                for work, batch, share in _shares(group):
                    yield work, batch, found.of(share)

    def _gate_together(self, group: list[Batch]) -> Gated:
        return self.gate(PatchBatch.joined([batch for _, batch in group]))

    def _sums(self, work: SlideWork, piece: Piece) -> PieceSums:
        tiles = work.plan.tiles
        weights = _weights(tiles.patch_px, tiles.overlap_px, self.model.device)
        return PieceSums(piece.box, len(self.model.classes), weights, block_px(work.plan), self._calibration)

    @property
    def side_by_side(self) -> bool:
        """Whether the networks are given two batches at once."""
        return self.model.runtime.own_threads

    @contextmanager
    def threads_for_networks(self) -> Iterator[None]:
        """Beside another runtime torch does small things only; its threads would make them slower, and that one too."""
        threads = torch.get_num_threads()
        if self.side_by_side:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@lru_cache(maxsize=4)
def _weights(patch_px: int, overlap_px: int, device: torch.device) -> Tensor:
    """The weight (P, P) of each pixel of a patch, on a device."""
    return torch.from_numpy(window(patch_px, overlap_px)).to(device)


def _shares(group: Iterable[Batch]) -> Iterator[tuple[SlideWork, PatchBatch, slice]]:
    """Batches that are computed at once, and which rows of what comes of it are theirs."""
    start = 0
    for work, batch in group:
        yield work, batch, slice(start, start + len(batch.patches))
        start += len(batch.patches)


def _add(sums: PieceSums, batch: PatchBatch, probabilities: Tensor) -> None:
    """Add the probabilities (N, K, P, P) of a batch to its piece, patch by patch in the order they were read.

    The order of the sums decides the map's bytes.
    """
    for top, patch, values in zip(batch.tops, batch.patches, probabilities, strict=True):
        sums.close_above(top)
        sums.add(patch.tile, values, patch.readable)


def _keep_distances(work: SlideWork, batch: PatchBatch, distance: Float32Array | None) -> None:
    """Hand on the distances (N,) of the patches that the batch's piece owns; nothing where nobody measured or asked."""
    if work.distances is None or distance is None:
        return
    mine = [number for number, patch in enumerate(batch.patches) if batch.piece.owns(patch.tile)]
    work.distances.put([batch.patches[number].tile for number in mine], distance[mine])


def _mark_bright(bright: BoolArray | None, batch: PatchBatch) -> None:
    """Put where patches may be white into what a piece has of it, (height, width); nothing where nobody asked."""
    if bright is None:
        return
    for patch in batch.patches:
        if patch.bright is not None:
            inside = patch.tile.box.intersect(batch.piece.box)
            bright[inside.slices(batch.piece.box)] = patch.bright[inside.slices(patch.tile.box)]
