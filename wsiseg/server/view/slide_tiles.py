"""Tiles of a slide: each level half of the one before, whatever levels the file has."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from wsiseg.arrays import UInt8Array
from wsiseg.geometry import Box, Grid, Size, ceil_div, coarser_grid
from wsiseg.server.view.cases import Case
from wsiseg.slides.base import SlideReader
from wsiseg.slides.overview import read_picture
from wsiseg.slides.sources.blocks import ByteCache

TILE_PX = 512
KEPT_BYTES = 64 * 2**20
"""Encoded tiles that are kept: going back to where one was costs no decoding."""

OVERVIEW_PX = 2048
"""Longest side of the finest level that is read as a whole, since the coarser ones, and a first view, come of it."""

_READERS = 2
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
        self._overview = next(level for level in range(self.levels) if max(self._at(level).size.shape) <= OVERVIEW_PX)
        self._lock = threading.Lock()

    def read(self, level: int, x: int, y: int) -> bytes | None:
        """The tile in column `x` and row `y` of a level, whose pixels are 2**level of level 0; None where none is.

        Raises:
            SlideError: the file can no longer be read.
        """
        if not 0 <= level < self.levels:
            return None
        grid = self._at(level)
        box = Box(x * TILE_PX, y * TILE_PX, TILE_PX, TILE_PX).intersect(Box.from_size(grid.size))
        if x < 0 or y < 0 or box.is_empty:
            return None
        place = (level, x, y)
        kept = self._kept.get(place)
        if kept is None and level >= self._overview:
            with self._lock:  # who asks meanwhile waits for it, and does not read all of it again
                kept = self._kept.get(place) or self._read_overview()[place]
        elif kept is None:
            kept = encode_jpeg(self._pixels(grid, box))
            self._kept.put(place, kept)
        return kept

    def _at(self, level: int) -> Grid:
        return coarser_grid(self._grid, 2**level, self._slide.levels)

    def _read_overview(self) -> dict[tuple[int, int, int], bytes]:
        """All tiles of the coarse levels, out of one read: a file's coarsest level may be far finer than they are."""
        grid = self._at(self._overview)
        picture = np.empty((*grid.size.shape, 3), np.uint8)
        with ThreadPoolExecutor(_READERS) as readers:
            boxes = list(_tiles(grid.size).values())
            for box, pixels in zip(boxes, readers.map(lambda box: self._pixels(grid, box), boxes), strict=True):
                picture[box.slices()] = pixels
        found = {}
        for level in range(self._overview, self.levels):
            if level > self._overview:
                size = self._at(level).size
                picture = np.asarray(Image.fromarray(picture).resize((size.width, size.height), Image.Resampling.BOX))
            height, width = picture.shape[:2]
            for (x, y), box in _tiles(Size(width, height)).items():
                found[level, x, y] = encode_jpeg(np.ascontiguousarray(picture[box.slices()]))
        for place, content in found.items():
            self._kept.put(place, content)
        return found

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


def _tiles(size: Size) -> dict[tuple[int, int], Box]:
    """All tiles of a level, by column and row."""
    whole = Box.from_size(size)
    columns, rows = ceil_div(size.width, TILE_PX), ceil_div(size.height, TILE_PX)
    return {
        (x, y): Box(x * TILE_PX, y * TILE_PX, TILE_PX, TILE_PX).intersect(whole)
        for y in range(rows)
        for x in range(columns)
    }


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
