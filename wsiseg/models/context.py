"""A gate that looks beyond its patch: the classifier's probabilities, averaged over the patches around each.

Which tissues a patch may hold is written in its surroundings as well: a single patch of collapsed lung looks like
tumour stroma, thirty of them in a row do not. A classifier that errs on patches one by one errs less on their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from wsiseg.arrays import Float32Array
from wsiseg.tiling.grid import TileGrid

REACH = 2.0
"""Patches further away than this many standard deviations have no weight."""


class _HasPlace(Protocol):
    @property
    def row(self) -> int: ...
    @property
    def column(self) -> int: ...


Item = TypeVar("Item")


def gaussian(sigma: float) -> npt.NDArray[np.float64]:
    """Weights (2 r + 1,) of the tiles up to r = `REACH` sigma to either side, the middle one 1; `sigma` in tiles."""
    radius = int(REACH * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights: npt.NDArray[np.float64] = np.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
    return weights


def in_context(
    items: Iterable[tuple[Item, _HasPlace, Float32Array]], sigma: float
) -> Iterator[tuple[Item, Float32Array]]:
    """The same items in the same order, each with the weighted mean of the probabilities around it.

    The mean is over the tiles that come, by a Gaussian of their distance in rows and columns; it takes as many rows
    of tiles into memory as the Gaussian reaches. Its sums are taken in a fixed order.

    Args:
        items: anything, its place in the grid of tiles, and its probabilities (K,); row by row, from left to right.
        sigma: standard deviation in tiles (from one tile's corner to the next one's); above 0.
    """
    weights = gaussian(sigma)
    radius = len(weights) // 2
    rows: dict[int, list[tuple[Item, int, Float32Array]]] = {}
    written = 0  # first row that has not been handed out
    for item, place, values in items:
        for row in [row for row in rows if written <= row < place.row - radius]:
            yield from _finished(rows, row, weights)
            written = row + 1
        for row in [row for row in rows if row < min(written, place.row) - 2 * radius]:
            del rows[row]
        rows.setdefault(place.row, []).append((item, place.column, values))
    for row in [row for row in rows if row >= written]:
        yield from _finished(rows, row, weights)


def _finished(
    rows: dict[int, list[tuple[Item, int, Float32Array]]], row: int, weights: npt.NDArray[np.float64]
) -> Iterator[tuple[Item, Float32Array]]:
    """The items of a row whose neighbours have all come; afterwards only their probabilities are kept."""
    radius = len(weights) // 2
    near = {r: rows[r] for r in range(row - radius, row + radius + 1) if r in rows}
    first = min(column for entries in near.values() for _, column, _ in entries)
    last = max(column for entries in near.values() for _, column, _ in entries)
    channels = len(rows[row][0][2])
    sums = np.zeros((channels + 1, last - first + 1))  # the weights' own sum last
    for r, entries in near.items():
        columns = np.array([column for _, column, _ in entries]) - first
        weight = weights[r - row + radius]
        sums[:-1, columns] += weight * np.stack([values for _, _, values in entries], axis=1)
        sums[-1, columns] += weight
    sums = correlate1d(sums, weights, axis=1, mode="constant")
    for item, column, _ in rows[row]:
        yield item, (sums[:-1, column - first] / sums[-1, column - first]).astype(np.float32)
    rows[row] = [(None, column, values) for _, column, values in rows[row]]  # type: ignore[misc]


def mean_in_context(values: Float32Array, present: npt.NDArray[np.bool_], sigma: float) -> Float32Array:
    """The means of `in_context`, of a whole grid of tiles at once.

    Args:
        values: probabilities (rows, columns, K); those of tiles that are not `present` do not count.
        present: (rows, columns) bool.
        sigma: standard deviation in tiles; above 0.

    Returns:
        (rows, columns, K) float32, 0 where no tile is present.
    """
    weights = gaussian(sigma)
    sums = np.concatenate([np.where(present[..., None], values, 0.0), present[..., None]], axis=2, dtype=np.float64)
    for axis in (0, 1):
        sums = correlate1d(sums, weights, axis=axis, mode="constant")
    total = sums[..., -1:]
    means = np.divide(sums[..., :-1], total, out=np.zeros_like(sums[..., :-1]), where=total > 0)
    return np.where(present[..., None], means, 0.0).astype(np.float32)


def context_tiles(gate_context: float, tiles: TileGrid) -> float:
    """The standard deviation of the gate's context in tiles, from sides of a patch."""
    return gate_context * tiles.patch_px / tiles.stride_px
