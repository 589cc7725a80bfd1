"""The order of the work: square pieces of the map, each of which is computed, written and journaled by itself. Pure.

A piece is a shard of the map's finest level. A patch that reaches over the border of a piece is computed for both: some
three per cent of patches of 96 px, more of larger tiles. In return pieces depend on nothing but themselves. They can be
resumed after a kill, given to several processes, and hold the same bytes whoever computed them and when.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, ceil_div
from wsiseg.tiling.grid import Tile, TileGrid

BLOCK_PX = 672
"""Side of a block of patches that is read at once: neighbours share their overlap, and a few ahead stay small.

Patches are summed block by block, so another value gives other bytes. The same holds for `SOURCE_PX`.
"""

SOURCE_PX = 2048
"""Most pixels of the slide's level along that side, if the level is finer than the map."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A square of the map.

    Attributes:
        index: its place among all squares of the map, row by row.
        box: the map pixels it covers, inside the map.
        rows: rows of patches that touch it.
        columns: columns of patches that touch it.
    """

    index: int
    box: Box
    rows: range
    columns: range

    def owns(self, tile: Tile) -> bool:
        """Whether a patch has its corner here, which is true of one piece for each patch."""
        return self.box.x <= tile.box.x < self.box.right and self.box.y <= tile.box.y < self.box.bottom


def pieces_of(tiles: TileGrid, selected: npt.NDArray[np.bool_], side_px: int) -> list[Piece]:
    """The pieces that a selected patch touches, row by row.

    Args:
        tiles: the grid of patches.
        selected: (rows, columns) bool, the patches to compute.
        side_px: side of a piece in map pixels.
    """
    size = tiles.map_size
    across = ceil_div(size.width, side_px)
    found = []
    for index in range(across * ceil_div(size.height, side_px)):
        row, column = divmod(index, across)
        box = Box(column * side_px, row * side_px, side_px, side_px).intersect(Box.from_size(size))
        rows = _touching(box.y, box.bottom, tiles, tiles.rows)
        columns = _touching(box.x, box.right, tiles, tiles.columns)
        if selected[rows.start : rows.stop, columns.start : columns.stop].any():
            found.append(Piece(index, box, rows, columns))
    return found


def _touching(first: int, last: int, tiles: TileGrid, count: int) -> range:
    """Rows or columns of patches that touch the pixels [first, last)."""
    start = max(0, (first - tiles.patch_px) // tiles.stride_px + 1)
    return range(start, min(count, (last - 1) // tiles.stride_px + 1))


def patches_of(piece: Piece, selected: npt.NDArray[np.bool_]) -> int:
    """How many selected patches touch a piece."""
    inside = selected[piece.rows.start : piece.rows.stop, piece.columns.start : piece.columns.stop]
    return int(np.count_nonzero(inside))


def owned_by(piece: Piece, tiles: TileGrid, selected: npt.NDArray[np.bool_]) -> int:
    """How many selected patches have their corner in a piece."""
    first_row, first_column = (ceil_div(start, tiles.stride_px) for start in (piece.box.y, piece.box.x))
    return int(np.count_nonzero(selected[first_row : piece.rows.stop, first_column : piece.columns.stop]))


def block_patches(tiles: TileGrid, zoom: float) -> int:
    """Patches along a side of a block, at least one; `zoom` is the level's pixels along a map pixel."""
    side = min(BLOCK_PX, SOURCE_PX / max(1.0, zoom))
    return max(1, int((side - tiles.patch_px) // tiles.stride_px) + 1)


def blocks_of(piece: Piece, tiles: TileGrid, selected: npt.NDArray[np.bool_], side: int) -> Iterator[list[Tile]]:
    """The selected patches of a piece in blocks of at most `side` x `side`, block row by block row; none is empty.

    The patches of a block come row by row. `Tile.index` counts them within the piece. Patches are summed in this order,
    so it decides the map's bytes.
    """
    index = 0
    for top in range(piece.rows.start, piece.rows.stop, side):
        bottom = min(top + side, piece.rows.stop)
        for left in range(piece.columns.start, piece.columns.stop, side):
            right = min(left + side, piece.columns.stop)
            block = []
            for row, column in np.argwhere(selected[top:bottom, left:right]).tolist():
                block.append(Tile(index, top + row, left + column, tiles.box(top + row, left + column)))
                index += 1
            if block:
                yield block
