"""Where a map's pixels lie: in um as its store says, and upon the slide in level-0 pixels. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.errors import MapError, OptionError
from wsiseg.geometry import EDGE, Box, Grid, Mpp

MAX_UM = 1e9


@dataclass(frozen=True, slots=True)
class Transform:
    """From pixels of a level to um, as OME-Zarr has it: pixel (y, x) has its *centre* at (y, x) * scale + translation.

    Level 0 has no translation, so that its first pixel covers [-scale / 2, scale / 2).

    Attributes:
        scale: (y, x), um per pixel.
        translation: (y, x), um.
    """

    scale: tuple[float, float]
    translation: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class MapRegion:
    """A part of a class map, and its place upon the slide.

    Pixel (row, column) of `classes` covers the level-0 pixels from x + column * step_x to x + (column + 1) * step_x,
    and likewise down.

    Attributes:
        classes: (height, width) uint8.
        level: of the map's pyramid.
        box: the part, in pixels of that level.
        x: left side, in level-0 pixels of the slide.
        y: upper side.
        step_x: level-0 pixels along the width of a pixel.
        step_y: along its height.
    """

    classes: npt.NDArray[np.uint8]
    level: int
    box: Box
    x: float
    y: float
    step_x: float
    step_y: float

    @property
    def affine(self) -> tuple[float, float, float, float, float, float]:
        """(a, b, c, d, e, f) of x = a * column + b * row + c, y = d * column + e * row + f, as rasterio's `Affine`."""
        return self.step_x, 0.0, self.x, 0.0, self.step_y, self.y


def box_of_slide(box: Box, grid: Grid, level: int) -> tuple[Box, tuple[float, float, float, float]]:
    """The pixels of a level that a box of the slide touches.

    Args:
        box: in level-0 pixels, of at least one pixel.
        grid: the map's.
        level: of the map's pyramid.

    Returns:
        The box in pixels of the level, and its (x, y, step_x, step_y) in level-0 pixels.

    Raises:
        OptionError: it touches none.
    """
    step_x, step_y = grid.step_x * 2**level, grid.step_y * 2**level
    left, top = math.floor(box.x / step_x + EDGE), math.floor(box.y / step_y + EDGE)
    right, bottom = math.ceil(box.right / step_x - EDGE), math.ceil(box.bottom / step_y - EDGE)
    size = grid.coarsen(2**level)
    wanted = Box(left, top, max(0, right - left), max(0, bottom - top)).intersect(Box.from_size(size))
    if box.is_empty or wanted.is_empty:
        width, height = grid.size.width * grid.step_x, grid.size.height * grid.step_y
        raise OptionError(
            f"a box of {box.size} level-0 px at ({box.x}, {box.y}) does not touch the map, "
            f"which covers {width:.0f} x {height:.0f} level-0 px from (0, 0); give one that does"
        )
    return wanted, (wanted.x * step_x, wanted.y * step_y, step_x, step_y)


def transform_of(path: Path, attributes: Mapping[str, Any], level: int, mpp: Mpp) -> Transform:
    """A level's transform from the attributes of an OME-Zarr image, its last two axes y and x.

    Args:
        path: of the map, for messages.
        attributes: of the class map's group.
        level: its number.
        mpp: of level 0; taken where the store says nothing.

    Raises:
        MapError: what stands there is no transform.
    """
    try:
        (image,) = attributes["ome"]["multiscales"]
        steps = image["datasets"][level]["coordinateTransformations"]
        found = {step["type"]: [float(value) for value in step[step["type"]]][-2:] for step in steps}
        scale_y, scale_x = found["scale"]
        translation_y, translation_x = found.get("translation", [0.0, 0.0])
    except KeyError as error:
        if error.args != ("ome",):
            raise _no_transform(path, level) from error
        scale_y, scale_x = mpp.y * 2**level, mpp.x * 2**level
        translation_y = translation_x = 0.0
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise _no_transform(path, level) from error
    if not all(0 < scale < MAX_UM for scale in (scale_y, scale_x)) or not all(
        abs(value) < MAX_UM for value in (translation_y, translation_x)
    ):
        raise _no_transform(path, level)
    return Transform((scale_y, scale_x), (translation_y, translation_x))


def _no_transform(path: Path, level: int) -> MapError:
    return MapError(f"{path} is damaged: level {level} of its class map has no usable scale; write the map anew")
