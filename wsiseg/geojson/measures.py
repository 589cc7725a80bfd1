"""What a map's probabilities say of regions: the mean of a region's class, and how much of it is uncertain.

Streamed: the probabilities are read once, some hundred rows at a time, and no region is drawn. Along each row the sum
over a region is a difference of sums from the left up to its borders, so that all that is needed is where borders
cross the middle of the row (Green's theorem).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely

from wsiseg.arrays import Float64Array, Int64Array
from wsiseg.classes import WHITE_VALUE
from wsiseg.geometry import Box, Size

if TYPE_CHECKING:
    from wsiseg.tissue_map.reader import TissueMap

UNCERTAIN_BELOW = 0.5
"""A pixel is uncertain where the most probable class has less than this: all others together are as likely."""

MOST_PX = 2**28
"""Pixels that are looked at, at most: those of the finest level that has no more. Its probabilities are means.

Where the map keeps coarser probabilities, they are interpolated to that level."""

BAND_PX, BAND_ROWS = 2**22, 512
"""Pixels and rows that are read at once, at most."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Of one region.

    Attributes:
        mean_probability: of its class, over the pixels whose centres lie in it and that were read.
        uncertain: share of these pixels that are uncertain, see `UNCERTAIN_BELOW`.
    """

    mean_probability: float
    uncertain: float


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over regions or classes, one entry each.

    Attributes:
        pixels: those that were read.
        probability: of the region's class, in 255ths.
        uncertain: pixels.
    """

    pixels: Int64Array
    probability: Int64Array
    uncertain: Int64Array

    @classmethod
    def empty(cls, count: int) -> Sums:
        """Sums of no pixels, for `count` entries."""
        return cls(np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64))

    def measures(self) -> list[Measures | None]:
        """The measures of each entry, None where no pixel was read."""
        return [
            Measures(p / 255 / n, u / n) if n else None
            for n, p, u in zip(self.pixels.tolist(), self.probability.tolist(), self.uncertain.tolist(), strict=True)
        ]


def measured_level(tissue_map: TissueMap) -> int:
    """The level of the pyramid that measures are taken from."""
    level = 0
    while level < tissue_map.levels - 1 and tissue_map.grid.coarsen(2**level).area > MOST_PX:
        level += 1
    return level


def measure_regions(
    tissue_map: TissueMap, regions: Sequence[shapely.Polygon], classes: Sequence[int]
) -> list[Measures | None]:
    """Measure polygons.

    Args:
        tissue_map: with probabilities.
        regions: valid, in level-0 pixels.
        classes: index of the class of each.

    Returns:
        One for each region; None where it holds the centre of no pixel that was read.
    """
    level = measured_level(tissue_map)
    sums = Sums.empty(len(regions))
    if not len(regions):
        return []
    step = np.array([tissue_map.grid.step_x, tissue_map.grid.step_y]) * 2**level
    edges = _Edges.from_regions(regions, np.asarray(classes), step)
    for box in _bands(tissue_map.grid.coarsen(2**level)):
        crossings = edges.in_rows(box.y, box.bottom, box.width)
        if not len(crossings.region):
            continue
        best = np.zeros(box.size.shape, np.uint8)
        for index, channel in enumerate(tissue_map.channels(box, level), start=1):
            np.maximum(best, channel, out=best)
            crossings.add(channel, sums.probability, crossings.classes == index)
        crossings.add(best > 0, sums.pixels)
        crossings.add(_uncertain(best), sums.uncertain)
    return sums.measures()


def measure_classes(tissue_map: TissueMap) -> list[Measures | None]:
    """Measure all pixels of each class, in the order of the class table; None for a class that has none."""
    level = measured_level(tissue_map)
    count = len(tissue_map.classes)
    sums = Sums.empty(count + 1)
    for box in _bands(tissue_map.grid.coarsen(2**level)):
        classes = tissue_map.read(box, level)
        if not classes.any():
            continue
        classes = np.where((classes == WHITE_VALUE) | (classes > count), np.uint8(0), classes)
        best = np.zeros(box.size.shape, np.uint8)
        for index, channel in enumerate(tissue_map.channels(box, level), start=1):
            np.maximum(best, channel, out=best)
            sums.probability[index] += channel[classes == index].sum(dtype=np.int64)
        sums.pixels[:] += np.bincount(classes.ravel(), minlength=count + 1)
        sums.uncertain[:] += np.bincount(classes[_uncertain(best)], minlength=count + 1)
    return sums.measures()[1:]


