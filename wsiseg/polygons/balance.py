"""Borders of a coverage moved by fractions of a cell, so that each class has the area that it has in the map.

Small regions that joined a neighbour, and corners that simplification cut, take area from some classes and give it to
others. Here it goes back: all borders between two classes are shifted by one distance, from the class that has too
much to the one that has too little, by least squares over all classes. A vertex that several polygons share moves for
all of them, so that neighbours still neither gap nor overlap; where borders would cross, they stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array, csr_array, diags_array

from wsiseg.arrays import Float64Array, Int64Array, UInt8Array
from wsiseg.polygons.coverage import Coverage
from wsiseg.polygons.frame import Frame

STEPS, ROUNDS = 8, 5
"""Most steps to the wanted areas, and most times that crossed borders are put back and the others moved again."""

CLOSE = 1e-4
"""Share of its area by which a class may miss what is wanted of it before another step is made."""

SMALLEST_SHARE = 0.1
"""A ring keeps at least this share of its area."""


@dataclass(frozen=True, eq=False)
class _Net:
    """The vertices of a coverage, each place once, and what is joined to what.

    Attributes:
        xy: (P, 2) places.
        place: (N,) place of each vertex of each ring, closing ones left out.
        before: (N,) place of the vertex before it in its ring.
        after: (N,) of the one after it.
        classes: (N,) class of the polygon.
        ring: (N,) number of the ring.
    """

    xy: Float64Array
    place: Int64Array
    before: Int64Array
    after: Int64Array
    classes: UInt8Array
    ring: Int64Array

    def gradient(self, xy: Float64Array) -> tuple[csr_array, csr_array]:
        """How the area of each class grows as places move along x and along y: two (P, 256)."""
        way = (xy[self.after] - xy[self.before]) / 2
        shape = (len(xy), 256)
        pairs = (self.place, self.classes)
        return coo_array((way[:, 1], pairs), shape).tocsr(), coo_array((-way[:, 0], pairs), shape).tocsr()

    def areas(self, xy: Float64Array) -> Float64Array:
        """(256,) area of each class."""
        a, b = xy[self.place], xy[self.after]
        signed = (a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]) / 2
        return np.asarray(np.bincount(self.classes, signed, minlength=256), np.float64)

    def edges(self) -> Int64Array:
        """(E, 2) pairs of places that a border joins, each once."""
        low, high = np.minimum(self.place, self.after), np.maximum(self.place, self.after)
        keys = np.unique(low * len(self.xy) + high)
        return np.stack([keys // len(self.xy), keys % len(self.xy)], axis=1)

    def ring_areas(self, xy: Float64Array) -> Float64Array:
        """(R,) area of each ring, holes negative."""
        a, b = xy[self.place], xy[self.after]
        return np.asarray(np.bincount(self.ring, (a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]) / 2), np.float64)


def balance(coverage: Coverage, wanted_px: Float64Array, limit_px: float, frame: Frame) -> float:
    """Move borders so that classes have the areas that are wanted, as far as they may.

    Args:
        coverage: valid; its polygons are replaced.
        wanted_px: (256,) area by class index; of classes without a polygon nothing can be made.
        limit_px: no vertex moves farther. 0 leaves all as it is.
        frame: vertices on its sides, and on those of the map, stay where they are.

    Returns:
        How far a vertex was moved at most, in pixels.
    """
    if not len(coverage.polygons) or limit_px <= 0:
        return 0.0
    kind, xy, offsets = shapely.to_ragged_array(shapely.orient_polygons(coverage.polygons))
    net, place = _net(xy, offsets, coverage.indices)
    at_side = (net.xy <= 0) | (net.xy >= [frame.width, frame.height])
    fixed = np.asarray(at_side.any(axis=1), bool)
    edges = net.edges()
    for _ in range(ROUNDS):
        moved = _move(net, wanted_px, limit_px, fixed)
        wrong = _wrong(net, moved, edges)
        if not len(wrong):
            polygons = np.asarray(shapely.from_ragged_array(kind, moved[place], offsets))
            invalid = ~shapely.is_valid(polygons)
            if not invalid.any():
                coverage.polygons = polygons
                return float(np.hypot(*(moved - net.xy).T).max())
            wrong = np.unique(place[invalid[_polygon_of_point(offsets)]])
        fixed[wrong] = True
    return 0.0


def _polygon_of_point(offsets: tuple[Int64Array, Int64Array]) -> Int64Array:
    """The polygon of each vertex of a ragged array."""
    ring_starts, polygon_starts = (np.asarray(part, np.int64) for part in offsets)
    of_ring = np.repeat(np.arange(len(polygon_starts) - 1), np.diff(polygon_starts))
    return np.asarray(np.repeat(of_ring, np.diff(ring_starts)))


def _net(xy: Float64Array, offsets: tuple[Int64Array, Int64Array], indices: UInt8Array) -> tuple[_Net, Int64Array]:
    """The net of rings, and the place of every vertex, closing ones included."""
    ring_starts = np.asarray(offsets[0], np.int64)
    _, first, place = np.unique(xy[:, 0] + 1j * xy[:, 1], return_index=True, return_inverse=True)
    counts = np.diff(ring_starts)
    classes = indices[_polygon_of_point(offsets)]
    ring = np.repeat(np.arange(len(counts)), counts)
    own = np.ones(len(xy), bool)
    own[ring_starts[1:] - 1] = False  # closing ones
    before = np.concatenate([place[:1], place[:-1]])
    before[ring_starts[:-1]] = place[ring_starts[1:] - 2]
    after = np.concatenate([place[1:], place[-1:]])
    return _Net(xy[first], place[own], before[own], after[own], classes[own], ring[own]), place


def _move(net: _Net, wanted: Float64Array, limit: float, fixed: npt.NDArray[np.bool_]) -> Float64Array:
    """Places after steps of least squares towards the wanted areas."""
    present = np.unique(net.classes)
    xy = net.xy
    for _ in range(STEPS):
        missing = (wanted - net.areas(xy))[present]
        if (np.abs(missing) <= CLOSE * np.maximum(wanted[present], 1)).all():
            break
        along_x, along_y = (part[:, present] for part in net.gradient(xy))
        length = np.sqrt((along_x.multiply(along_x) + along_y.multiply(along_y)).max(axis=1).toarray().ravel())
        at_limit = np.hypot(*(xy - net.xy).T) >= limit * (1 - 1e-9)
        free = ~fixed & ~at_limit & (length > 0)
        # By a vertex's own length: then each moves by one distance across its border, however long that is.
        weight = diags_array(np.where(free, 1 / np.where(length > 0, length, 1), 0.0))
        system = (along_x.T @ weight @ along_x + along_y.T @ weight @ along_y).toarray()
        push = np.round(np.linalg.lstsq(system, missing, rcond=1e-9)[0], 9)
        step = np.stack([weight @ (along_x @ push), weight @ (along_y @ push)], axis=1)
        way = xy + step - net.xy
        far = np.hypot(*way.T)
        xy = net.xy + way * np.where(far > limit, limit / np.where(far > 0, far, 1), 1.0)[:, None]
    return xy


def _wrong(net: _Net, xy: Float64Array, edges: Int64Array) -> Int64Array:
    """Places that must stay: ends of edges that now cross or touch another one, and rings that are turned over."""
    moved = (xy != net.xy).any(axis=1)
    lines = shapely.linestrings(xy[edges])
    active = np.flatnonzero(moved[edges].any(axis=1))
    one, other = shapely.STRtree(lines).query(lines[active])
    one = active[one]
    apart = (edges[one][:, :, None] != edges[other][:, None, :]).all(axis=(1, 2))
    one, other = one[apart], other[apart]
    touching = shapely.intersects(lines[one], lines[other])
    before, after = net.ring_areas(net.xy), net.ring_areas(xy)
    turned = np.sign(before) * after < SMALLEST_SHARE * np.abs(before)
    return np.unique(
        np.concatenate([edges[one[touching]].ravel(), edges[other[touching]].ravel(), net.place[turned[net.ring]]])
    )
