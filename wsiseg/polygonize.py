"""Class map -> polygons that cover exactly its pixels, read block by block, joined across the seams."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely
from rasterio.transform import Affine

from wsiseg.class_map import BLOCK, ClassMapSource, blocks
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size

Polygons = npt.NDArray[Any]
"""(N,) array of shapely polygons."""


def polygonize(source: ClassMapSource, class_count: int, block: int = BLOCK) -> dict[int, Polygons]:
    """The polygons of each class: one for each set of pixels joined through edges, in map pixels.

    GDAL's polygonizer (connectivity 4; with 8 its rings cross themselves) cuts each block. Fragments that reach a seam
    are united class by class; all others are done and never touched again. The result is valid, has no vertex but
    the corners of the outline, and does not depend on `block`: rings begin at a fixed vertex, and polygons are in the
    order of their bounds.

    Args:
        source: the class map.
        class_count: K; each of the classes 1..K is in the result, with an empty array where the map has none of it.
        block: side of the blocks that are read, in map pixels. Memory: some 12 bytes for each of its pixels, and
            the polygons.

    Raises:
        OptionError: the map holds a value above K.
    """
    done: dict[int, list[Polygons]] = defaultdict(list)
    open_: dict[int, list[Polygons]] = defaultdict(list)
    holes: dict[int, list[Polygons]] = defaultdict(list)
    for box in blocks(source.size, block):
        classes = source.read(box)
        require_known(int(classes.max(initial=0)), class_count)
        for index, polygons in _cut(classes, box).items():
            at_seam = _reaches_seam(polygons, box, source.size)
            done[index].append(polygons[~at_seam])
            filled, inner = _without_inner_holes(polygons[at_seam], box, source.size)
            open_[index].append(filled)
            holes[index].append(inner)
    return {
        index: _order(
            np.concatenate([_pierce(_unite(open_.pop(index, [])), holes.pop(index, [])), *done.pop(index, [])])
        )
        for index in range(1, class_count + 1)
    }


def require_known(highest: int, class_count: int) -> None:
    """Raise `OptionError` where a class map holds a value that the class table does not have."""
    if highest > class_count:
        raise OptionError(f"the class map holds the value {highest}, its class table has {class_count} classes")


def _cut(classes: npt.NDArray[np.uint8], box: Box) -> dict[int, Polygons]:
    """The polygons of one block, by class, in pixels of the map."""
    found: dict[int, list[Any]] = defaultdict(list)
    shapes = rasterio.features.shapes(
        np.ascontiguousarray(classes),
        mask=classes > 0,
        connectivity=4,
        transform=Affine.translation(box.x, box.y),
    )
    for outline, value in shapes:
        shell, *holes = outline["coordinates"]
        found[int(value)].append(shapely.Polygon(shell, holes))
    return {index: np.array(polygons, dtype=object) for index, polygons in found.items()}


def _reaches_seam(polygons: Polygons, box: Box, size: Size) -> npt.NDArray[np.bool_]:
    """Which polygons touch a side of their block that is not a side of the map."""
    x0, y0, x1, y1 = shapely.bounds(polygons).T
    at_seam = np.zeros(len(polygons), bool)
    if box.x > 0:
        at_seam |= x0 == box.x
    if box.y > 0:
        at_seam |= y0 == box.y
    if box.right < size.width:
        at_seam |= x1 == box.right
    if box.bottom < size.height:
        at_seam |= y1 == box.bottom
    return at_seam


def _without_inner_holes(polygons: Polygons, box: Box, size: Size) -> tuple[Polygons, Polygons]:
    """The fragments with those holes filled that reach no seam, and those holes, as polygons.

    No union changes such a hole, nor what lies in it, and uniting takes memory for every vertex that takes part.
    """
    filled, inner = [], [np.empty(0, object)]
    for polygon in polygons:
        rings = np.array([shapely.Polygon(ring) for ring in polygon.interiors], dtype=object)
        at_seam = _reaches_seam(rings, box, size) if len(rings) else np.empty(0, bool)
        kept = [ring for ring, stays in zip(polygon.interiors, at_seam, strict=True) if stays]
        filled.append(shapely.Polygon(polygon.exterior, kept))
        inner.append(rings[~at_seam])
    return np.array(filled, dtype=object), np.concatenate(inner)


def _pierce(polygons: Polygons, holes: list[Polygons]) -> Polygons:
    """The polygons with the holes that were filled before they were united."""
    inner = np.concatenate([np.empty(0, object), *holes])
    if not len(inner):
        return polygons
    # A point inside the hole is inside one of the filled polygons, and in no other.
    which, owner = shapely.STRtree(polygons).query(shapely.point_on_surface(inner), predicate="within")
    order = np.argsort(owner, kind="stable")
    which, owner = which[order], owner[order]
    starts = np.searchsorted(owner, np.arange(len(polygons) + 1))
    pierced = []
    for index, polygon in enumerate(polygons):
        mine = inner[which[starts[index] : starts[index + 1]]]
        rings = [*polygon.interiors, *shapely.get_exterior_ring(mine)]
        pierced.append(shapely.Polygon(polygon.exterior, rings) if len(mine) else polygon)
    return np.array(pierced, dtype=object)


def _unite(fragments: list[Polygons]) -> Polygons:
    """Join fragments that share an edge; a shared corner is no join. Vertices on the seams go."""
    together = [part for part in fragments if len(part)]
    if not together:
        return np.empty(0, object)
    united = shapely.disjoint_subset_union_all(np.concatenate(together))
    return np.asarray(shapely.get_parts(shapely.simplify(united, 0)))


def _order(polygons: Polygons) -> Polygons:
    """Polygons and their vertices in an order that depends on nothing but their outlines."""
    if not len(polygons):
        return polygons
    normal = np.asarray(shapely.normalize(polygons))
    x0, y0, x1, y1 = shapely.bounds(normal).T
    # Two polygons of one class may have the same bounds; then (rarely) their text decides.
    order = np.lexsort((x1, y1, x0, y0))
    bounds = np.stack([x0, y0, x1, y1], axis=1)[order]
    if (bounds[1:] == bounds[:-1]).all(axis=1).any():
        order = np.array(sorted(order, key=lambda i: (y0[i], x0[i], y1[i], x1[i], shapely.to_wkb(normal[i]))))
    return np.asarray(normal[order])
