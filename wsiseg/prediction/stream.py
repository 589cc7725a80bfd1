"""From a slide's pixels to finished pieces of its map: the loop itself, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsiseg.arrays import Float32Array
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gate_field import GateField
from wsiseg.prediction.gated import batch_tensor, gate_thresholds, predict_patches, predict_windows
from wsiseg.prediction.options import PredictOptions
from wsiseg.prediction.plan import Plan
from wsiseg.prediction.result import Counts
from wsiseg.prediction.sums import PiecePixels, PieceSums
from wsiseg.slides.base import SlideReader
from wsiseg.slides.expected import expected
from wsiseg.system.memory import MemoryPlan
from wsiseg.system.threads import read_ahead
from wsiseg.tiling.blending import window
from wsiseg.tiling.grid import Tile
from wsiseg.tiling.pieces import Piece, block_patches, blocks_of
from wsiseg.tiling.reading import Patch, batches, box_around, read_block


@dataclass(frozen=True, slots=True)
class PatchBlock:
    """Patches that are read at once.

    Attributes:
        piece: the piece they are computed for.
        top: first map row that they, or any later patch of the piece, touch.
        tiles: their places, row by row.
    """

    piece: Piece
    top: int
    tiles: list[Tile]


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Patches that the networks get at once.

    Attributes:
        piece: the piece they are computed for.
        patches: each with the first map row that it, or any later patch of the piece, touches.
        seen: probabilities (N, K) that the gate goes by, None where it asks the classifier.
    """

    piece: Piece
    patches: list[tuple[int, Patch]]
    seen: Tensor | None


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
    bright: npt.NDArray[np.bool_] | None = None


