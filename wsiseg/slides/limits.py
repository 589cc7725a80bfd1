"""What a slide may claim of its size: beyond, a file is damaged or hostile, and reading it would take all memory.

A TIFF states sizes in a few bytes, which nothing else in the file has to bear out.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsiseg.errors import SlideError
from wsiseg.geometry import Size

MAX_SIDE_PX = 2**21
"""Half a metre of glass at 0.25 um per pixel; ten times the side of the largest slides."""

MAX_AREA_PX = 2**38
"""275 gigapixels, seven times the largest slides."""

MAX_LEVELS = 64

DEFAULT_TILE, MIN_TILE = 256, 8

MAX_DECODED_PX = 2**26
"""As `MAX_TILE_PX`, for OpenSlide, which ends the whole process where it cannot have the memory: 0.3 GB as RGBA."""

MAX_TILE_BYTES = 2**28
"""Compressed bytes of a tile that OpenSlide reads, unless the whole file has more."""

MAX_TILE_PX = 2**28
"""Pixels that are decoded at once, since a file stores them as one piece: 0.8 GB as RGB."""

MAX_PICTURE_PX = 2**26
"""Pixels of a label, macro or thumbnail."""


def check_sizes(name: str, sizes: Sequence[Size]) -> None:
    """Raise `SlideError` where levels have no pixels, or more than any slide has."""
    if not 1 <= len(sizes) <= MAX_LEVELS:
        raise SlideError(f"{name} has {len(sizes)} levels, expected 1 to {MAX_LEVELS}; it is damaged")
    for size in sizes:
        if min(size.shape) < 1 or max(size.shape) > MAX_SIDE_PX or size.area > MAX_AREA_PX:
            raise SlideError(f"{name} states a size of {size} px, which no slide has; it is damaged")


def tile_size(width: float | None, height: float | None) -> Size:
    """The size of a source tile as a file states it, `DEFAULT_TILE` a side where it states none, or a silly one."""
    sides = [DEFAULT_TILE if value is None or value < MIN_TILE else int(value) for value in (width, height)]
    return Size(*sides)


def check_tiles(name: str, tiles: Sequence[Size], most_px: int = MAX_TILE_PX) -> None:
    """Raise `SlideError` where a level is stored in pieces too large to be decoded."""
    for tile in tiles:
        if tile.area > most_px:
            raise SlideError(
                f"{name} is stored in pieces of {tile} px, too large to be decoded; convert it to a tiled TIFF"
            )


def check_picture(name: str, size: Size) -> None:
    """Raise `SlideError` on a label, macro or thumbnail too large to be held in memory."""
    if min(size.shape) < 1 or size.area > MAX_PICTURE_PX:
        raise SlideError(f"{name} holds a picture of {size} px, more than {MAX_PICTURE_PX} in all; it is left unread")
