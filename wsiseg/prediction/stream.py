"""From a slide's pixels to finished pieces of its map: the loop itself, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from wsiseg.arrays import BoolArray
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gate_field import GateField
from wsiseg.prediction.gated import Gate, batch_tensor
from wsiseg.prediction.options import ResolvedOptions
from wsiseg.prediction.piece_reader import PatchBatch, PieceReader
from wsiseg.prediction.plan import Plan
from wsiseg.prediction.result import Counts
from wsiseg.prediction.sums import PiecePixels, PieceSums
from wsiseg.slides.base import SlideReader
from wsiseg.system.memory import MemoryPlan
from wsiseg.system.threads import read_ahead
from wsiseg.tiling.blending import window
from wsiseg.tiling.pieces import Piece


@dataclass(frozen=True, slots=True)
class FinishedPiece:
    """A piece and what was done for it.

    Attributes:
        piece: its place.
        pixels: its classes and probabilities.
        counts: of the patches that the piece owns.
        bright: (height, width) bool, where the piece may be white; None where nobody asked.
    """

    piece: Piece
    pixels: PiecePixels
    counts: Counts
    bright: BoolArray | None = None


class Writer(Protocol):
    """What finished pieces are given to."""

    def put(self, item: FinishedPiece, /) -> None:
        """Take a piece; may return before it is written."""


class Stream:
    """Reads, gates, segments and sums the pieces of one slide's map.

    Args:
        slide: open for reading; several threads read from it.
        plan: grid, tissue and patches.
        model: both networks.
        gate: made for that model and these options.
        options: how to read.
        memory: what may be taken.
    """

    def __init__(
        self,
        slide: SlideReader,
        plan: Plan,
        model: TissueModel,
        gate: Gate,
        options: ResolvedOptions,
        memory: MemoryPlan,
    ) -> None:
        self.plan = plan
        self.model = model
        self.gate = gate
        self.reader = PieceReader(
            slide,
            plan,
            batch_size=options.batch_size,
            workers=options.workers,
            ahead_bytes=memory.ahead_bytes,
            timeout_s=options.read_timeout_s,
        )

    @torch.inference_mode()
    def run(
        self, pieces: Iterable[Piece], field: GateField | None, writer: Writer, advance: Callable[[int], None]
    ) -> None:
        """Compute pieces, one after the other.

        Args:
            pieces: which; they are taken ahead of what is computed.
            field: what the gate goes by where it looks beyond a patch, else None.
            writer: given each piece.
            advance: told of patches as they are done.
        """
        tiles, classes = self.plan.tiles, len(self.model.classes)
        weights = torch.from_numpy(window(tiles.patch_px, tiles.overlap_px)).to(self.model.device)  # (P, P)
        with (
            self.threads_for_networks(),
            closing(self.reader.batches(pieces, field)) as batches,  # read ahead over the borders of pieces
            closing(self._gated(batches)) as gated,
        ):
            for piece, of_piece in groupby(gated, key=lambda pair: pair[0].piece):  # a square of the map, one shard
                sums = PieceSums(piece.box, classes, weights, self.reader.block_px)
                counts = Counts(0, 0, shut=[0] * classes)
                bright = None if self.plan.white is None else np.zeros(piece.box.size.shape, np.bool_)
                for batch, (probabilities, allowed) in of_piece:  # (N, K, P, P), (N, K)
                    # Patch by patch, in the order they were read: the order of the sums decides the map's bytes.
                    for top, patch, values in zip(batch.tops, batch.patches, probabilities, strict=True):
                        sums.close_above(top)
                        sums.add(patch.tile, values, patch.readable)
                    _mark_bright(bright, batch)
                    mine = [piece.owns(patch.tile) for patch in batch.patches]  # others are counted where they belong
                    counts.read += sum(mine)
                    counts.add(allowed.cpu().numpy()[mine], segmented=self.gate.always_segments)
                    advance(len(batch.patches))
                writer.put(FinishedPiece(piece, sums.finish(), counts, bright))  # written, then journaled

    def classify(
        self, pieces: Iterable[Piece], field: GateField, book: Callable[[Piece], None], advance: Callable[[int], None]
    ) -> None:
        """The pass before, for a gate that looks beyond a patch: what the classifier says of all patches.

        Args:
            pieces: whose own patches are classified.
            field: what it says is put there.
            book: called with each piece when that is done.
            advance: told of patches as they are done.
        """
        with closing(self.reader.owned_batches(pieces)) as batches:
            for batch in batches:
                presence = self.model.classify(batch_tensor(batch.patches, self.model.device))  # (N, K)
                field.put([patch.tile for patch in batch.patches], presence.cpu().numpy())
                advance(len(batch.patches))
                if batch.last:
                    book(batch.piece)

    def _gated(
        self, batches: Generator[PatchBatch, None, None]
    ) -> Generator[tuple[PatchBatch, tuple[Tensor, Tensor]], None, None]:
        """Batches and what the gate makes of them.

        A runtime with threads of its own computes the next batch while one is summed.
        """
        if self.side_by_side:
            return read_ahead(batches, self.gate, workers=2, ahead=2)
        return ((batch, self.gate(batch)) for batch in batches)

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


def _mark_bright(bright: BoolArray | None, batch: PatchBatch) -> None:
    """Put where patches may be white into what a piece has of it, (height, width); nothing where nobody asked."""
    if bright is None:
        return
    for patch in batch.patches:
        if patch.bright is not None:
            inside = patch.tile.box.intersect(batch.piece.box)
            bright[inside.slices(batch.piece.box)] = patch.bright[inside.slices(patch.tile.box)]
