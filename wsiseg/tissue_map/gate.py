"""Where the gate shut a class, as a map records it: one decision for each window that it looked at.

A window is what the gate decides about at once: a patch, or inside a large tile a part of a patch's size. Windows
overlap, so that a pixel lies in several, and a class has the probability 0 where all of them were shut for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Int64Array, UInt8Array
from wsiseg.errors import OptionError
from wsiseg.geometry import Box
from wsiseg.system.json_values import JsonObject, is_whole
from wsiseg.tissue_map.checks import MAX_SIDE_PX

GATE = "gate"
"""Name of the group, whose array `0` is (c, row, column) of windows."""

NOT_ASKED, OPEN, SHUT = 0, 1, 2
"""Of a window and a class. Nothing was asked where no tissue is."""

SHUT_IN_PART, SHUT_ALL_OVER = 2, 3
"""Of a map pixel and a class, whose windows do not agree, or all shut it; else as above."""

MOST_PATCH_PX = 8192
MOST_AT_ONCE = 2**21
"""Windows that are read at once."""


@dataclass(frozen=True, slots=True)
class GateGrid:
    """Where the windows lie: `per_tile` of them `stride_px` apart, then again from the next tile's corner.

    Attributes:
        rows: of windows.
        columns: of windows.
        patch_px: side of a window in map pixels.
        stride_px: from one window of a tile to the next.
        tile_stride_px: from one tile to the next.
        per_tile: windows along a tile's side; 1 where a patch is the window.
    """

    rows: int
    columns: int
    patch_px: int
    stride_px: int
    tile_stride_px: int
    per_tile: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = MOST_PATCH_PX if name == "patch_px" else MAX_SIDE_PX
            if not is_whole(value) or not 1 <= value <= most:
                raise OptionError(f"the gate's {name} must be a whole number from 1 to {most}, got {value!r:.40}")

    def starts(self, count: int) -> Int64Array:
        """The map pixel at which each of the first `count` windows along a side begins."""
        index = np.arange(count, dtype=np.int64)
        return index // self.per_tile * self.tile_stride_px + index % self.per_tile * self.stride_px

    def to_json(self) -> JsonObject:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> GateGrid:
        """The inverse of `to_json`; raises `OptionError` on anything else."""
        names = cls.__slots__
        if not isinstance(value, Mapping) or set(value) != set(names):
            raise OptionError(f"the gate's grid must state {', '.join(names)}, got {value!r:.100}")
        return cls(**{name: value[name] for name in names})


class GateWindows:
    """The gate's decisions, window by window, of a map that is open for reading.

    Attributes:
        grid: where the windows lie.
    """

    def __init__(self, grid: GateGrid, array: Any) -> None:
        self.grid = grid
        self._array = array
        self._columns = _Side(grid.starts(grid.columns), grid.patch_px)
        self._rows = _Side(grid.starts(grid.rows), grid.patch_px)

    def decisions(self, index: int, rows: slice = slice(None), columns: slice = slice(None)) -> UInt8Array:
        """What was decided of class `index` (from 1) in windows: `NOT_ASKED`, `OPEN` or `SHUT`.

        With 0: `SHUT` where at most one class was left open.
        """
        if index:
            found: UInt8Array = np.asarray(self._array[index - 1, rows, columns])
            return found
        first = np.asarray(self._array[0, rows, columns])
        opened = (first == OPEN).astype(np.uint8)
        for channel in range(1, self._array.shape[0]):
            opened += np.asarray(self._array[channel, rows, columns]) == OPEN
        return np.where(first == NOT_ASKED, NOT_ASKED, np.where(opened > 1, OPEN, SHUT)).astype(np.uint8)

    def pixels(self, index: int, box: Box, level: int) -> UInt8Array:
        """What the windows over the middle of each pixel of a box say together, (height, width) uint8.

        Args:
            index: of a class, from 1; 0 asks where at most one was left open.
            box: pixels of a level.
            level: of the map's pyramid.

        Returns:
            `NOT_ASKED`, `OPEN`, `SHUT_IN_PART` or `SHUT_ALL_OVER`.
        """
        out = np.zeros(box.size.shape, np.uint8)
        left, right = self._columns.over(box.x, box.width, level)
        columns = slice(int(left.min(initial=0)), int(right.max(initial=0)))
        across = max(1, columns.stop - columns.start)
        first_row = 0
        while first_row < box.height:  # in bands of rows that hold few enough windows
            top, bottom = self._rows.over(box.y + first_row, box.height - first_row, level)
            fits = np.searchsorted(bottom, top[0] + max(1, MOST_AT_ONCE // across), "right")
            count = min(max(1, int(fits)), len(top))
            rows = slice(int(top[0]), int(bottom[count - 1]))
            if rows.stop > rows.start and columns.stop > columns.start:
                ranges = (top[:count] - rows.start, bottom[:count] - rows.start)
                band = self._sorted(index, rows, columns)
                out[first_row : first_row + count] = _together(
                    band, ranges, (left - columns.start, right - columns.start)
                )
            first_row += count
        return out

    def _sorted(self, index: int, rows: slice, columns: slice) -> UInt8Array:
        """Decisions by where windows begin, which is not quite their order where tiles overlap much."""
        row_order, column_order = self._rows.order[rows], self._columns.order[columns]
        low, left = int(row_order.min()), int(column_order.min())
        found = self.decisions(index, slice(low, int(row_order.max()) + 1), slice(left, int(column_order.max()) + 1))
        return found[row_order - low][:, column_order - left]


class _Side:
    """The windows along one side of a map, by where they begin."""

    def __init__(self, starts: Int64Array, patch_px: int) -> None:
        self.order = np.argsort(starts, kind="stable")
        self._starts = starts[self.order]
        self._patch_px = patch_px

    def over(self, first: int, count: int, level: int) -> tuple[Int64Array, Int64Array]:
        """The first window over the middle of each pixel, and that after the last."""
        middles = (np.arange(first, first + count) + 0.5) * 2**level
        after = np.searchsorted(self._starts, middles, "right")
        return np.minimum(np.searchsorted(self._starts, middles - self._patch_px, "right"), after), after


_Ranges = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _together(windows: UInt8Array, rows: _Ranges, columns: _Ranges) -> UInt8Array:
    """What windows say where ranges of their rows and columns cross, (rows, columns)."""
    asked, shut = (_sums(windows == value, rows, columns) for value in (OPEN, SHUT))
    asked += shut
    some = np.where(shut == asked, SHUT_ALL_OVER, np.where(shut > 0, SHUT_IN_PART, OPEN))
    return np.where(asked == 0, NOT_ASKED, some).astype(np.uint8)


def _sums(flags: npt.NDArray[np.bool_], rows: _Ranges, columns: _Ranges) -> npt.NDArray[np.int32]:
    sums = np.zeros((flags.shape[0] + 1, flags.shape[1] + 1), np.int32)
    np.cumsum(flags, axis=0, dtype=np.int32, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
    by_row = sums[rows[1]] - sums[rows[0]]
    found: npt.NDArray[np.int32] = by_row[:, columns[1]] - by_row[:, columns[0]]
    return found
