"""Sizes, boxes and microns per pixel: pure values, the only place where units are converted.

Coordinates are (x, y), x to the right and y down, of pixel *corners*: pixel (x, y) covers [x, x + 1) x [y, y + 1).
"Level-0 pixels" are those of a slide's finest level inside its bounds; "map pixels" those of a `Grid`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wsiseg.errors import OptionError

MPP_MIN, MPP_MAX = 0.05, 20.0
"""Plausible microns per pixel of a slide: below, a unit was mistaken; above, nothing of tissue can be told."""

LEVEL_TOLERANCE = 0.05
"""A level within this share of the wanted mpp is read as it is, without resampling."""


EDGE = 1e-3
"""A source pixel that an output pixel covers by less than this has no weight: rounding would add it now and then."""


def ceil_div(dividend: int, divisor: int) -> int:
    """The quotient of whole numbers, rounded up; exact at any size, where a float would not be."""
    return -(-dividend // divisor)


@dataclass(frozen=True, slots=True)
class Size:
    """A width and a height in pixels, neither negative."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 0 or self.height < 0:
            raise OptionError(f"a size cannot be negative, got {self.width} x {self.height}")

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), the order of an array."""
        return self.height, self.width

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A rectangle of whole pixels, its upper left corner at (x, y); it may lie outside any image."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 0 or self.height < 0:
            raise OptionError(f"a box cannot have a negative size, got {self.width} x {self.height}")

    @property
    def right(self) -> int:
        """First column behind the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row below the box."""
        return self.y + self.height

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.width, self.height)

    @property
    def is_empty(self) -> bool:
        """Whether it holds no pixel."""
        return self.width == 0 or self.height == 0

    def intersect(self, other: Box) -> Box:
        """The pixels in both boxes; empty (at a corner of either) where there are none."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box(x, y, max(0, right - x), max(0, bottom - y))

    def shift(self, dx: int, dy: int) -> Box:
        """The box moved by (dx, dy)."""
        return Box(self.x + dx, self.y + dy, self.width, self.height)

    def slices(self, origin: Box | None = None) -> tuple[slice, slice]:
        """(rows, columns) of this box in an array whose first pixel is the corner of `origin` (default 0, 0)."""
        x, y = (origin.x, origin.y) if origin else (0, 0)
        return slice(self.y - y, self.bottom - y), slice(self.x - x, self.right - x)

    @classmethod
    def from_size(cls, size: Size) -> Box:
        """The whole of an image."""
        return cls(0, 0, size.width, size.height)


@dataclass(frozen=True, slots=True)
class Mpp:
    """Microns per pixel along x and y; equal on almost every slide."""

    x: float
    y: float

    def __post_init__(self) -> None:
        for value in (self.x, self.y):
            if not (math.isfinite(value) and value > 0):
                raise OptionError(f"microns per pixel must be positive numbers, got {self.x} and {self.y}")

    @property
    def mean(self) -> float:
        """Side of the square pixel of the same area, in um."""
        return math.sqrt(self.x * self.y)

    @property
    def pixel_area_um2(self) -> float:
        """Area of one pixel in um2."""
        return self.x * self.y

    @property
    def is_plausible(self) -> bool:
        """Whether a slide can be scanned at this resolution."""
        return all(MPP_MIN <= value <= MPP_MAX for value in (self.x, self.y))

    def times(self, factor_x: float, factor_y: float | None = None) -> Mpp:
        """The mpp of pixels that are `factor` times as large."""
        return Mpp(self.x * factor_x, self.y * (factor_x if factor_y is None else factor_y))

    def __str__(self) -> str:
        return f"{self.x:.4g}" if math.isclose(self.x, self.y, rel_tol=1e-3) else f"{self.x:.4g} x {self.y:.4g}"


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide's pyramid."""

    size: Size
    downsample_x: float
    downsample_y: float

    @property
    def downsample(self) -> float:
        """Level-0 pixels per pixel, the mean of both directions."""
        return math.sqrt(self.downsample_x * self.downsample_y)

    @classmethod
    def from_sizes(cls, level: Size, level0: Size) -> Level:
        """A level from its size and level 0's; see `exact_downsample`."""
        return cls(level, exact_downsample(level0.width, level.width), exact_downsample(level0.height, level.height))


def exact_downsample(length0: int, length: int) -> float:
    """The downsample of a level of `length` pixels from one of `length0`.

    Writers halve and round, so that the quotient of the sizes is near, not at, the true factor. A whole number that
    explains both sizes to within a pixel of the level is taken; else the quotient itself.
    """
    if length <= 0:
        raise OptionError(f"a level needs at least one pixel, got {length}")
    quotient = length0 / length
    whole = round(quotient)
    return float(whole) if whole >= 1 and abs(length0 / whole - length) < 1 else quotient


