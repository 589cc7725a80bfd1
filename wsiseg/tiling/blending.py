"""Overlapping patches of probabilities become one map: window weights, and bands that close and leave memory.

The value of a pixel is sum(w * p) / sum(w) over the patches that cover it. Both sums take the patches in the order of
their index, whatever the order they arrive in, and both take the same float32 steps: so equal inputs give equal bytes,
and a constant p of 1 gives exactly 1.

Evaluation and benchmarks blend with `Blender`. Predicting a slide takes only `window` from here: its sums are in
`wsiseg.prediction.sums`, on the networks' device, and a test holds them against `blend`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float32Array
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size, ceil_div
from wsiseg.tiling.grid import Tile, TileGrid

COLUMN_PX = 512
"""Width of an accumulator: only columns of the map that a patch touches take memory."""


@dataclass(frozen=True, slots=True)
class Block:
    """A finished piece of the map.

    Attributes:
        box: its place, in map pixels, inside the map.
        probabilities: (K, height, width) float32; 0 where nothing was read.
        covered: (height, width) bool: whether any patch had a readable pixel there.
    """

    box: Box
    probabilities: Float32Array
    covered: npt.NDArray[np.bool_]


def window(patch_px: int, overlap_px: int) -> Float32Array:
    """Weights (patch_px, patch_px) of a patch's pixels, positive everywhere.

    A linear ramp over the overlap at every side, flat between: neighbouring patches add up to a constant where two
    meet. With more than half overlapping it is a pyramid; without overlap all weights are 1.
    """
    # From the middle of each pixel: at the map's edge a pixel has one patch, whose weight must not be 0.
    distance = np.minimum(np.arange(patch_px), np.arange(patch_px)[::-1]) + 0.5  # to the nearer side
    ramp = np.minimum(1.0, distance / overlap_px) if overlap_px else np.ones(patch_px)
    return np.outer(ramp, ramp).astype(np.float32)


class Blender:
    """Takes patches of probabilities in any order and hands out the map in finished blocks, from top to bottom.

    Memory: one row of patches over the columns that tissue touches, and the patches that came before their turn.

    Args:
        tiles: the grid that the patches lie on.
        channels: K, probabilities per pixel.
    """

    def __init__(self, tiles: TileGrid, channels: int) -> None:
        if channels < 1:
            raise OptionError(f"blending needs at least one channel, got {channels}")
        self.tiles = tiles
        self.channels = channels
        self._window = window(tiles.patch_px, tiles.overlap_px)
        self._top = 0  # first map row of the accumulators
        self._columns: dict[int, Float32Array] = {}  # column -> (K + 1, patch_px, COLUMN_PX), sum of weights last
        self._waiting: dict[int, tuple[Tile, Float32Array, npt.NDArray[np.bool_] | None]] = {}
        self._next = 0

    def add(
        self, tile: Tile, probabilities: Float32Array, readable: npt.NDArray[np.bool_] | None = None
    ) -> Iterator[Block]:
        """Take one patch; yields what is finished by it.

        Args:
            tile: its place; every index from 0 must come exactly once before `finish`.
            probabilities: (K, patch_px, patch_px) float32.
            readable: (patch_px, patch_px) bool, false where the slide is damaged; None where all of it is readable.
        """
        shape = (self.channels, self.tiles.patch_px, self.tiles.patch_px)
        if probabilities.shape != shape:
            raise OptionError(f"a patch of probabilities must have the shape {shape}, got {probabilities.shape}")
        if tile.index < self._next or tile.index in self._waiting:
            raise OptionError(f"tile {tile.index} came twice")
        self._waiting[tile.index] = (tile, probabilities, readable)
        while self._next in self._waiting:
            yield from self._accumulate(*self._waiting.pop(self._next))
            self._next += 1

    def finish(self) -> Iterator[Block]:
        """Hand out the rest of the map."""
        if self._waiting:
            raise OptionError(f"tile {self._next} never came, {len(self._waiting)} later ones did")
        yield from self._close(self._top + self.tiles.patch_px)

    def _accumulate(
        self, tile: Tile, probabilities: Float32Array, readable: npt.NDArray[np.bool_] | None
    ) -> Iterator[Block]:
        yield from self._close(tile.box.y)
        weights = self._window if readable is None else self._window * readable
        inside = tile.box.intersect(Box.of(self.tiles.map_size))
        rows = inside.height
        for column in range(inside.x // COLUMN_PX, ceil_div(inside.right, COLUMN_PX)):
            piece = Box(column * COLUMN_PX, inside.y, COLUMN_PX, rows).intersect(inside)
            source = piece.slices(tile.box)
            target = self._column(column)[:, :rows, piece.x - column * COLUMN_PX : piece.right - column * COLUMN_PX]
            target[:-1] += weights[source] * probabilities[:, source[0], source[1]]
            target[-1] += weights[source]

    def _column(self, column: int) -> Float32Array:
        if column not in self._columns:
            self._columns[column] = np.zeros((self.channels + 1, self.tiles.patch_px, COLUMN_PX), np.float32)
        return self._columns[column]

    def _close(self, bottom: int) -> Iterator[Block]:
        """Yield the rows above `bottom`, which no later patch touches, and forget them."""
        height = min(bottom - self._top, self.tiles.patch_px)
        if height <= 0:
            return
        map_box = Box.of(self.tiles.map_size)
        for column in sorted(self._columns):
            sums = self._columns[column]
            box = Box(column * COLUMN_PX, self._top, COLUMN_PX, height).intersect(map_box)
            if not box.is_empty:
                yield _divide(box, sums[:, : box.height, : box.width])
            kept = sums[:, height:]
            if kept.size and kept[-1].any():
                sums[:, : kept.shape[1]] = kept.copy()
                sums[:, kept.shape[1] :] = 0
            else:
                del self._columns[column]
        self._top = bottom


def _divide(box: Box, sums: Float32Array) -> Block:
    total = sums[-1]
    covered = total > 0
    values = np.divide(sums[:-1], total, out=np.zeros_like(sums[:-1]), where=covered)
    return Block(box, values, covered)


def blend(size: Size, patches: list[tuple[Tile, Float32Array]], tiles: TileGrid) -> Float32Array:
    """All of a small map at once, (K, height, width) float32: for one's own experiments, and as the simple case."""
    blender = Blender(tiles, patches[0][1].shape[0])
    out = np.zeros((blender.channels, *size.shape), np.float32)
    for tile, values in patches:
        for block in blender.add(tile, values):
            out[(slice(None), *block.box.slices())] = block.probabilities
    for block in blender.finish():
        out[(slice(None), *block.box.slices())] = block.probabilities
    return out
