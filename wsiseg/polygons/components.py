"""The components of a class map, found block by block: exact, whatever the block size.

A *component* is a largest set of pixels of one class (1..K) joined through pixel edges. The map is read once; what is
kept are tables, a few dozen bytes for each component and each pair of neighbours. Reading and labelling a block again
gives the same fragments in the same order, so no label image has to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from wsiseg.arrays import Int64Array, UInt8Array
from wsiseg.geometry import Box, Size
from wsiseg.polygons.class_map import BLOCK, ClassMapSource, blocks


@dataclass(frozen=True, eq=False)
class Components:
    """All components of a class map, in the order of their first pixels (row by row), and who touches whom.

    Attributes:
        classes: (N,) class of each component, 1..K.
        areas_px: (N,) number of pixels of each.
        pairs: (M, 2) components i < j of different classes that share at least one pixel edge.
        borders_px: (M,) number of pixel edges that each pair shares.
        block_starts: for each block, in the order of `blocks`, the first of its entries in `block_components`.
        block_components: component of each block's fragments, in the order of `label_fragments`.
        block: side of the blocks in map pixels.
    """

    classes: UInt8Array
    areas_px: Int64Array
    pairs: Int64Array
    borders_px: Int64Array
    block_starts: Int64Array
    block_components: Int64Array
    block: int

    def __len__(self) -> int:
        return len(self.classes)


def label_fragments(classes: UInt8Array) -> Int64Array:
    """Number the components inside one block 1, 2, …; 0 stays 0. (h, w) -> (h, w), the same for the same block."""
    if not classes.any():
        return np.zeros(classes.shape, np.int64)  # most of a slide is glass
    labels = label(classes, background=0, connectivity=1)  # type: ignore[no-untyped-call]
    return np.asarray(labels, dtype=np.int64)


class _Table:
    """What is gathered over the blocks: fragments, those that belong together, and lengths of shared borders."""

    def __init__(self) -> None:
        self.joins: list[Int64Array] = []
        self.pairs: list[Int64Array] = []
        self.lengths: list[Int64Array] = []

    def add_edges(self, a: Int64Array, b: Int64Array, class_a: UInt8Array, class_b: UInt8Array) -> None:
        """Note the pixel edges between fragments `a` and `b` (arrays of one shape, 0 = none) of these classes."""
        both = (a > 0) & (b > 0) & (a != b)
        low, high = np.minimum(a[both], b[both]), np.maximum(a[both], b[both])
        same = class_a[both] == class_b[both]
        pairs, lengths = _count(low, high)
        joined, _ = _count(low[same], high[same])
        self.joins.append(joined)
        self.pairs.append(pairs)
        self.lengths.append(lengths)


def _count(low: Int64Array, high: Int64Array, weights: Int64Array | None = None) -> tuple[Int64Array, Int64Array]:
    """The distinct pairs (M, 2) in rising order and how often (or with what sum of weights) each occurs (M,)."""
    if not low.size:
        return np.empty((0, 2), np.int64), np.empty(0, np.int64)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    first = np.flatnonzero(np.r_[True, (np.diff(low) != 0) | (np.diff(high) != 0)])
    counts = np.add.reduceat(np.ones_like(low) if weights is None else weights[order], first)
    return np.stack([low[first], high[first]], axis=1), counts


def find_components(source: ClassMapSource, block: int = BLOCK) -> Components:
    """All components of a class map, reading it once; the result does not depend on `block` but for its last fields.

    Args:
        source: the class map.
        block: side of the blocks that are read, in map pixels.
    """
    size = source.size
    table = _Table()
    fragments = [(np.zeros(1, np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64))]  # fragment 0: no component
    starts, total = [], 1
    # Fragments and classes of the last row above and of the last column to the left.
    above, above_class = np.zeros(size.width, np.int64), np.zeros(size.width, np.uint8)
    left, left_class = np.zeros(0, np.int64), np.zeros(0, np.uint8)
    for box in blocks(size, block):
        classes = source.read(box)
        local = label_fragments(classes)
        fragments.append(_describe(local, classes, box, size))
        starts.append(total)
        own = np.where(local > 0, local + (total - 1), 0)
        total += len(fragments[-1][0])
        table.add_edges(own[:, :-1], own[:, 1:], classes[:, :-1], classes[:, 1:])
        table.add_edges(own[:-1], own[1:], classes[:-1], classes[1:])
        columns = slice(box.x, box.right)
        table.add_edges(above[columns], own[0], above_class[columns], classes[0])
        if box.x > 0:
            table.add_edges(left, own[:, 0], left_class, classes[:, 0])
        above[columns], above_class[columns] = own[-1], classes[-1]
        left, left_class = own[:, -1], classes[:, -1]
    return _merge_fragments(table, fragments, starts, total, block)


def _describe(
    local: Int64Array, classes: UInt8Array, box: Box, size: Size
) -> tuple[UInt8Array, Int64Array, Int64Array]:
    """Class, area and first pixel (its number in the whole map, row by row) of each fragment of a block."""
    flat = local.ravel()
    areas = np.bincount(flat)
    first = np.zeros(len(areas), np.int64)
    first[flat[::-1]] = np.arange(flat.size - 1, -1, -1)  # of several assignments the last one holds
    rows, columns = np.divmod(first[1:], box.width)
    keys = (rows + box.y) * size.width + columns + box.x
    return classes.ravel()[first[1:]], areas[1:].astype(np.int64), keys


def _merge_fragments(
    table: _Table, fragments: list[tuple[Any, Any, Any]], starts: list[int], total: int, block: int
) -> Components:
    """Join the fragments of each component across the seams, and number components by their first pixels."""
    fragment_class = np.concatenate([f[0] for f in fragments])
    fragment_area = np.concatenate([f[1] for f in fragments])
    fragment_key = np.concatenate([f[2] for f in fragments])
    fragment_key[0] = -1
    joins = np.concatenate(table.joins) if table.joins else np.empty((0, 2), np.int64)
    graph = coo_array((np.ones(len(joins), np.int8), (joins[:, 0], joins[:, 1])), shape=(total, total))
    count, group = connected_components(graph, directed=False)
    key = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(key, group, fragment_key)
    rank = np.empty(count, np.int64)
    rank[np.argsort(key)] = np.arange(-1, count - 1)  # fragment 0 comes first and becomes -1
    component = rank[group]
    areas = np.zeros(count, np.int64)
    np.add.at(areas, component[1:], fragment_area[1:])
    classes = np.zeros(count, np.uint8)
    classes[component[1:]] = fragment_class[1:]
    pairs, borders = np.empty((0, 2), np.int64), np.empty(0, np.int64)
    if table.pairs:
        ends = component[np.concatenate(table.pairs)]  # (M', 2)
        lengths = np.concatenate(table.lengths)
        apart = ends[:, 0] != ends[:, 1]
        ends, lengths = np.sort(ends[apart], axis=1), lengths[apart]
        pairs, borders = _count(ends[:, 0], ends[:, 1], lengths)
    return Components(
        classes[: count - 1],
        areas[: count - 1],
        pairs,
        borders,
        np.asarray(starts, np.int64),
        component,
        block,
    )
