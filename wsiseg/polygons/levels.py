"""Levels of a map's pyramid as class maps of their own: the finest one whose polygons fit into memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import shapely

from wsiseg.geometry import Box, Mpp, Size, ceil_div
from wsiseg.polygons.class_map import ClassMapSource
from wsiseg.polygons.outlines.reader import bands
from wsiseg.polygons.outlines.tracing import Strips
from wsiseg.tissue_map.pyramid import halved

CORNER_BYTES = 300
"""Memory that simplified polygons take for each corner of the exact outlines, at most (`benchmarks/vectors.py`)."""


class Pyramid(Protocol):
    """A class map in several resolutions, level n with pixels 2**n times as large: a `TissueMap`."""

    @property
    def size(self) -> Size:
        """Size of level 0 in pixels."""

    @property
    def mpp(self) -> Mpp:
        """Microns per pixel of level 0."""

    @property
    def levels(self) -> int:
        """Number of levels, 1 or more."""

    def read(self, box: Box, level: int = 0) -> npt.NDArray[np.uint8]:
        """The classes of a box of a level."""


@dataclass(frozen=True, slots=True)
class MapLevel:
    """One level of a pyramid, a `ClassMapSource`.

    Attributes:
        pyramid: the map.
        level: 0 is the finest.
    """

    pyramid: Pyramid
    level: int

    @property
    def factor(self) -> int:
        """Pixels of level 0 along the side of a pixel."""
        return int(2**self.level)

    @property
    def size(self) -> Size:
        """Size in pixels of this level; the last ones may reach beyond the map."""
        full = self.pyramid.size
        return Size(ceil_div(full.width, self.factor), ceil_div(full.height, self.factor))

    @property
    def mpp(self) -> Mpp:
        """Microns per pixel of this level."""
        return self.pyramid.mpp.times(self.factor)

    def read(self, box: Box) -> npt.NDArray[np.uint8]:
        """The classes in `box`."""
        return self.pyramid.read(box, self.level)

    def to_map_pixels(self, polygons: list[shapely.Polygon]) -> list[shapely.Polygon]:
        """Polygons in pixels of this level as such in pixels of level 0."""
        if self.level == 0 or not polygons:
            return polygons
        return list(shapely.transform(np.array(polygons, object), lambda xy: xy * self.factor))


@dataclass(frozen=True, eq=False)
class HalvedMap:
    """A class map with pixels twice as large, the majority of each four as in a pyramid; a `ClassMapSource`.

    Attributes:
        source: the finer map.
    """

    source: ClassMapSource

    @property
    def size(self) -> Size:
        """Size in pixels of this map; the last ones may reach beyond the finer one."""
        fine = self.source.size
        return Size(ceil_div(fine.width, 2), ceil_div(fine.height, 2))

    def read(self, box: Box) -> npt.NDArray[np.uint8]:
        """The classes in `box`; ties alternate over the whole map, so what is halved begins at an even pixel."""
        x, y = box.x // 2 * 2, box.y // 2 * 2
        wide = Box(x, y, box.right - x, box.bottom - y)
        fine = Box(2 * x, 2 * y, 2 * wide.width, 2 * wide.height).intersect(Box.from_size(self.source.size))
        return halved(self.source.read(fine), labels=True)[box.slices(wide)]


def fitting_level(pyramid: Pyramid, max_memory: int) -> MapLevel:
    """The finest level whose polygons can be simplified in `max_memory` bytes; the coarsest one where none can."""
    most = max_memory // CORNER_BYTES
    for number in range(pyramid.levels - 1):
        level = MapLevel(pyramid, number)
        if count_corners(level, most) <= most:
            return level
    return MapLevel(pyramid, pyramid.levels - 1)


def count_corners(source: ClassMapSource, most: int) -> int:
    """Corners of all exact outlines of a map, or some number above `most` as soon as there are more."""
    strips, count = Strips(source.size.width), 0
    for band in bands(source):
        for turns in strips.of(band):
            count += len(turns)
            if count > most:
                return count
    return count + sum(map(len, strips.end()))
