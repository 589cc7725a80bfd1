"""A tissue map as a picture of any size, whole or a part of it, upon its slide or upon white."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wsiseg.arrays import UInt8Array
from wsiseg.classes import WHITE_VALUE, ClassTable
from wsiseg.errors import OptionError
from wsiseg.export.overlay import borders, overlay
from wsiseg.geometry import EDGE, Box, Grid, Mpp, coarser_grid
from wsiseg.slides.base import SlideReader
from wsiseg.slides.overview import read_picture
from wsiseg.tissue_map.placement import box_of_slide
from wsiseg.tissue_map.reader import TissueMap


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A picture of a map.

    Attributes:
        image: (height, width, 3) uint8.
        mpp: microns per pixel of the picture.
        colors: of each class, as it is drawn: the mean of what lies inside its borders, colour and slide mixed.
    """

    image: UInt8Array
    mpp: Mpp
    colors: tuple[tuple[int, int, int], ...]


def class_colors(classes: ClassTable) -> UInt8Array:
    """(256, 3) uint8: the colour of each value of a class map, white where it is no class."""
    table = np.full((256, 3), 255, np.uint8)
    for tissue_class in classes:
        table[tissue_class.index] = tissue_class.color
    return table


def draw(
    tissue_map: TissueMap,
    slide: SlideReader | None = None,
    box: Box | None = None,
    *,
    max_px: int = 1024,
    opacity: float = 0.4,
) -> Drawn:
    """Draw the classes in colour, each class's border in full colour; what has no class shows the slide, or white.

    Args:
        tissue_map: open for reading.
        slide: the one that the map was made from; another is refused.
        box: in level-0 pixels of the slide; None draws all of it.
        max_px: longest side of the picture. It is reached wherever the map has as many pixels, and a map is never
            enlarged.
        opacity: of the colours inside, 0 to 1.

    Raises:
        OptionError: an option outside its range, a box outside the map, or another slide.
        SlideError: map or slide is damaged.
    """
    if max_px < 1 or not 0 <= opacity <= 1:
        raise OptionError(
            f"a picture needs a side of 1 px or more and an opacity of 0 to 1, got {max_px} and {opacity}"
        )
    if slide is not None:
        require_same_slide(tissue_map, slide)
    area = Box.from_size(tissue_map.size) if box is None else box_of_slide(box, tissue_map.grid, 0)[0]
    factor, place = _pixels(area, max_px)
    class_map = _classes(tissue_map, place, factor)
    if slide is None:
        below = np.full((*class_map.shape, 3), 255, np.uint8)
    else:
        below = read_picture(slide, _scaled(tissue_map.grid, factor, slide), place)
    image = overlay(below, class_map, tissue_map.classes, opacity)
    colors = _drawn_colors(image, below, class_map, tissue_map.classes, opacity)
    return Drawn(image, tissue_map.mpp.times(factor), colors)


def require_same_slide(tissue_map: TissueMap, slide: SlideReader) -> None:
    """Refuse a slide that a map was not made from, told by its quick hash."""
    made_from = tissue_map.metadata["slide"]
    if slide.quick_hash() != made_from["quick_hash"]:
        size = (
            f"{made_from['width']} x {made_from['height']} px"
            if {"width", "height"} <= set(made_from)
            else "another size"
        )
        raise OptionError(
            f"{tissue_map.path.name} was made from {made_from['name']} ({size}), "
            f"not from {slide.name} ({slide.size} px); give the slide that it was made from"
        )


def _pixels(area: Box, max_px: int) -> tuple[float, Box]:
    """Map pixels along a pixel of the picture, and its place among such pixels, counted from the map's corner.

    Args:
        area: in map pixels.
        max_px: longest side of the picture.
    """
    longest = max(area.width, area.height)
    if longest <= max_px:
        return 1.0, area
    # A part that begins within a pixel of the picture takes one more of them.
    fitting = max_px if (area.x, area.y) == (0, 0) else max(1, max_px - 1)
    factor = longest / fitting
    left, top = math.floor(area.x / factor + EDGE), math.floor(area.y / factor + EDGE)
    right, bottom = math.ceil(area.right / factor - EDGE), math.ceil(area.bottom / factor - EDGE)
    width, height = (min(max(1, length), max_px) for length in (right - left, bottom - top))
    return factor, Box(left, top, width, height)


def _classes(tissue_map: TissueMap, place: Box, factor: float) -> UInt8Array:
    """The class at the middle of each pixel of the picture, from the coarsest level that is no coarser than it."""
    level = min(int(math.log2(factor) + EDGE), tissue_map.levels - 1)
    size = tissue_map.grid.coarsen(2**level)
    step = factor / 2**level
    rows = ((np.arange(place.y, place.bottom) + 0.5) * step).astype(np.int64).clip(0, size.height - 1)
    columns = ((np.arange(place.x, place.right) + 0.5) * step).astype(np.int64).clip(0, size.width - 1)
    x, y = int(columns[0]), int(rows[0])
    pixels = tissue_map.read(Box(x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y), level)
    return pixels[np.ix_(rows - y, columns - x)]


def _scaled(grid: Grid, factor: float, slide: SlideReader) -> Grid:
    """A map's grid with pixels `factor` times as large, read from the level of the slide that fits."""
    size = type(grid.size)(math.ceil(grid.size.width / factor), math.ceil(grid.size.height / factor))
    larger = Grid(
        size, grid.mpp.times(factor), grid.step_x * factor, grid.step_y * factor, grid.level, grid.zoom_x, grid.zoom_y
    )
    return coarser_grid(larger, 1, slide.levels)


def _drawn_colors(
    image: UInt8Array, below: UInt8Array, class_map: UInt8Array, classes: ClassTable, opacity: float
) -> tuple[tuple[int, int, int], ...]:
    """The mean colour inside each class's borders; of a class without an inside, what its colour would be here."""
    inside = ~borders(class_map)
    tissue = (class_map > 0) & (class_map != WHITE_VALUE)
    ground = below[tissue].mean(axis=0) if tissue.any() else np.full(3, 255.0)
    found = []
    for tissue_class in classes:
        mine = inside & (class_map == tissue_class.index)
        mixed = np.array(tissue_class.color) * opacity + ground * (1 - opacity)
        mean = image[mine].mean(axis=0) if mine.any() else mixed
        red, green, blue = np.rint(mean).astype(int).tolist()
        found.append((red, green, blue))
    return tuple(found)