def _uncertain(best: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return (best > 0) & (best < UNCERTAIN_BELOW * 255)


def _lengths(starts: npt.NDArray[Any]) -> Int64Array:
    return np.diff(starts).astype(np.int64)


def _bands(size: Size) -> Iterator[Box]:
    rows = min(BAND_ROWS, max(1, BAND_PX // size.width))
    for y in range(0, size.height, rows):
        yield Box(0, y, size.width, min(rows, size.height - y))


@dataclass
class _Edges:
    """Sides of regions that cross the middle of some row, by the first row they cross.

    Attributes:
        ends: (E, 4) x and y of begin and end.
        rows: (E, 2) first row that is crossed, and the one behind the last.
        region: (E,) which one.
        classes: (E,) its class.
    """

    ends: Float64Array
    rows: Int64Array
    region: Int64Array
    classes: npt.NDArray[Any]
    _next: int = 0
    _open: Int64Array = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def from_regions(cls, regions: Sequence[shapely.Polygon], classes: npt.NDArray[Any], step: Float64Array) -> _Edges:
        """The sides of polygons, in pixels that are `step` (x, y) times as large as those they are given in."""
        polygons = shapely.orient_polygons(np.array(regions, object))
        _, xy, (ring_starts, polygon_starts) = shapely.to_ragged_array(polygons)
        xy = xy / step
        ring_starts = np.asarray(ring_starts, np.int64)
        of_ring = np.repeat(np.arange(len(regions)), _lengths(polygon_starts))
        region = np.repeat(of_ring, _lengths(ring_starts))
        begins = np.ones(len(xy), bool)
        begins[ring_starts[1:] - 1] = False
        at = np.flatnonzero(begins)
        ends = np.concatenate([xy[at], xy[at + 1]], axis=1)
        y = np.sort(ends[:, [1, 3]], axis=1)
        rows = np.ceil(y - 0.5).astype(np.int64)  # those whose middle lies in [y0, y1)
        order = np.argsort(rows[:, 0], kind="stable")
        order = order[rows[order, 0] < rows[order, 1]]
        region = region[at][order]
        return cls(ends[order], rows[order], region, classes[region])

    def in_rows(self, top: int, bottom: int, width: int) -> _Crossings:
        """Where sides cross the rows [top, bottom); rows must come from above to below."""
        stop = int(np.searchsorted(self.rows[:, 0], bottom))
        mine = np.concatenate([self._open, np.arange(self._next, stop)])
        self._next, self._open = stop, mine[self.rows[mine, 1] > bottom]
        mine = mine[self.rows[mine, 1] > top]
        first = np.maximum(self.rows[mine, 0], top)
        counts = np.minimum(self.rows[mine, 1], bottom) - first
        edge = np.repeat(mine, counts)
        row = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))
        x0, y0, x1, y1 = self.ends[edge].T
        x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)  # pixels whose centres lie to the left
        return _Crossings(row - top, column, np.where(y1 > y0, 1, -1), self.region[edge], self.classes[edge])


@dataclass(frozen=True, eq=False)
class _Crossings:
    """Where sides of regions cross rows.

    Attributes:
        row: (C,) in the band.
        column: (C,) number of pixels to the left.
        sign: (C,) 1 where the side runs to larger y, so that what is to the left counts, else -1.
        region: (C,) which one.
        classes: (C,) its class.
    """

    row: Int64Array
    column: Int64Array
    sign: Int64Array
    region: Int64Array
    classes: npt.NDArray[Any]

    def add(self, values: npt.NDArray[Any], sums: Int64Array, which: npt.NDArray[np.bool_] | None = None) -> None:
        """Add the sum of `values` (rows, columns) over each region to `sums` of its number, or those of `which`."""
        chosen = slice(None) if which is None else np.flatnonzero(which)
        row, column, sign = self.row[chosen], self.column[chosen], self.sign[chosen]
        if not len(row):
            return
        left = np.zeros((values.shape[0], values.shape[1] + 1), np.int64)
        np.cumsum(values, axis=1, dtype=np.int64, out=left[:, 1:])
        np.add.at(sums, self.region[chosen], sign * left[row, column])
