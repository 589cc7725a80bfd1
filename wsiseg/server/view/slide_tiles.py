"""Tiles of a slide: each level half of the one before, whatever levels the file has."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from wsiseg.arrays import UInt8Array
from wsiseg.geometry import Box, Grid, ceil_div, coarser_grid
from wsiseg.server.view.cases import Case
from wsiseg.slides.base import SlideReader
from wsiseg.slides.overview import read_picture
from wsiseg.slides.sources.blocks import ByteCache

TILE_PX = 512
KEPT_BYTES = 64 * 2**20
"""Encoded tiles that are kept: going back to where one was costs no decoding."""

_AT_ONCE_PX = 2**22
"""Pixels of the file that are read at once; more are read in parts, so that no tile takes much memory."""

_QUALITY = 85
_HATCH_PX = 12
_HATCH = ((205, 205, 205), (120, 120, 120))
"""Colours of what cannot be decoded: no tissue looks like it."""


class SlideTiles:
    """Tiles of one slide as JPEG; several threads may ask at once.

    Args:
        case: with its slide.
    """

    def __init__(self, case: Case) -> None:
        assert case.slide is not None
        self._slide: SlideReader = case.slide
        self._grid = Grid(case.size, case.mpp, 1.0, 1.0, 0, 1.0, 1.0)
        self._kept: ByteCache[tuple[int, int, int]] = ByteCache(KEPT_BYTES)
        self.levels = levels(max(case.size.width, case.size.height))

    def read(self, level: int, x: int, y: int) -> bytes | None:
        """The tile in column `x` and row `y` of a level, whose pixels are 2**level of level 0; None where none is.

        Raises:
            SlideError: the file can no longer be read.
        """
        if not 0 <= level < self.levels:
            return None
        grid = coarser_grid(self._grid, 2**level, self._slide.levels)
        box = Box(x * TILE_PX, y * TILE_PX, TILE_PX, TILE_PX).intersect(Box.from_size(grid.size))
        if x < 0 or y < 0 or box.is_empty:
            return None
        kept = self._kept.get((level, x, y))
        if kept is None:
            kept = encode_jpeg(self._pixels(grid, box))
            self._kept.put((level, x, y), kept)
        return kept

    def _pixels(self, grid: Grid, box: Box) -> UInt8Array:
        """(h, w, 3) uint8; what cannot be decoded is hatched."""
        if grid.source(box).size.area > _AT_ONCE_PX:
            return read_picture(self._slide, grid, box)
        region = self._slide.read(grid, box)
        if region.damaged is None:
            return region.pixels
        rows, columns = np.ogrid[box.y : box.bottom, box.x : box.right]
        stripes = (rows + columns) // _HATCH_PX % 2
        return np.where(region.damaged[..., None], np.array(_HATCH, np.uint8)[stripes], region.pixels)


def levels(longest_px: int) -> int:
    """How many levels there are until one tile holds all of it."""
    count = 1
    while ceil_div(longest_px, 2 ** (count - 1)) > TILE_PX:
        count += 1
    return count


def encode_jpeg(pixels: UInt8Array) -> bytes:
    """A picture (h, w, 3) as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
