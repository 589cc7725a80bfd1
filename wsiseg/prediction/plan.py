"""What of a slide will be read: its grid, its tissue, and the patches that hold some of it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.errors import OptionError
from wsiseg.geometry import Grid
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
    """

    grid: Grid
    mask: TissueMask
    tiles: TileGrid
    selected: npt.NDArray[np.bool_]
    white: WhiteRule | None = None


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
    return Plan(grid, mask, tiles, mask.select(grid, tiles), rule)
