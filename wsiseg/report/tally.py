"""Areas of classes by zone and by block: the sums that every endpoint and every interval is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from wsiseg.arrays import BoolArray, Float64Array, Int64Array
from wsiseg.classes import WHITE_VALUE
from wsiseg.geometry import Box
from wsiseg.report.coarse import CoarseMap

Zone = Literal["bulk", "field", "core", "inner", "outer", "bed"]
"""Where an endpoint is measured: see `wsiseg.report.bulk.Bulk`; "field" is the hot spot, "bed" drawn by a person."""

ZONES: tuple[Zone, ...] = get_args(Zone)


@dataclass(frozen=True, eq=False)
class ZoneTally:
    """Areas in one zone, by block.

    Attributes:
        counted: (B, K) mm2 of each class, by cells.
        summed: (B, K) mm2 of each class by its probabilities, in cells that have a class; None where the map has none.
        white_mm2: of the whole zone.
        places: (B, 2) row and column of each block among all blocks of the map.
    """

    counted: Float64Array
    summed: Float64Array | None
    white_mm2: float
    places: Int64Array

    @property
    def classified_mm2(self) -> float:
        """Area that has a class."""
        return float(self.counted.sum())


def tally(coarse: CoarseMap, zones: Mapping[Zone, BoolArray], block_um: float) -> dict[Zone, ZoneTally]:
    """Count each zone, reading the map's probabilities once, strip by strip.

    Args:
        coarse: the map.
        zones: (height, width) bool each.
        block_um: side of the blocks, which are counted from the map's corner. Only blocks in which the zone has
            anything that is classified are kept.
    """
    classes = len(coarse.source.classes)
    columns, count = _blocks(coarse, block_um)
    counted = {zone: np.zeros((count, classes)) for zone in zones}
    summed = {zone: np.zeros((count, classes)) for zone in zones}
    white = dict.fromkeys(zones, 0)
    for box, probabilities in coarse.strips():
        values = coarse.classes[box.slices()]
        block = _block_of(coarse, box, block_um, columns)
        for zone, mask in zones.items():
            inside = mask[box.slices()]
            if not inside.any():
                continue
            mine, places = values[inside], block[inside]
            white[zone] += int(np.count_nonzero(mine == WHITE_VALUE))
            known = (mine > 0) & (mine != WHITE_VALUE)
            keys = places[known] * classes + mine[known] - 1
            counted[zone] += np.bincount(keys, minlength=count * classes).reshape(count, classes)
            if probabilities is not None:
                for channel in range(classes):
                    weights = probabilities[channel][inside][known]
                    summed[zone][:, channel] += np.bincount(places[known], weights, minlength=count) / 255
    found: dict[Zone, ZoneTally] = {}
    for zone in zones:
        used = counted[zone].sum(axis=1) > 0
        soft = summed[zone][used] * coarse.cell_mm2 if coarse.source.has_probabilities else None
        found[zone] = ZoneTally(
            counted[zone][used] * coarse.cell_mm2,
            soft,
            white[zone] * coarse.cell_mm2,
            np.stack(np.divmod(np.flatnonzero(used), columns), axis=1),
        )
    return found


def _blocks(coarse: CoarseMap, block_um: float) -> tuple[int, int]:
    """Blocks side by side, and blocks in all."""
    height, width = coarse.classes.shape
    columns = int((width - 0.5) * coarse.mpp.x // block_um) + 1
    rows = int((height - 0.5) * coarse.mpp.y // block_um) + 1
    return columns, rows * columns


def _block_of(coarse: CoarseMap, box: Box, block_um: float, columns: int) -> Int64Array:
    """The block of each cell of a strip, (rows, width): the one that its centre lies in."""
    row = ((np.arange(box.y, box.bottom) + 0.5) * coarse.mpp.y // block_um).astype(np.int64)
    column = ((np.arange(box.x, box.right) + 0.5) * coarse.mpp.x // block_um).astype(np.int64)
    return np.asarray(row[:, None] * columns + column[None], np.int64)
