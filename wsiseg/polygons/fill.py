"""Polygons -> a mask of pixels: which centres lie inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import shapely

from wsiseg.arrays import BoolArray, Float64Array, Int64Array
from wsiseg.geometry import Size

_MOST_CROSSINGS = 4_000_000
"""Crossings of edges with rows that are held at once, some 100 bytes each; one long edge may have more."""


def fill_areas(areas: Iterable[shapely.Polygon | shapely.MultiPolygon], size: Size, step: float) -> BoolArray:
    """The pixels whose centres lie inside any of the areas.

    A centre exactly on a border belongs to the area to its left, or below it: areas that share a border neither
    overlap nor leave a gap.

    Args:
        areas: valid polygons; they may overlap and reach beyond the picture.
        size: of the picture.
        step: units of the areas per pixel; pixel (x, y) has its centre at ((x + 0.5) * step, (y + 0.5) * step).

    Returns:
        (height, width) bool.
    """
    mask = np.zeros(size.shape, np.bool_)
    for area in areas:
        _fill(mask, area, step)
    return mask


def _fill(mask: BoolArray, area: shapely.Polygon | shapely.MultiPolygon, step: float) -> None:
    """Add one area to the mask.

    A pixel is inside where an odd number of edges lies to its left; so holes and parts need no care of their own.
    """
    edges = _edges(area) * (1 / step)
    if not len(edges):
        return
    height, width = mask.shape
    left, right = _first_centre(np.array([edges[:, ::2].min(), edges[:, ::2].max()])).clip(0, width).tolist()
    top, bottom = _first_centre(np.array([edges[:, 1].min(), edges[:, 3].max()])).clip(0, height).tolist()
    # One column more than the area has takes the edges behind its last pixel.
    odd = np.zeros((bottom - top, right - left + 1), np.uint8)
    for rows, columns in _crossings(edges, top, bottom):
        # Counted modulo 256, which keeps what matters: odd or even.
        np.add.at(odd, (rows - top, np.clip(columns, left, right) - left), np.uint8(1))
    np.cumsum(odd, axis=1, dtype=np.uint8, out=odd)
    mask[top:bottom, left:right] |= (odd[:, :-1] & 1).view(np.bool_)


def _edges(area: shapely.Polygon | shapely.MultiPolygon) -> Float64Array:
    """(n, 4) x and y of the upper end, x and y of the lower end, of every edge that is not horizontal."""
    rings = shapely.get_rings(shapely.get_parts(area))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    edges: Float64Array = np.hstack((points[:-1], points[1:]))[ring[:-1] == ring[1:]]
    edges = edges[edges[:, 1] != edges[:, 3]]
    upward = edges[:, 1] > edges[:, 3]
    edges[upward] = edges[upward][:, [2, 3, 0, 1]]
    return edges


def _crossings(edges: Float64Array, top: int, bottom: int) -> Iterator[tuple[Int64Array, Int64Array]]:
    """Rows from `top` to before `bottom` whose centres edges cross, and the first columns to the right of each edge."""
    first = _first_centre(edges[:, 1]).clip(top, bottom)
    counts = _first_centre(edges[:, 3]).clip(top, bottom) - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(edges):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _MOST_CROSSINGS, side="right")))
        part, count = edges[start:stop], counts[start:stop]
        edge = np.repeat(np.arange(stop - start), count)
        rows = first[start:stop][edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        x, y, x_end, y_end = part[edge].T
        yield rows, np.floor((rows + 0.5 - y) * (x_end - x) / (y_end - y) + x + 0.5).astype(np.int64)
        start = stop


def _first_centre(bound: Float64Array) -> Int64Array:
    """The first pixel whose centre is at the bound or behind it."""
    return np.ceil(bound - 0.5).astype(np.int64)
