"""What of a slide will be read: its grid, its tissue, and the patches that hold some of it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import BoolArray
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Grid
from wsiseg.slides.base import SlideReader
from wsiseg.tiling.grid import TileGrid, Tiling
from wsiseg.tissue.find import tissue_mask
from wsiseg.tissue.light import light_of
from wsiseg.tissue.mask import TissueMask
from wsiseg.tissue.white import WhiteRule

LONGEST_PX = 2**20
"""Beyond this a wrong mpp is likelier than such a map."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The part of a slide that will be read: tissue, and patches on the map's grid.

    Attributes:
        grid: the map's grid.
        mask: the tissue.
        tiles: the grid of patches.
        selected: (rows, columns) bool, the patches with tissue.
        white: what of the tissue is white and gets no class; None where all of it gets one.
        unseen: level-0 places that could not be read when the tissue was sought: nobody knows whether any is there.
    """

    grid: Grid
    mask: TissueMask
    tiles: TileGrid
    selected: npt.NDArray[np.bool_]
    white: WhiteRule | None = None
    unseen: tuple[Box, ...] = ()

    def unseen_in(self, box: Box) -> BoolArray:
        """What of a box, in map pixels, has its middle in a place that is `unseen`, (height, width) bool."""
        found = np.zeros(box.size.shape, np.bool_)
        for place in self.unseen:
            left, right = (round(edge / self.grid.step_x) for edge in (place.x, place.right))
            top, bottom = (round(edge / self.grid.step_y) for edge in (place.y, place.bottom))
            inside = Box(left, top, max(0, right - left), max(0, bottom - top)).intersect(box)
            if not inside.is_empty:
                found[inside.slices(box)] = True
        return found


def plan(slide: SlideReader, mpp: float, tiling: Tiling, tissue: str | Path = "otsu", *, white: bool = False) -> Plan:
    """Find the tissue of a slide and the patches that hold some of it.

    Args:
        slide: open for reading.
        mpp: microns per map pixel that the model wants.
        tiling: size and overlap of its patches.
        tissue: "otsu", "none", or the path of a GeoJSON or PNG; see `tissue_mask`.
        white: whether white inside the tissue is to get no class; see `wsiseg.tissue.white`.

    Raises:
        OptionError: a map of more than `LONGEST_PX` a side.
        MissingMppError: the slide's mpp is unknown.
    """
    grid = slide.grid(mpp)
    if max(grid.size.width, grid.size.height) > LONGEST_PX:
        raise OptionError(f"a map of {grid.size} pixels is beyond {LONGEST_PX} a side; is the slide's mpp right?")
    mask = tissue_mask(slide, tissue)
    tiles = tiling.grid(grid.size)
    rule = WhiteRule.from_light(light_of(slide, mask), grid.mpp) if white else None
    unseen = tuple(sorted(slide.damage.boxes, key=lambda box: (box.y, box.x, box.width, box.height)))
    return Plan(grid, mask, tiles, mask.select(grid, tiles), rule, unseen)
