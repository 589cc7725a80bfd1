"""Where the tissue is: a mask from an overview of the slide, or of one's own, asked in map pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from wsiseg.errors import OptionError
from wsiseg.slides.base import SlideReader
from wsiseg.slides.overview import OVERVIEW_MPP, read_overview
from wsiseg.tissue.bit_mask import BitMask
from wsiseg.tissue.mask import TissueMask
from wsiseg.tissue.parts import large_parts
from wsiseg.tissue.stain import find_glass, stained

MIN_TISSUE_UM2 = 20_000.0
"""Specks smaller than this are dirt; a square of 0.14 mm."""

MIN_HOLE_UM2 = 10_000.0
"""Holes smaller than this belong to the tissue: a fat cell, a small lumen, a crack; a square of 0.1 mm."""

_SPECK_SHARE = 0.02
_GLASS_PIXELS = 2**24


def tissue_mask(
    slide: SlideReader,
    method: str | Path = "otsu",
    *,
    min_tissue_um2: float = MIN_TISSUE_UM2,
    min_hole_um2: float = MIN_HOLE_UM2,
) -> TissueMask:
    """Find the tissue of a slide.

    Args:
        slide: an open slide whose mpp is known.
        method: "otsu" (stained tissue in an overview, see `wsiseg.tissue.stain`), "none" (all of the slide), or the
            path of a GeoJSON (areas in level-0 pixels, as QuPath exports them) or of a PNG of the slide's aspect (dark
            is not tissue). Areas and pictures of one's own are taken as they are.
        min_tissue_um2: specks smaller than this are left out, at most 2 % of the slide.
        min_hole_um2: holes smaller than this are filled, at most 2 % of the slide.

    Raises:
        OptionError: no such method or file, or one that does not fit the slide.
        MissingMppError: the slide's mpp is unknown.
    """
    if min(min_tissue_um2, min_hole_um2) < 0:
        raise OptionError("areas of specks and holes cannot be negative")
    name = str(method)
    if name == "none":
        return TissueMask(BitMask(np.ones((1, 1), np.bool_)), slide.size.width, slide.size.height, slide.size, "none")
    if name == "otsu":
        return _stained(slide, OVERVIEW_MPP, min_tissue_um2, min_hole_um2)
    lower = name.lower()
    if lower.endswith((".geojson", ".geojson.gz", ".json")):
        from wsiseg.tissue.own import from_geojson  # noqa: PLC0415  (shapely is for files of one's own alone)

        return from_geojson(slide, Path(name))
    if lower.endswith(".png"):
        from wsiseg.tissue.own import from_png  # noqa: PLC0415

        return from_png(slide, Path(name))
    raise OptionError(f"expected otsu, none, or a file .geojson or .png as tissue, got {name!r}")


def _stained(slide: SlideReader, mpp: float, min_tissue_um2: float, min_hole_um2: float) -> TissueMask:
    grid, overview = read_overview(slide, mpp)
    glass = find_glass(overview)
    mask = stained(overview, grid.mpp.mean, glass)
    del overview  # parts are labelled in as much memory again
    largest = _SPECK_SHARE * mask.size
    per_px = grid.mpp.pixel_area_um2
    mask = large_parts(mask, min(min_tissue_um2 / per_px, largest), corners=True)
    np.logical_not(mask, out=mask)
    mask = large_parts(mask, min(min_hole_um2 / per_px, largest), corners=False)
    np.logical_not(mask, out=mask)
    return TissueMask(BitMask(mask), grid.step_x, grid.step_y, slide.size, "otsu", glass)


def stained_tissue(slide: SlideReader) -> TissueMask:
    """The stained tissue of a slide, of an overview that is coarser than usual where that were large."""
    area_um2 = slide.size.area * slide.mpp.pixel_area_um2
    return _stained(slide, max(OVERVIEW_MPP, math.sqrt(area_um2 / _GLASS_PIXELS)), MIN_TISSUE_UM2, MIN_HOLE_UM2)
