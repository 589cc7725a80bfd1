"""Polygons of all classes that share their borders, simplified together so that neighbours neither gap nor overlap."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import shapely

from wsiseg.geometry import Mpp
from wsiseg.polygons.frame import Frame
from wsiseg.polygons.polygonize import Polygons

TOLERANCE_STEP, TOLERANCE_LIMIT = math.sqrt(2), 16.0
"""Per step, and at most, the tolerance grows by these factors to meet a budget of vertices."""


class Coverage:
    """Polygons of all classes that share their borders.

    Attributes:
        polygons: (N,) the polygons.
        indices: (N,) their classes.
    """

    def __init__(self, polygons: Polygons, indices: npt.NDArray[np.uint8]) -> None:
        self.polygons = polygons
        self.indices = indices

    @classmethod
    def from_polygons(cls, found: dict[int, Polygons], frame: Frame | None = None) -> Coverage:
        """A valid coverage from exact polygons: every vertex of one is a vertex of all whose outline it lies on.

        Args:
            found: by class index, with upright and level edges between whole numbers, not negative.
            frame: corners beyond it are moved onto it, which cuts such polygons off there. At most the last column
                and row of pixels may reach beyond.
        """
        polygons = add_shared_vertices(np.concatenate([np.empty(0, object), *found.values()]))
        indices = np.concatenate([np.full(len(part), index, np.uint8) for index, part in found.items()])
        if frame is not None and len(polygons):
            polygons = np.asarray(shapely.transform(polygons, frame.bound))
        return cls(polygons, indices)

    def vertices(self, last_class: int) -> int:
        """Vertices of all rings of classes 1..`last_class`, the closing ones included."""
        return int(shapely.get_num_coordinates(self.polygons[self.indices <= last_class]).sum())

    def count(self, last_class: int) -> int:
        """Number of polygons of classes 1..`last_class`."""
        return int(np.count_nonzero(self.indices <= last_class))

    def areas_px(self) -> npt.NDArray[np.float64]:
        """(256,) area by class index."""
        areas = np.asarray(shapely.area(self.polygons), np.float64)
        return np.asarray(np.bincount(self.indices, weights=areas, minlength=256), np.float64)

    def least_vertices(self, last_class: int) -> int:
        """Vertices of classes 1..`last_class` that stay whatever the tolerance, the closing ones included.

        Where more than two borders meet, simplifying leaves a vertex in every outline; and a ring keeps three corners.
        """
        if not len(self.polygons):
            return 0
        _, xy, (ring_starts, polygon_starts) = shapely.to_ragged_array(self.polygons)
        _, place = np.unique(xy[:, 0] + 1j * xy[:, 1], return_inverse=True)
        own = np.ones(len(xy), bool)
        own[np.asarray(ring_starts, np.int64)[1:] - 1] = False  # closing ones
        at = np.flatnonzero(own)
        low, high = np.minimum(place[at], place[at + 1]), np.maximum(place[at], place[at + 1])
        count = int(place.max()) + 1
        borders = np.unique(low * count + high)  # of two polygons once
        meeting = np.bincount(np.concatenate([borders // count, borders % count]), minlength=count) > 2
        ring = np.repeat(np.arange(len(ring_starts) - 1), np.diff(ring_starts))
        kept = np.bincount(ring[at], meeting[place[at]], minlength=len(ring_starts) - 1)
        classes = np.repeat(self.indices, np.diff(polygon_starts))
        return int((np.maximum(kept, 3) + 1)[classes <= last_class].sum())

    def simplify(self, tolerance_px: float) -> None:
        """Simplify. A second call with a larger tolerance continues from here, with the result of a single call."""
        if len(self.polygons):
            self.polygons = shapely.coverage_simplify(self.polygons, tolerance_px)

    def simplify_to(self, tolerance_um: float, mpp: Mpp, max_vertices: int, last_class: int) -> float:
        """Simplify, raising the tolerance until few enough vertices are left; the tolerance reached, in um.

        It is not raised where that cannot help.
        """
        limit = max(tolerance_um, mpp.mean / 2) * TOLERANCE_LIMIT
        if self.vertices(last_class) > max_vertices and self.least_vertices(last_class) > max_vertices:
            limit = 0.0
        while len(self.polygons):
            self.simplify(tolerance_um / mpp.mean)
            larger = max(tolerance_um, mpp.mean / 2) * TOLERANCE_STEP
            if self.vertices(last_class) <= max_vertices or larger > limit * 1.001:
                break
            tolerance_um = larger
        return tolerance_um

    def repair(self) -> tuple[float, int, int]:
        """Make what is invalid valid, drop what has no area: (px2 dropped, number dropped, number repaired)."""
        wrong = ~shapely.is_valid(self.polygons) | (shapely.area(self.polygons) == 0)
        if not wrong.any():
            return 0.0, 0, 0
        dropped_px, dropped, repaired = 0.0, 0, 0
        polygons, indices = list(self.polygons[~wrong]), list(self.indices[~wrong])
        for polygon, index in zip(self.polygons[wrong], self.indices[wrong], strict=True):
            parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(polygon, method="structure")))
            parts = [p for p in parts if p.geom_type == "Polygon" and p.area > 0]
            repaired += bool(parts)
            dropped += not parts
            dropped_px += 0.0 if parts else abs(polygon.area)
            polygons += parts
            indices += [index] * len(parts)
        self.polygons, self.indices = np.array(polygons, object), np.array(indices, np.uint8)
        return dropped_px, dropped, repaired

    def by_class(self, class_count: int) -> dict[int, list[shapely.Polygon]]:
        """The polygons of each of the classes 1..`class_count`."""
        return {index: list(self.polygons[self.indices == index]) for index in range(1, class_count + 1)}


def add_shared_vertices(polygons: Polygons) -> Polygons:
    """Give each outline a vertex wherever another polygon has one on it.

    Where three regions meet, one of them may pass in a straight line, without a vertex; as a coverage that is invalid.
    So a vertex is set at every pixel corner of every outline, and those stay at which any polygon has a corner.

    Args:
        polygons: (N,) polygons with upright and level edges between whole numbers, not negative.
    """
    if not len(polygons):
        return polygons
    # Rounded: the points of `segmentize` miss the pixel corners by an ulp.
    dense = shapely.transform(shapely.segmentize(polygons, 1.0), np.round)
    kind, xy, (ring_starts, polygon_starts) = shapely.to_ragged_array(dense)
    corners, points = (_keys(coordinates) for coordinates in (shapely.get_coordinates(polygons), xy))
    kept = np.isin(points, corners)
    before = np.concatenate([[0], np.cumsum(kept)])  # kept points before each point
    return np.asarray(shapely.from_ragged_array(kind, xy[kept], (before[ring_starts], polygon_starts)))


def _keys(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """One whole number for each point (N, 2) of whole numbers."""
    whole = xy.astype(np.int64)
    return (whole[:, 1] << 32) | whole[:, 0]
