"""Corrections as pixels: which class is known where, where none occurs, and where one is known to be absent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from wsiseg.arrays import BoolArray, UInt8Array
from wsiseg.corrections.changes import Changes, Shape
from wsiseg.corrections.names import NONE_OF_THEM
from wsiseg.geojson.annotations import Area
from wsiseg.geometry import Box, Grid
from wsiseg.polygons.fill import fill_areas

UNKNOWN = 255
"""Pixel of a mask of which nothing is known."""

MARGIN_PX = 1
"""Output pixels around what changed in which the file counts as looked at."""

_EMPTY, _NONE, _CONFLICT = 0, -1, -2

Values = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the pixels of a box, (h, w) each.

    Attributes:
        known: class channel from 0, uint8; 255 where it is not known.
        none: no class of the model occurs here.
        absent: class channel that is known not to be here although nothing else is, uint8; else 255.
        moved: pixels (K + 2, K + 2) by value before and after, 0 for no region, K + 1 for "none of the classes".
        conflicts: pixels that two corrections give different classes.
    """

    known: UInt8Array
    none: BoolArray
    absent: UInt8Array
    moved: npt.NDArray[np.int64]
    conflicts: int


class Painter:
    """Paints corrections into boxes of a map.

    Where areas overlap, new ones lie on changed ones, and these on untouched ones; two of one kind that differ leave
    the pixel unknown. A pixel has the class of what its centre lies in.

    Args:
        changes: what was corrected.
        grid: of the map.
        num_classes: K.
    """

    def __init__(self, changes: Changes, grid: Grid, num_classes: int) -> None:
        self.grid, self.num_classes = grid, num_classes
        self._before = _Shapes(changes.before, grid)
        self._layers = [_Shapes(shapes, grid) for shapes in (changes.untouched, changes.redrawn, changes.new)]
        self._stated = _Shapes([Shape(area, 1) for area in changes.stated], grid)
        self._looked_at = _Shapes([Shape(area, 1) for area in changes.reviewed], grid)
        self._confirmed = _Shapes([Shape(area, 1) for area in changes.confirmed], grid)

    def paint(self, box: Box) -> Evidence:
        """What is known in a box of map pixels, which may reach beyond the map; nothing is known there."""
        around = Box(box.x - MARGIN_PX, box.y - MARGIN_PX, box.width + 2 * MARGIN_PX, box.height + 2 * MARGIN_PX)
        before, after = self._before.paint(around), np.zeros(around.size.shape, np.int16)
        for layer in self._layers:
            painted = layer.paint(around)
            after = np.where(painted == _EMPTY, after, painted)
        # A person who says nothing of an area that had no region, and says it is none, has still said something.
        changed = (before != after) | (self._stated.paint(around) != _EMPTY)
        square = np.ones((2 * MARGIN_PX + 1,) * 2, np.bool_)
        inside = (slice(MARGIN_PX, -MARGIN_PX),) * 2
        on_map = self._on_map(box)
        near = ndimage.binary_dilation(changed, square)[inside] & on_map
        changed, before, after = changed[inside] & on_map, before[inside], after[inside]
        reviewed = (self._looked_at.paint(box) != _EMPTY) & on_map
        evidence = near | reviewed | ((self._confirmed.paint(box) != _EMPTY) & on_map & (before == after))
        known = np.where(evidence & (after > 0), after - 1, UNKNOWN).astype(np.uint8)
        none = (evidence & (after == _NONE)) | (reviewed & (after == _EMPTY))
        gone = evidence & (after == _EMPTY) & (before > 0) & ~none
        absent = np.where(gone, before - 1, UNKNOWN).astype(np.uint8)
        return Evidence(
            known, none, absent, self._moved(before, after, changed), int((changed & (after == _CONFLICT)).sum())
        )

    def _on_map(self, box: Box) -> BoolArray:
        whole = np.zeros(box.size.shape, np.bool_)
        whole[box.intersect(Box.from_size(self.grid.size)).slices(box)] = True
        return whole

    def _moved(self, before: Values, after: Values, changed: BoolArray) -> npt.NDArray[np.int64]:
        side = self.num_classes + 2
        sure = changed & (after != _CONFLICT) & (before != after)
        target = np.where(after == _NONE, side - 1, after)
        flat = before[sure].astype(np.int64) * side + target[sure]
        return np.bincount(flat, minlength=side * side).reshape(side, side)


class _Shapes:
    """Areas of one layer, found by place."""

    def __init__(self, shapes: Sequence[Shape], grid: Grid) -> None:
        self.values = [_NONE if shape.value == NONE_OF_THEM else shape.value for shape in shapes]
        scale = np.array([1 / grid.step_x, 1 / grid.step_y])
        self.areas: list[Area] = [shapely.transform(shape.area, lambda xy: xy * scale) for shape in shapes]
        self.tree = shapely.STRtree(self.areas)

    def paint(self, box: Box) -> Values:
        """(h, w) values, 0 where no area is and -2 where areas of different values are."""
        painted = np.zeros(box.size.shape, np.int16)
        if not self.areas:
            return painted
        for index in np.sort(self.tree.query(shapely.box(box.x, box.y, box.right, box.bottom))):
            part = _around(self.areas[index], box)  # a block holds hundreds of small areas
            corner = np.array([part.x, part.y], np.float64)
            inside = fill_areas([shapely.transform(self.areas[index], lambda xy, c=corner: xy - c)], part.size, 1.0)
            here = painted[part.slices(box)]  # a view
            taken = inside & (here != _EMPTY) & (here != self.values[index])
            here[inside] = self.values[index]
            here[taken] = _CONFLICT
        return painted


def _around(area: Area, box: Box) -> Box:
    """The pixels of a box that an area may have, one more at each side."""
    left, top, right, bottom = area.bounds
    x, y = math.floor(left) - 1, math.floor(top) - 1
    return Box(x, y, math.ceil(right) + 1 - x, math.ceil(bottom) + 1 - y).intersect(box)


def changed_blocks(changes: Changes, grid: Grid, side_px: int) -> Iterator[Box]:
    """Blocks of `side_px` map pixels, row by row, that hold a change, a reviewed area or a class point."""
    columns, rows = -(-grid.size.width // side_px), -(-grid.size.height // side_px)
    wanted = np.zeros((rows, columns), np.bool_)
    for left, top, right, bottom in [*changes.changed, *((x, y, x, y) for x, y in changes.points)]:
        first_x, last_x = _span(left / grid.step_x, right / grid.step_x, side_px, columns)
        first_y, last_y = _span(top / grid.step_y, bottom / grid.step_y, side_px, rows)
        wanted[first_y:last_y, first_x:last_x] = True
    for row, column in np.argwhere(wanted):
        yield Box(int(column) * side_px, int(row) * side_px, side_px, side_px)


def _span(first: float, last: float, side_px: int, count: int) -> tuple[int, int]:
    """Blocks from the first pixel, less the margin, to the last, as a slice."""
    low = int((first - MARGIN_PX) // side_px)
    high = int((last + MARGIN_PX) // side_px) + 1
    return max(0, min(low, count)), max(0, min(high, count))
