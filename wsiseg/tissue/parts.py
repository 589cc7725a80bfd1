"""Connected parts of a mask, by the runs of its rows: without SciPy, whose import takes longer than finding them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import BoolArray, Int64Array

_ROWS = 512


def large_parts(mask: BoolArray, least_px: float, *, corners: bool) -> BoolArray:
    """The connected parts of a mask that have at least `least_px` pixels, (h, w).

    Args:
        mask: (h, w).
        least_px: pixels, not necessarily whole.
        corners: whether pixels that touch at a corner are connected, or those with a common side alone.
    """
    height, width = mask.shape
    # Rows lie one behind the other with a pixel between them, so that no run goes on in the next row.
    starts, stops = _runs(mask)
    part = _joined(len(starts), *_touching(starts, stops, width + 1, int(corners)))
    areas = np.bincount(part, weights=stops - starts, minlength=len(starts))  # exact: whole numbers
    keep = areas[part] >= least_px
    out = np.zeros_like(mask)
    for top in range(0, height, _ROWS):
        rows, first = min(_ROWS, height - top), top * (width + 1)
        some = slice(*np.searchsorted(starts, (first, first + rows * (width + 1))))
        change = np.zeros(rows * (width + 1), np.int8)
        change[starts[some][keep[some]] - first] = 1
        change[stops[some][keep[some]] - first] = -1
        inside = np.cumsum(change, dtype=np.int8).reshape(rows, width + 1)
        out[top : top + rows] = inside[:, :width] > 0
    return out


def _runs(mask: BoolArray) -> tuple[Int64Array, Int64Array]:
    """Where each run of a row begins, and the place behind it, in rows of one more pixel; from top left on."""
    height, width = mask.shape
    starts, stops = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for top in range(0, height, _ROWS):
        band = mask[top : top + _ROWS]
        padded = np.zeros((len(band), width + 2), np.int8)
        padded[:, 1:-1] = band
        change = np.diff(padded, axis=1).ravel()  # (rows * (width + 1),): 1 where a run begins, -1 behind it
        starts.append(np.flatnonzero(change == 1) + top * (width + 1))
        stops.append(np.flatnonzero(change == -1) + top * (width + 1))
    return np.concatenate(starts), np.concatenate(stops)


def _touching(
    starts: Int64Array, stops: Int64Array, row: int, reach: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Pairs of runs that touch: each with all of the row above, `reach` being 1 where corners count."""
    first = np.searchsorted(stops, starts - row - reach, side="right")
    behind = np.searchsorted(starts, stops - row + reach, side="left")
    count = np.maximum(behind - first, 0)
    lower = np.repeat(np.arange(len(starts)), count)
    upper = np.arange(len(lower)) - np.repeat(np.cumsum(count) - count - first, count)
    return lower, upper


def _joined(count: int, one: npt.NDArray[np.intp], other: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """For each of `count` runs the first one that it is connected with, by pairs of neighbours."""
    root = np.arange(count)
    while len(one):
        low, high = np.minimum(root[one], root[other]), np.maximum(root[one], root[other])
        apart = low != high
        one, other = one[apart], other[apart]
        np.minimum.at(root, high[apart], low[apart])
        while (root != (further := root[root])).any():
            root = further
    return root
