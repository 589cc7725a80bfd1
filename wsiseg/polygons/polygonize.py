"""Class map -> polygons in memory that cover exactly its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsiseg.polygons.class_map import BLOCK, ClassMapSource
from wsiseg.polygons.outlines.reader import Outlines, trace_outlines

Polygons = npt.NDArray[Any]
"""(N,) array of shapely polygons."""


def polygonize(source: ClassMapSource, class_count: int, block: int = BLOCK) -> dict[int, Polygons]:
    """The polygons of each class: one for each set of pixels joined through edges, in map pixels.

    The result is valid, has no vertex but the corners of the outlines, and does not depend on `block`: rings begin at
    their first corner, and polygons are in the order of their first pixels, both row by row.

    Args:
        source: the class map.
        class_count: K; each of the classes 1..K is in the result, with an empty array where the map has none of it.
        block: most rows that are read at once.

    Raises:
        OptionError: the map holds a value above K.
    """
    with trace_outlines(source, class_count, block) as outlines:
        return {index: _polygons(outlines, index) for index in range(1, class_count + 1)}


def _polygons(outlines: Outlines, index: int) -> Polygons:
    """The polygons of one class, (N,)."""
    xy, rings, polygons = [np.empty((0, 2))], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    vertices = 0
    for part, ring_starts, polygon_starts in outlines.read(index):
        xy.append(part.astype(np.float64))
        rings.append(ring_starts + vertices)
        polygons.append(polygon_starts + vertices)
        vertices += len(part)
    ring_starts = np.append(np.concatenate(rings), vertices)
    polygon_starts = np.searchsorted(ring_starts, np.append(np.concatenate(polygons), vertices))
    return np.asarray(
        shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, np.concatenate(xy), (ring_starts, polygon_starts.astype(np.int64))
        )
    )
