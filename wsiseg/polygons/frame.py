"""Where a slide ends in the pixels of its map: the last ones may reach beyond it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, Grid, Size
from wsiseg.polygons.class_map import ClassMapSource

HAIR = 1e-6
"""Less of a pixel is nothing: quotients of sizes are rounded."""

LEAST_PX0 = 0.011
"""A column of which the slide has less, in level-0 pixels, is beyond it: files of polygons keep hundredths."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The slide's rectangle, its corner at (0, 0).

    Attributes:
        width: in map pixels, or those of a level of the map; not whole where the last pixel reaches beyond the slide.
        height: the same.
        hair: pixels of which the slide has less are beyond it.
    """

    width: float
    height: float
    hair: float = HAIR

    @classmethod
    def of_map(cls, slide: Mapping[str, Any], grid: Grid, factor: int = 1) -> Frame:
        """The frame of the slide that a map was made from, never larger than the map.

        Args:
            slide: what the map's metadata say of it; where they lack its size, the map is as large as the slide.
            grid: the map's.
            factor: map pixels along the side of a pixel of the level.
        """
        width, height = slide.get("width", 0), slide.get("height", 0)
        wide, high = float(grid.size.width), float(grid.size.height)
        if 0 < width < wide * grid.step_x:  # compared first: what a file states may be too large for a float
            wide = width / grid.step_x
        if 0 < height < high * grid.step_y:
            high = height / grid.step_y
        hair = LEAST_PX0 / min(grid.step_x, grid.step_y) / factor
        return cls(wide / factor, high / factor, min(0.5, max(HAIR, hair)))

    @classmethod
    def of_size(cls, size: Size) -> Frame:
        """A frame that ends with the map."""
        return cls(float(size.width), float(size.height))

    def halved(self) -> Frame:
        """The rectangle in pixels that are twice as large."""
        return Frame(self.width / 2, self.height / 2, max(HAIR, self.hair / 2))

    @property
    def pixels(self) -> Size:
        """Pixels of which the slide has some part."""
        return Size(max(1, math.ceil(self.width - self.hair)), max(1, math.ceil(self.height - self.hair)))

    def bound(self, xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Pixel corners (N, 2), those beyond the edge moved onto it."""
        return np.minimum(xy, [self.width, self.height])

    def areas_px(self, source: ClassMapSource, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The area of each value of a class map inside the frame, in pixels.

        Args:
            source: the class map, its size that of `pixels`.
            pixels: (V,) number of pixels of each value 0..V - 1; what is outside the frame is taken off.
        """
        size = source.size
        over_x, over_y = max(0.0, size.width - self.width), max(0.0, size.height - self.height)
        areas = pixels.astype(np.float64)
        for over, box in (
            (over_x, Box(size.width - 1, 0, 1, size.height)),
            (over_y, Box(0, size.height - 1, size.width, 1)),
            (-over_x * over_y, Box(size.width - 1, size.height - 1, 1, 1)),
        ):
            if abs(over) > HAIR**2:
                areas -= over * np.bincount(source.read(box).ravel(), minlength=256)[: len(areas)]
        return areas
