"""A map at the coarse scale at which endpoints are measured: one level of its pyramid, held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wsiseg.arrays import BoolArray, UInt8Array
from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Mpp
from wsiseg.tissue_map.reader import TissueMap

CELL_UM = 8.0
"""Microns along a cell, at most: the coarsest level that is no coarser is taken."""

MOST_CELLS = 2**28
"""Cells that are held at once; a section of 130 mm squared has as many."""

_TOLERANCE = 1.05
_ROWS = 1024


@dataclass(frozen=True, eq=False)
class CoarseMap:
    """The class map at about `CELL_UM`.

    Attributes:
        source: the map.
        level: of its pyramid.
        classes: (height, width) uint8, as the map's.
        mpp: microns along a cell.
    """

    source: TissueMap
    level: int
    classes: UInt8Array
    mpp: Mpp

    @classmethod
    def of(cls, source: TissueMap, cell_um: float = CELL_UM) -> CoarseMap:
        """Read the level of a map whose pixels are the largest of at most `cell_um`, or the finest one.

        Raises:
            OptionError: the level is too large for memory.
            SlideError: the map is damaged.
        """
        level = max((n for n in range(source.levels) if max(source.scale_um(n)) <= cell_um * _TOLERANCE), default=0)
        size = source.grid.coarsen(2**level)
        if size.area > MOST_CELLS:
            raise OptionError(
                f"{source.path.name} has {size} px at {source.mpp.times(2**level)} um, more than a report can hold; "
                "predict the slide again, so that its map has all of its levels"
            )
        classes = np.empty(size.shape, np.uint8)
        whole = Box.from_size(size)
        for y in range(0, size.height, _ROWS):
            strip = Box(0, y, size.width, _ROWS).intersect(whole)
            classes[strip.slices()] = source.read(strip, level)
        return cls(source, level, classes, source.mpp.times(2**level))

    @property
    def cell_mm2(self) -> float:
        """Area of a cell."""
        return self.mpp.pixel_area_um2 / 1e6

    @property
    def step(self) -> tuple[float, float]:
        """Level-0 pixels of the slide along a cell, (x, y)."""
        return self.source.grid.step_x * 2**self.level, self.source.grid.step_y * 2**self.level

    def mask(self, *indices: int) -> BoolArray:
        """Where any of some classes is, (height, width) bool."""
        table = np.zeros(256, np.bool_)
        table[list(indices)] = True
        return np.asarray(table[self.classes])

    @property
    def classified(self) -> BoolArray:
        """Where any class is: neither glass, nor unread, nor white."""
        return np.asarray((self.classes > 0) & (self.classes != WHITE_VALUE))

    @property
    def tissue(self) -> BoolArray:
        """Where tissue was read, white inside it as well."""
        return np.asarray(self.classes > 0)

    def strips(self) -> Iterator[tuple[Box, UInt8Array | None]]:
        """Bands of rows, each with its probabilities (K, rows, width) uint8, None where the map has none."""
        height, width = self.classes.shape
        rows = _ROWS if not self.source.has_probabilities else max(64, _ROWS // max(1, len(self.source.classes) // 4))
        for y in range(0, height, rows):
            box = Box(0, y, width, min(rows, height - y))
            yield box, self._probabilities(box)

    def _probabilities(self, box: Box) -> UInt8Array | None:
        if not self.source.has_probabilities:
            return None
        return self.source.estimate_probabilities(box, self.level)
