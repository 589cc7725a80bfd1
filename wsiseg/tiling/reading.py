"""From tiles to patches: neighbouring tiles out of one read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import BoolArray, UInt8Array
from wsiseg.geometry import Box, Grid
from wsiseg.slides.base import SlideReader
from wsiseg.tiling.grid import Tile


@dataclass(frozen=True, slots=True)
class Patch:
    """The pixels of one tile.

    Attributes:
        tile: its place.
        pixels: (patch_px, patch_px, 3) uint8, white outside the slide; a view into a larger read.
        readable: (patch_px, patch_px) bool, false where the slide is damaged; None where all is readable.
        bright: (patch_px, patch_px) bool, where it may be white; None where nobody asked.
    """

    tile: Tile
    pixels: npt.NDArray[np.uint8]
    readable: npt.NDArray[np.bool_] | None
    bright: npt.NDArray[np.bool_] | None = None


def read_block(
    slide: SlideReader, grid: Grid, tiles: Sequence[Tile], bright: Callable[[UInt8Array], BoolArray] | None = None
) -> list[Patch]:
    """The patches of neighbouring tiles, in their order, out of one read of the box around them.

    With `bright`, which says of pixels (h, w, 3) where they may be white, (h, w) bool, patches hold what it says: it is
    asked here, since pixels that patches share are looked at once.

    Raises:
        SlideError: the slide as a whole can no longer be read. Damage is marked in the patches instead.
    """
    box = box_around(tiles)
    region = slide.read(grid, box)
    found = None if bright is None else bright(region.pixels)
    patches = []
    for tile in tiles:
        place = tile.box.slices(box)
        damaged = None if region.damaged is None else region.damaged[place]
        readable = None if damaged is None or not damaged.any() else ~damaged
        patches.append(Patch(tile, region.pixels[place], readable, None if found is None else found[place]))
    return patches


def box_around(tiles: Sequence[Tile]) -> Box:
    """The smallest box that holds all of some tiles, in map pixels."""
    x, y = min(tile.box.x for tile in tiles), min(tile.box.y for tile in tiles)
    right, bottom = max(tile.box.right for tile in tiles), max(tile.box.bottom for tile in tiles)
    return Box(x, y, right - x, bottom - y)
