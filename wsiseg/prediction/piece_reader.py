"""Pieces of the map into batches of patches with their pixels, read ahead over the borders of pieces."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, pairwise

from wsiseg.arrays import Float32Array
from wsiseg.prediction.gate_field import GateField
from wsiseg.prediction.plan import Plan
from wsiseg.slides.base import SlideReader
from wsiseg.slides.expected import expected
from wsiseg.system.threads import read_ahead
from wsiseg.tiling.grid import Tile
from wsiseg.tiling.pieces import Piece, block_patches, blocks_of
from wsiseg.tiling.reading import Patch, box_around, read_block


@dataclass(frozen=True, slots=True)
class PatchBlock:
    """Patches that are read at once.

    Attributes:
        piece: the piece they are computed for.
        top: first map row that they, or any later patch of the piece, touch.
        tiles: their places, row by row.
        last: whether the piece has no other block after this one.
    """

    piece: Piece
    top: int
    tiles: list[Tile]
    last: bool


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Patches that the networks get at once; all belong to one piece.

    Attributes:
        piece: the piece they are computed for.
        patches: N of them, in order.
        tops: for each, the first map row that it, or any later patch of the piece, touches.
        presence: (N, K) float32, the probability that each class occurs in each patch, where the gate looks beyond a
            patch and knows it before; None where the gate asks the classifier.
        last: whether the piece ends with this batch.
    """

    piece: Piece
    patches: list[Patch]
    tops: list[int]
    presence: Float32Array | None
    last: bool


class PieceReader:
    """Reads the patches of pieces in several threads, in order.

    Args:
        slide: open for reading.
        plan: grid, tissue and patches.
        batch_size: patches in a batch.
        workers: threads that read.
        ahead_bytes: memory for what is read before it is asked for.
        timeout_s: seconds after which a read that does not come back ends the run.

    Attributes:
        waited_s: seconds in which whoever takes batches waited for pixels.
    """

    def __init__(
        self, slide: SlideReader, plan: Plan, *, batch_size: int, workers: int, ahead_bytes: int, timeout_s: float
    ) -> None:
        self.waited_s = 0.0
        self._slide = slide
        self._plan = plan
        self._batch_size = batch_size
        self._workers = workers
        self._timeout_s = timeout_s
        self._side = block_patches(plan.tiles, max(plan.grid.zoom_x, plan.grid.zoom_y))
        pixels = self.block_px**2 * (1 + max(1.0, plan.grid.zoom_x) * max(1.0, plan.grid.zoom_y))
        # Two blocks a thread, or as many as the memory allows.
        self._ahead = max(1, min(2 * workers, int(ahead_bytes / (3 * pixels))))

    @property
    def block_px(self) -> int:
        """Map pixels along a side of a block of patches."""
        return (self._side - 1) * self._plan.tiles.stride_px + self._plan.tiles.patch_px

    def batches(self, pieces: Iterable[Piece], field: GateField | None = None) -> Generator[PatchBatch, None, None]:
        """All patches that touch pieces, piece by piece; batches end with their piece.

        Args:
            pieces: taken one after the other, ahead of what is given out.
            field: what the gate goes by where it looks beyond a patch.
        """
        white = self._plan.white
        with closing(self._read(self._blocks(pieces), look_for_white=white is not None)) as blocks:
            yield from self._batches(blocks, field)

    def owned_batches(self, pieces: Iterable[Piece]) -> Generator[PatchBatch, None, None]:
        """The patches that have their corner in pieces, so that each comes once; a piece that owns none is left out."""
        with closing(self._read(self._blocks(pieces, owned=True), look_for_white=False)) as blocks:
            yield from self._batches(blocks, None)

    def _batches(
        self, blocks: Iterable[tuple[PatchBlock, list[Patch]]], field: GateField | None
    ) -> Iterator[PatchBatch]:
        patches: list[Patch] = []
        tops: list[int] = []
        means: tuple[Piece, Float32Array] | None = None  # in context, of all patches of the piece that is under way
        for block, read in blocks:
            if field is not None and (means is None or means[0] != block.piece):
                means = block.piece, field.of(block.piece)
            for number, patch in enumerate(read, start=1):
                patches.append(patch)
                tops.append(block.top)
                # No batch goes over the border of a piece: a resumed run leaves pieces out, and a network's values may
                # depend on the size of the batch.
                last = block.last and number == len(read)
                if last or len(patches) == self._batch_size:
                    presence = None if means is None else _of_patches(*means, patches)
                    yield PatchBatch(block.piece, patches, tops, presence, last)
                    patches, tops = [], []

    def _read(
        self, blocks: Iterable[PatchBlock], *, look_for_white: bool
    ) -> Generator[tuple[PatchBlock, list[Patch]], None, None]:
        """Blocks with their pixels, a bounded number of them ahead."""
        grid = self._plan.grid
        bright = self._plan.white.bright if look_for_white and self._plan.white is not None else None
        return read_ahead(
            expected(self._slide, grid, blocks, lambda block: box_around(block.tiles)),
            lambda block: read_block(self._slide, grid, block.tiles, bright),
            workers=self._workers,
            ahead=self._ahead,
            timeout_s=self._timeout_s,
            waited=self._waited,
        )

    def _waited(self, seconds: float) -> None:
        self.waited_s += seconds

    def _blocks(self, pieces: Iterable[Piece], *, owned: bool = False) -> Iterator[PatchBlock]:
        tiles = self._plan.tiles
        for piece in pieces:
            kept = (
                [tile for tile in block if not owned or piece.owns(tile)]
                for block in blocks_of(piece, tiles, self._plan.selected, self._side)
            )
            # One block ahead: a piece has too many patches to hold them all where they overlap by nearly all.
            for block, following in pairwise(chain((block for block in kept if block), [None])):
                assert block is not None
                # The first row of this row of blocks, not of this block: one to the right may have patches higher up.
                row = (block[0].row - piece.rows.start) // self._side * self._side + piece.rows.start
                yield PatchBlock(piece, row * tiles.stride_px, block, last=following is None)


def _of_patches(piece: Piece, means: Float32Array, patches: list[Patch]) -> Float32Array:
    """The rows (N, K) of some patches, of what a gate field says of a piece, (rows, columns, K)."""
    rows = [patch.tile.row - piece.rows.start for patch in patches]
    columns = [patch.tile.column - piece.columns.start for patch in patches]
    return means[rows, columns]
