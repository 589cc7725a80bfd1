"""All of a slide at a coarse scale: for finding tissue, and for pictures."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import UInt8Array
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Grid
from wsiseg.slides.base import SlideReader
from wsiseg.slides.expected import expected
from wsiseg.system.control_group import usable_cpus
from wsiseg.system.memory import trim_memory
from wsiseg.system.threads import read_ahead

OVERVIEW_MPP = 8.0
"""Microns per pixel of the overview that tissue is looked for in."""


_SHORT_SIDE = 64


_OVERVIEW_PIXELS = 2**28


_BAND_PIXELS = 4_000_000


def read_overview(slide: SlideReader, mpp: float = OVERVIEW_MPP) -> tuple[Grid, npt.NDArray[np.uint8]]:
    """All of a slide at about `mpp` microns per pixel, (h, w, 3), and its grid; finer where that were a few pixels.

    Read in blocks, so that memory stays bounded where there is no pyramid.
    """
    side_um = min(slide.size.width * slide.mpp.x, slide.size.height * slide.mpp.y)
    grid = slide.grid(max(min(mpp, side_um / _SHORT_SIDE), min(slide.mpp.x, slide.mpp.y)))
    if grid.size.area > _OVERVIEW_PIXELS:
        raise OptionError(
            f"{slide.name} is {slide.size} px of {slide.mpp} um: an overview of {grid.size} px is more than memory is "
            "meant for; is the resolution right? State it with --mpp, or give the tissue with --tissue"
        )
    overview = np.empty((*grid.size.shape, 3), np.uint8)
    side = max(1, int(math.sqrt(_BAND_PIXELS / max(1.0, grid.zoom_x * grid.zoom_y))))

    whole = Box.of(grid.size)

    def read(box: Box) -> None:
        overview[box.slices()] = slide.read(grid, box).pixels

    corners = ((x, y) for y in range(0, grid.size.height, side) for x in range(0, grid.size.width, side))
    boxes = (Box(x, y, side, side).intersect(whole) for x, y in corners)
    workers = min(4, usable_cpus())
    for _ in read_ahead(expected(slide, grid, boxes, lambda box: box), read, workers=workers, ahead=2 * workers):
        pass
    slide.forget()
    trim_memory()
    return grid, overview


READ_PIXELS = 2**24
"""Pixels of the slide's level that one read may hold: 50 MB."""


def read_picture(slide: SlideReader, grid: Grid, area: Box | None = None) -> UInt8Array:
    """A slide at a coarse grid, read in pieces so that a slide without a pyramid fits.

    Args:
        slide: open for reading.
        grid: its pixels are those of the picture.
        area: the part to read, in those pixels; None reads all of it.

    Returns:
        (height, width, 3) uint8.
    """
    side = max(16, int((READ_PIXELS / (grid.zoom_x * grid.zoom_y)) ** 0.5))
    area = Box.of(grid.size) if area is None else area
    out = np.empty((*area.size.shape, 3), np.uint8)
    for y in range(area.y, area.bottom, side):
        for x in range(area.x, area.right, side):
            box = Box(x, y, side, side).intersect(area)
            out[box.slices(area)] = slide.read(grid, box).pixels
    return out