class Stream:
    """Reads, gates, segments and sums the pieces of one slide's map.

    Args:
        slide: open for reading; several threads read from it.
        todo: grid, tissue and patches.
        model: both networks.
        options: resolved.
        memory: what may be taken.

    Attributes:
        waited_s: seconds in which the networks waited for pixels.
    """

    def __init__(
        self,
        slide: SlideReader,
        todo: Plan,
        model: TissueModel,
        options: PredictOptions,
        memory: MemoryPlan,
    ) -> None:
        assert options.workers is not None
        assert options.batch_size is not None
        self.slide = slide
        self.todo = todo
        self.model = model
        self.options = options
        self.waited_s = 0.0
        self._workers, self._batch_size = options.workers, options.batch_size
        self._side = block_patches(todo.tiles, max(todo.grid.zoom_x, todo.grid.zoom_y))
        self._ahead = self._reads_ahead(memory.ahead_bytes)
        self._thresholds = gate_thresholds(model, options)
        self._rule = options.gate_rule or model.spec.gate_rule

    def _reads_ahead(self, limit: int) -> int:
        """Blocks that are read before they are asked for: two a thread, or as many as the memory allows."""
        grid = self.todo.grid
        pixels = self._block_px**2 * (1 + max(1.0, grid.zoom_x) * max(1.0, grid.zoom_y))
        return max(1, min(2 * self._workers, int(limit / (3 * pixels))))

    @property
    def _block_px(self) -> int:
        """Map pixels along a side of a block of patches."""
        return (self._side - 1) * self.todo.tiles.stride_px + self.todo.tiles.patch_px

    @cached_property
    def _weights(self) -> Tensor:
        tiles = self.todo.tiles
        return torch.from_numpy(window(tiles.patch_px, tiles.overlap_px)).to(self.model.device)

    def classify(
        self, pieces: Iterable[Piece], field: GateField, advance: Callable[[int], None]
    ) -> Generator[Piece, None, None]:
        """Put the classifier's probabilities of the patches that pieces own into `field`; yields each piece then.

        `advance` is told of patches as they are done.
        """
        with closing(self._read(pieces, owned=True)) as read:
            for piece, blocks in groupby(read, key=lambda found: found[0].piece):
                for batch in batches((patch for _, patches in blocks for patch in patches), self._batch_size):
                    seen = self.model.classify(batch_tensor(batch, self.model.device))
                    field.put([patch.tile for patch in batch], seen.cpu().numpy())
                    advance(len(batch))
                yield piece

    def run(
        self, pieces: Iterable[Piece], field: GateField | None, advance: Callable[[int], None]
    ) -> Generator[FinishedPiece, None, None]:
        """Compute pieces, one after the other.

        Args:
            pieces: which.
            field: what the gate goes by where it looks beyond a patch, else None.
            advance: told of patches as they are done.
        """
        with (
            self.threads_for_networks(),
            closing(self._read(pieces)) as read,
            closing(self._predicted(self._batches(read, field))) as predicted,
        ):
            for piece, found in groupby(predicted, key=lambda found: found[0].piece):
                yield self._compute(piece, found, advance)

    def _read(
        self, pieces: Iterable[Piece], *, owned: bool = False
    ) -> Generator[tuple[PatchBlock, list[Patch]], None, None]:
        """The pieces' blocks with their pixels, read ahead over the borders of pieces."""
        bright = None if owned or self.todo.white is None else self.todo.white.bright
        return read_ahead(
            expected(self.slide, self.todo.grid, self._blocks(pieces, owned), lambda block: box_around(block.tiles)),
            lambda block: read_block(self.slide, self.todo.grid, block.tiles, bright),
            workers=self._workers,
            ahead=self._ahead,
            timeout_s=self.options.read_timeout_s,
            waited=self._waited,
        )

    def _waited(self, seconds: float) -> None:
        self.waited_s += seconds

    def _blocks(self, pieces: Iterable[Piece], owned: bool) -> Iterator[PatchBlock]:
        tiles = self.todo.tiles
        for piece in pieces:
            for block in blocks_of(piece, tiles, self.todo.selected, self._side):
                first = (block[0].row - piece.rows.start) // self._side * self._side + piece.rows.start
                kept = [tile for tile in block if piece.owns(tile)] if owned else block
                if kept:
                    yield PatchBlock(piece, first * tiles.stride_px, kept)

    def _batches(self, read: Iterable[tuple[PatchBlock, list[Patch]]], field: GateField | None) -> Iterator[PatchBatch]:
        """What is read, in batches that end with their piece."""
        for piece, blocks in groupby(read, key=lambda found: found[0].piece):
            seen = None if field is None else field.of(piece)
            patches = ((block.top, patch) for block, found in blocks for patch in found)
            for batch in batches(patches, self._batch_size):
                yield PatchBatch(piece, batch, _of_patches(seen, piece, [patch.tile for _, patch in batch]))

    def _predicted(
        self, found: Iterator[PatchBatch]
    ) -> Generator[tuple[PatchBatch, tuple[Tensor, Tensor]], None, None]:
        """Batches and what `predict` says of them.

        A runtime with threads of its own has the next batch while one is gated and summed.
        """
        if self.side_by_side:
            yield from read_ahead(found, self._predict_batch, workers=2, ahead=2)
        else:
            for batch in found:
                yield batch, self._predict_batch(batch)

    def _predict_batch(self, batch: PatchBatch) -> tuple[Tensor, Tensor]:
        return self.predict(batch_tensor([patch for _, patch in batch.patches], self.model.device), batch.seen)

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

    @torch.inference_mode()
    def _compute(
        self,
        piece: Piece,
        predicted: Iterable[tuple[PatchBatch, tuple[Tensor, Tensor]]],
        advance: Callable[[int], None],
    ) -> FinishedPiece:
        sums = PieceSums(piece.box, len(self.model.classes), self._weights, self._block_px)
        counts = Counts(0, 0, shut=[0] * len(self.model.classes))
        bright = None if self.todo.white is None else np.zeros(piece.box.size.shape, np.bool_)
        for batch, (probabilities, allowed) in predicted:
            for (top, patch), values in zip(batch.patches, probabilities, strict=True):
                sums.close_above(top)
                sums.add(patch.tile, values, patch.readable)
                if bright is not None and patch.bright is not None:
                    inside = patch.tile.box.intersect(piece.box)
                    bright[inside.slices(piece.box)] = patch.bright[inside.slices(patch.tile.box)]
            mine = [piece.owns(patch.tile) for _, patch in batch.patches]
            counts.read += sum(mine)
            counts.add(allowed.cpu().numpy()[mine], segmented=self._rule != "exclude")
            advance(len(batch.patches))
        return FinishedPiece(piece, sums.finish(), counts, bright)

    def predict(self, pixels: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Probabilities (N, K, P, P), and the classes (N, K) that the gate left open somewhere in each patch."""
        mode = self.options.gate_mode or "patches"
        if mode == "patches":
            return predict_patches(self.model, pixels, self._thresholds, self._rule, seen)
        return predict_windows(self.model, pixels, self._thresholds, self.options)


def _of_patches(seen: Float32Array | None, piece: Piece, tiles: list[Tile]) -> Tensor | None:
    """The rows (N, K) of some patches, from what a gate field says of a piece."""
    if seen is None:
        return None
    rows = [tile.row - piece.rows.start for tile in tiles]
    columns = [tile.column - piece.columns.start for tile in tiles]
    return torch.from_numpy(seen[rows, columns])