@dataclass(frozen=True, slots=True)
class Grid:
    """The pixel grid of a tissue map upon a slide.

    Map pixel (x, y) covers the level-0 pixels [x * step_x, (x + 1) * step_x) x [y * step_y, (y + 1) * step_y).

    Attributes:
        size: pixels of the map, the last ones possibly reaching beyond the slide.
        mpp: microns per map pixel.
        step_x: level-0 pixels per map pixel along x.
        step_y: the same along y.
        level: the slide's level that is read.
        zoom_x: pixels of that level per map pixel along x; exactly 1 where the level is read as it is.
        zoom_y: the same along y.
    """

    size: Size
    mpp: Mpp
    step_x: float
    step_y: float
    level: int
    zoom_x: float
    zoom_y: float

    @property
    def resamples(self) -> bool:
        """Whether pixels of the level are resampled."""
        return not (self.zoom_x == 1 and self.zoom_y == 1)

    def source(self, box: Box) -> Box:
        """The pixels of the level that the map pixels of `box` are made of."""
        x, width = source_interval(box.x, box.width, self.zoom_x)
        y, height = source_interval(box.y, box.height, self.zoom_y)
        return Box(x, y, width, height)

    def coarsen(self, factor: int) -> Size:
        """Size of the map at a pyramid level `factor` times as coarse."""
        return Size(ceil_div(self.size.width, factor), ceil_div(self.size.height, factor))


def coarser_grid(grid: Grid, factor: int, levels: Sequence[Level]) -> Grid:
    """The grid whose pixels are `factor` x `factor` pixels of `grid`, read from the coarsest level that is finer.

    Args:
        grid: a map's grid.
        factor: a whole number from 1.
        levels: the slide's levels, finest first.
    """
    step_x, step_y = grid.step_x * factor, grid.step_y * factor
    finer = [i for i, level in enumerate(levels) if level.downsample_x <= step_x and level.downsample_y <= step_y]
    index = max(finer, key=lambda i: levels[i].downsample) if finer else 0
    level = levels[index]
    return Grid(
        grid.coarsen(factor),
        grid.mpp.times(factor),
        step_x,
        step_y,
        index,
        step_x / level.downsample_x,
        step_y / level.downsample_y,
    )


def plan_grid(levels: Sequence[Level], slide_mpp: Mpp, mpp: float) -> Grid:
    """The grid of a map at `mpp`, and the level to read it from.

    A level within `LEVEL_TOLERANCE` of `mpp` (in both directions) is read as it is and gives its own mpp to the map.
    Else the coarsest level that is finer than `mpp`, or level 0 where none is.

    Args:
        levels: the slide's levels, finest first.
        slide_mpp: microns per level-0 pixel.
        mpp: wanted microns per map pixel.
    """
    if not (math.isfinite(mpp) and mpp > 0):
        raise OptionError(f"a map's mpp must be a positive number, got {mpp}")
    level_mpps = [slide_mpp.times(level.downsample_x, level.downsample_y) for level in levels]

    def deviation(value: Mpp) -> float:
        return max(abs(value.x / mpp - 1), abs(value.y / mpp - 1))

    nearest = min(range(len(levels)), key=lambda index: deviation(level_mpps[index]))
    size0 = levels[0].size
    if deviation(level_mpps[nearest]) <= LEVEL_TOLERANCE:
        level = levels[nearest]
        return Grid(level.size, level_mpps[nearest], level.downsample_x, level.downsample_y, nearest, 1.0, 1.0)
    finer = [index for index, value in enumerate(level_mpps) if max(value.x, value.y) <= mpp]
    index = max(finer, key=lambda i: levels[i].downsample) if finer else 0
    step_x, step_y = mpp / slide_mpp.x, mpp / slide_mpp.y
    # A quotient that is whole but for rounding must not add a column of which the slide has nothing.
    width, height = (math.ceil(n / step - 1e-6) for n, step in ((size0.width, step_x), (size0.height, step_y)))
    size = Size(max(1, width), max(1, height))
    return Grid(
        size,
        Mpp(mpp, mpp),
        step_x,
        step_y,
        index,
        step_x / levels[index].downsample_x,
        step_y / levels[index].downsample_y,
    )


def source_interval(start: int, length: int, zoom: float) -> tuple[int, int]:
    """First pixel and count of the source pixels that make output pixels [start, start + length).

    Args:
        start: first output pixel.
        length: number of output pixels.
        zoom: source pixels per output pixel; at 1 and above areas are averaged, below it pixels are interpolated
            between their centres, which takes one more source pixel at either end.
    """
    if zoom < 1:
        first = math.floor((start + 0.5) * zoom - 0.5)
        return first, math.floor((start + length - 0.5) * zoom - 0.5) + 2 - first
    first = math.floor(start * zoom + EDGE)
    return first, max(1, math.ceil((start + length) * zoom - EDGE) - first)
