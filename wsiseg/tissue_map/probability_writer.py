"""The root image of a map: its probabilities, at the levels that it keeps."""

from __future__ import annotations

from pathlib import Path

import zarr

from wsiseg.arrays import UInt8Array
from wsiseg.geometry import Box, Grid, Size
from wsiseg.tissue_map.level_arrays import level_of, made_level
from wsiseg.tissue_map.probability_levels import ProbabilityLevels
from wsiseg.tissue_map.pyramid import half_box, halve, halved

PIECE_LEVELS = 2
"""Of the map's levels, those that are written piece by piece: the second is made while the first is in memory.

They are all but a sixteenth of the pyramid's pixels. A piece of a coarser level would be no whole number of chunks.
"""


class ProbabilityWriter:
    """Writes probabilities: array n of the image is level first + n of the map.

    The image has as many levels as the class map, as the specification demands of an image and its labels.

    Args:
        root: of the store.
        folder: of the store.
        channels: K.
        grid: the map's.
        piece_px: side of a piece of the map.
        kept: which levels are kept, and how.
    """

    def __init__(
        self, root: zarr.Group, folder: Path, channels: int, grid: Grid, piece_px: int, kept: ProbabilityLevels
    ) -> None:
        self._root, self._folder, self._channels, self._grid = root, folder, channels, grid
        self._piece_px = piece_px
        self.kept = kept
        # A piece brings all levels down to the first that is kept, and at least two of the map's.
        self.piece_levels = max(1, PIECE_LEVELS - kept.first)

    def make_arrays(self, levels: int) -> None:
        """Make the arrays that pieces are written into, of an image of so many levels."""
        for index in range(min(levels, self.piece_levels)):
            self._array(index)

    def _array(self, index: int) -> zarr.Array:  # type: ignore[type-arg]
        level = self.kept.first + index
        size: Size = self._grid.coarsen(2**level)
        side = self._piece_px // 2**level if index < self.piece_levels else self._piece_px
        # Shards of coarser pieces are small, so that one chunk fills each: smaller ones would pack worse.
        chunk = side if self.kept.first and index < self.piece_levels else None
        return made_level(self._root, index, size, side, self._channels, chunk)

    def put(self, piece: Box, values: UInt8Array, levels: int) -> None:
        """Write a piece: (K, height, width) uint8 at the map's finest level."""
        box, first = piece, self.kept.first
        for level in range(first + min(levels, self.piece_levels)):
            if level:  # the corner of a piece is a multiple of the chunk, so that four divides it, see `halved`
                box, values = half_box(box), halved(values, labels=False)
            if level == first:
                values = self.kept.rounded(values)
            if level >= first:
                level_of(self._root, level - first)[(slice(None), *box.slices())] = values

    def shard(self, index: int, row: int, column: int) -> Path | None:
        """The file of a piece at a level of the image; None where pieces do not bring that level."""
        if index >= self.piece_levels:
            return None
        return self._folder / str(index) / "c" / "0" / str(row) / str(column)

    def make(self, index: int) -> None:
        """Make a level that no piece brings of the one before."""
        halve(level_of(self._root, index - 1), self._array(index), labels=False)
