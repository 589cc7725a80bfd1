"""Class map -> polygons of each class, in map pixels: exact ones, or simplified ones that keep shared borders shared.

Both read the map block by block. Exact polygons in memory cost what their vertices take (`exact_geojson` writes them
without having them). Simplified ones are simplified all together, since only then do neighbours keep one common
border; that takes up to 300 bytes for each corner of the exact outlines (`levels` finds a level where they fit).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import shapely

from wsiseg.arrays import Float64Array
from wsiseg.classes import ClassTable
from wsiseg.errors import OptionError
from wsiseg.geometry import Mpp
from wsiseg.polygons.class_map import BLOCK, ArrayMap, ClassMapSource, Known
from wsiseg.polygons.components import find_components
from wsiseg.polygons.drawing import (
    MIN_AREA_UM2,
    Budget,
    Drawing,
    Simplified,
    VectorSummary,
    default_tolerance_um,
)
from wsiseg.polygons.frame import Frame
from wsiseg.polygons.levels import HalvedMap
from wsiseg.polygons.limits import AREA_CHANGE, REGIONS_AT_MOST
from wsiseg.polygons.polygonize import polygonize

__all__ = [
    "AREA_CHANGE",
    "MIN_AREA_UM2",
    "ArrayMap",
    "Budget",
    "ClassMapSource",
    "VectorSummary",
    "default_tolerance_um",
    "exact_polygons",
    "simplified_polygons",
]


def exact_polygons(source: ClassMapSource, classes: ClassTable, block: int = BLOCK) -> dict[int, shapely.MultiPolygon]:
    """One MultiPolygon for each class, in map pixels, that covers exactly the class's pixels.

    Args:
        source: the class map.
        classes: its class table.
        block: side of the blocks that are read, in map pixels; the result does not depend on it.

    Returns:
        By class index, every class of the table; an empty MultiPolygon where the map has none of it. Each is valid,
        without vertices on straight lines or seams. White has none.
    """
    found = polygonize(source, len(classes), block)
    return {index: shapely.multipolygons(polygons) for index, polygons in found.items()}


def simplified_polygons(
    source: ClassMapSource,
    classes: ClassTable,
    mpp: Mpp,
    tolerance_um: float | None = None,
    min_area_um2: float | None = None,
    *,
    budget: Budget | None = None,
    block: int = BLOCK,
    frame: Frame | None = None,
    map_px: Float64Array | None = None,
) -> Simplified:
    """Polygons of each class, in map pixels, with small regions absorbed and borders simplified together.

    Small components take the class with which they share the longest border (`sieve.absorb`); white counts as a class
    there, whose polygons are left out in the end. Then all borders are simplified as one coverage (Visvalingam-Whyatt:
    a vertex goes while the triangle it spans is smaller than the tolerance squared), so that neighbours neither gap nor
    overlap.

    What is not stated is chosen: minimum areas by class, so that components that go take only a small share of each,
    and larger ones, and larger tolerances, step by step until the budget is met. With the minimum area chosen, borders
    are then shifted (`balance`), by the tolerance at most, until each class has the area that it has in the map. Where
    one still differs by more than `AREA_CHANGE`, finer choices are tried as far as the budget goes.

    A map of more than `REGIONS_AT_MOST` regions, such as noise, is halved until it has no more; its areas stay those to
    be kept. So the time is bounded by the vertices of no more regions than that.

    Args:
        source: the class map.
        classes: its class table.
        mpp: microns per map pixel.
        tolerance_um: tolerance in um, None to choose from `default_tolerance_um`; 0 keeps every corner (and QuPath
            mishandles single polygons with long staircases: write `exact_polygons` instead).
        min_area_um2: smallest component that stays, in um2, of every class; 0 keeps all. None to choose.
        budget: most vertices and polygons; None for the defaults of `Budget`.
        block: side of the blocks that are read, in map pixels; the result does not depend on it.
        frame: where the slide ends; polygons end there. None where the map ends.
        map_px: (256,) the area that each class should have, in pixels, by index; None counts it in `source`.

    Returns:
        The polygons by class index (every class of the table), and what was done to reach them.
    """
    for name, value in (("tolerance", tolerance_um), ("minimum area", min_area_um2)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise OptionError(f"the {name} must be 0 or more, got {value}")
    frame = frame or Frame.of_size(source.size)
    budget = budget or Budget()
    drawing = _drawing(source, len(classes), mpp, budget, block, frame, map_px)
    halvings = 0
    while len(drawing.components) > REGIONS_AT_MOST:
        halvings += 1
        source, frame, mpp = HalvedMap(source), frame.halved(), mpp.times(2)
        drawing = _drawing(source, len(classes), mpp, budget, block, frame, drawing.map_px / 4)
    if halvings:
        # Nothing finer than a pixel is there any more.
        tolerance_um = None if tolerance_um is None else max(tolerance_um, mpp.mean)
        min_area_um2 = None if min_area_um2 is None else max(min_area_um2, mpp.pixel_area_um2)
    found, summary = drawing.best(tolerance_um, min_area_um2)
    if halvings:
        found = {index: _enlarged(polygons, 2**halvings) for index, polygons in found.items()}
    return found, replace(summary, halvings=halvings)


def _drawing(
    source: ClassMapSource,
    class_count: int,
    mpp: Mpp,
    budget: Budget,
    block: int,
    frame: Frame,
    map_px: Float64Array | None,
) -> Drawing:
    """Arguments that simplify a map; see `simplified_polygons`."""
    known = Known(source, class_count, class_count + 1, frame.pixels)
    components = find_components(known, block)
    if map_px is None:
        counts = np.bincount(components.classes, components.areas_px, minlength=256).astype(np.int64)
        map_px = frame.areas_px(known, counts)
    return Drawing(known, components, mpp, budget, block, frame, map_px)


def _enlarged(polygons: list[shapely.Polygon], factor: int) -> list[shapely.Polygon]:
    """Polygons in pixels that are smaller by `factor`."""
    return list(shapely.transform(np.array(polygons, object), lambda xy: xy * factor)) if polygons else []
