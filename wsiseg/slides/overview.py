"""All of a slide at a coarse scale: for finding tissue, and for pictures."""

from __future__ import annotations

import math

import numpy as np

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
"""Pixels of the slide's level that a thread reads at once: 12 MB."""

_THREADS = 4


def read_overview(slide: SlideReader, mpp: float = OVERVIEW_MPP) -> tuple[Grid, UInt8Array]:
    """Read a whole slide at about `mpp` microns per pixel: its grid and (h, w, 3) pixels; finer for tiny slides.

    Raises:
        OptionError: it would be too large for memory.
    """
    side_um = min(slide.size.width * slide.mpp.x, slide.size.height * slide.mpp.y)
    grid = slide.grid(max(min(mpp, side_um / _SHORT_SIDE), min(slide.mpp.x, slide.mpp.y)))
    if grid.size.area > _OVERVIEW_PIXELS:
        raise OptionError(
            f"{slide.name} is {slide.size} px of {slide.mpp} um: an overview of {grid.size} px is more than memory is "
            "meant for; is the resolution right? State it with --mpp, or give the tissue with --tissue"
        )
    return grid, read_picture(slide, grid)


def read_picture(slide: SlideReader, grid: Grid, area: Box | None = None) -> UInt8Array:
    """A slide at a coarse grid, read in blocks by several threads, so that one without a pyramid fits into memory.

    Args:
        slide: open for reading; what it keeps of its file is freed afterwards.
        grid: its pixels are those of the picture.
        area: the part to read, in those pixels; None reads all of it.

    Returns:
        (height, width, 3) uint8.
    """
    area = Box.from_size(grid.size) if area is None else area
    picture = np.empty((*area.size.shape, 3), np.uint8)
    side = max(1, int(math.sqrt(_BAND_PIXELS / max(1.0, grid.zoom_x * grid.zoom_y))))

    def read(box: Box) -> None:
        picture[box.slices(area)] = slide.read(grid, box).pixels

    corners = ((x, y) for y in range(area.y, area.bottom, side) for x in range(area.x, area.right, side))
    boxes = (Box(x, y, side, side).intersect(area) for x, y in corners)
    workers = min(_THREADS, usable_cpus())
    for _ in read_ahead(expected(slide, grid, boxes, lambda box: box), read, workers=workers, ahead=2 * workers):
        pass
    slide.forget()
    trim_memory()
    return picture
