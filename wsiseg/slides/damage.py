"""Which source tiles of a slide could not be read: each counted once, wherever and however often it is asked for.

A reader marks whole tiles and never the box that it was reading. Boxes depend on the run, tiles on the file alone: so
the same slide has the same damage whoever reads it, and in a run that is resumed.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, Level, Size, ceil_div

Cell = tuple[int, int]
"""Column and row of a source tile."""


class DamageMap:
    """The damaged source tiles of a slide, by level; safe to use from several threads.

    Args:
        levels: the slide's levels.
        tiles: size of a source tile of each level, in its pixels.
        origins: for each level, where the slide's bounds begin on the file's own tile grid, in that level's whole
            pixels.
    """

    def __init__(
        self, levels: Sequence[Level], tiles: Sequence[Size], origins: Sequence[tuple[int, int]] | None = None
    ) -> None:
        self._levels = tuple(levels)
        self._tiles = tuple(tiles)
        self._origins = tuple(origins or [(0, 0)] * len(self._levels))
        self._damaged: list[set[Cell]] = [set() for _ in self._levels]
        self._lock = threading.Lock()

    def mark(self, level: int, cell: Cell) -> None:
        """Remember a source tile as damaged."""
        with self._lock:
            self._damaged[level].add(cell)

    def is_damaged(self, level: int, cell: Cell) -> bool:
        """Whether a source tile was found damaged before."""
        return cell in self._damaged[level]

    def cell_box(self, level: int, cell: Cell) -> Box:
        """The pixels of `level` that a source tile covers, within the slide."""
        tile, (origin_x, origin_y) = self._tiles[level], self._origins[level]
        box = Box(cell[0] * tile.width - origin_x, cell[1] * tile.height - origin_y, tile.width, tile.height)
        return box.intersect(Box.from_size(self._levels[level].size))

    def cells(self, level: int, box: Box) -> Iterator[Cell]:
        """The source tiles that `box` (pixels of `level`) touches, row by row."""
        tile, (origin_x, origin_y) = self._tiles[level], self._origins[level]
        columns = range((box.x + origin_x) // tile.width, ceil_div(box.right + origin_x, tile.width))
        for row in range((box.y + origin_y) // tile.height, ceil_div(box.bottom + origin_y, tile.height)):
            for column in columns:
                yield column, row

    def known(self, level: int, box: Box) -> list[Cell]:
        """The tiles under `box` that were found damaged before."""
        if not self._damaged[level]:
            return []
        return [cell for cell in self.cells(level, box) if cell in self._damaged[level]]

    def mask(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        """(height, width) of `box`, true on damaged tiles; None where there is none."""
        cells = self.known(level, box)
        if not cells:
            return None
        mask = np.zeros(box.size.shape, dtype=np.bool_)
        for cell in cells:
            mask[self.cell_box(level, cell).intersect(box).slices(box)] = True
        return mask

    def to_json(self) -> list[list[int]]:
        """All damaged tiles as [level, column, row], in a fixed order."""
        with self._lock:
            return [[level, *cell] for level, cells in enumerate(self._damaged) for cell in sorted(cells)]

    def restore(self, tiles: Iterable[Sequence[int]]) -> None:
        """Mark the tiles of another run's `to_json`."""
        for level, column, row in tiles:
            self.mark(level, (column, row))

    @property
    def count(self) -> int:
        """Number of damaged tiles found so far, over all levels."""
        with self._lock:
            return sum(len(cells) for cells in self._damaged)

    @property
    def area_px(self) -> int:
        """Level-0 pixels under damaged tiles; where tiles of several levels overlap, they count once."""
        boxes = [box for box in self.boxes if not box.is_empty]
        xs = np.unique([v for box in boxes for v in (box.x, box.right)])
        ys = np.unique([v for box in boxes for v in (box.y, box.bottom)])
        covered = np.zeros((max(0, len(ys) - 1), max(0, len(xs) - 1)), dtype=np.bool_)
        for box in boxes:
            rows, columns = np.searchsorted(ys, (box.y, box.bottom)), np.searchsorted(xs, (box.x, box.right))
            covered[rows[0] : rows[1], columns[0] : columns[1]] = True
        return int((covered * np.diff(ys)[:, None] * np.diff(xs)[None, :]).sum()) if boxes else 0

    @property
    def boxes(self) -> frozenset[Box]:
        """What the damaged tiles cover, in level-0 pixels, rounded outwards."""
        with self._lock:
            found = [(level, cell) for level, cells in enumerate(self._damaged) for cell in cells]
        return frozenset(self._level0(level, self.cell_box(level, cell)) for level, cell in found)

    def _level0(self, level: int, box: Box) -> Box:
        fx, fy = self._levels[level].downsample_x, self._levels[level].downsample_y
        x, y = math.floor(box.x * fx), math.floor(box.y * fy)
        right, bottom = math.ceil(box.right * fx), math.ceil(box.bottom * fy)
        return Box(x, y, right - x, bottom - y).intersect(Box.from_size(self._levels[0].size))


class UnreadableError(Exception):
    """A box of a slide could not be decoded; only for use among readers."""


def read_around(
    box: Box,
    level: int,
    damage: DamageMap,
    read: Callable[[Box], npt.NDArray[np.uint8]],
    *,
    out: npt.NDArray[np.uint8],
    origin: Box,
) -> None:
    """Read `box` into `out`; where that fails, halve it along source tiles until the damaged ones are left out.

    Args:
        box: pixels of `level`, inside the slide.
        level: the level.
        damage: knows the damaged tiles, and learns of new ones.
        read: gives the pixels of a box, or raises `UnreadableError`.
        out: the array to write to, its first pixel the corner of `origin`; damaged tiles are left as they are.
        origin: see `out`.
    """
    if box.is_empty:
        return
    cells = list(damage.cells(level, box))
    known = sum(damage.is_damaged(level, cell) for cell in cells)
    if known == len(cells):
        return
    if known == 0:
        try:
            out[box.slices(origin)] = read(box)
        except UnreadableError:
            if len(cells) == 1:
                damage.mark(level, cells[0])
                return
        else:
            return
    for half in _halves(box, level, damage, cells):
        read_around(half, level, damage, read, out=out, origin=origin)


def _halves(box: Box, level: int, damage: DamageMap, cells: list[Cell]) -> tuple[Box, Box]:
    """Two parts of a box along a border of source tiles, across its longer side."""
    columns, rows = cells[-1][0] - cells[0][0] + 1, cells[-1][1] - cells[0][1] + 1
    if columns >= rows:
        x = damage.cell_box(level, (cells[0][0] + columns // 2, cells[0][1])).x
        return Box(box.x, box.y, x - box.x, box.height), Box(x, box.y, box.right - x, box.height)
    y = damage.cell_box(level, (cells[0][0], cells[0][1] + rows // 2)).y
    y = min(max(y, box.y + 1), box.bottom - 1)
    return Box(box.x, box.y, box.width, y - box.y), Box(box.x, y, box.width, box.bottom - y)
