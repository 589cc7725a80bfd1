"""Small components of a class map give way to their neighbours: exact, streamed, whatever the block size.

`absorb` decides on the tables of `find_components` which component takes which class; `SievedMap` applies that when
the map is read again.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float64Array
from wsiseg.geometry import Box, Size, ceil_div
from wsiseg.polygons.class_map import ClassMapSource
from wsiseg.polygons.components import Components, label_fragments


@dataclass(frozen=True, eq=False)
class Absorption:
    """Which class each component has after small ones gave way.

    Attributes:
        classes: (N,) class of each component of `Components`; 0 where it was dropped.
        regions: number of components that the map has afterwards, white ones apart.
        absorbed: number of components that took another class.
        absorbed_px: their pixels.
        dropped: number of components that became 0, since nothing else touched them, or white.
        dropped_px: their pixels.
    """

    classes: npt.NDArray[np.uint8]
    regions: int
    absorbed: int
    absorbed_px: int
    dropped: int
    dropped_px: int


def absorb(components: Components, min_area_px: float | Float64Array, white: int | None = None) -> Absorption:
    """Let small components take the class with which they share the longest border.

    The smallest one comes first (of equals the one whose first pixel comes first). With its new class it becomes one
    component with the neighbours of that class, and counts with their area from then on. Of two classes with equally
    long borders the one with the largest neighbour wins, then the lower index. Class 0 is no neighbour: it may be
    damaged or unread, and is never overwritten; a small component that nothing but 0 touches becomes 0 itself.

    Args:
        components: of the map.
        min_area_px: components below it are small; one area for all, or (256,) one for each class by its index.
        white: the value that stands for white, None where there is none. It is treated as any class: small white
            holes close, and small pieces of tissue in white become white.
    """
    graph = _Regions(components, np.broadcast_to(np.asarray(min_area_px, np.float64), 256))
    classes, roots = graph.settle()
    changed = classes != components.classes
    gone = (classes == 0) | (classes == (0 if white is None else white))
    dropped, absorbed = changed & gone, changed & ~gone
    return Absorption(
        classes,
        len(np.unique(roots[~gone])),
        int(absorbed.sum()),
        int(components.areas_px[absorbed].sum()),
        int(dropped.sum()),
        int(components.areas_px[dropped].sum()),
    )


def min_areas_px(components: Components, least_px: float, share: float) -> Float64Array:
    """The smallest area that stays, for each class, so that none loses much.

    Args:
        components: of the map.
        least_px: never more than this.
        share: components that go take at most this share of their class's area; 1 takes `least_px` for all.

    Returns:
        (256,) by class index. Below 1 the largest component of every class stays.
    """
    found = np.full(256, float(least_px))
    for index in np.unique(components.classes) if share < 1 else ():
        areas = np.sort(components.areas_px[components.classes == index])
        lost = np.cumsum(areas)
        first_kept = int(np.searchsorted(lost, share * lost[-1], side="right"))
        found[index] = min(least_px, float(areas[min(first_kept, len(areas) - 1)]))
    return found


class _Regions:
    """Components that grow together: a forest of them, and for each small one its neighbours and shared borders."""

    def __init__(self, components: Components, min_area_px: Float64Array) -> None:
        self.min_area_px: list[float] = min_area_px.tolist()
        # Lists: single entries of an array take several times as long to read.
        self.parent = list(range(len(components)))
        self.area: list[int] = components.areas_px.tolist()
        self.klass: list[int] = components.classes.tolist()
        small = components.areas_px < min_area_px[components.classes]
        self.neighbours: dict[int, dict[int, int]] = {int(i): {} for i in np.flatnonzero(small)}
        touching = small[components.pairs].any(axis=1) if len(components.pairs) else np.zeros(0, bool)
        for (i, j), length in zip(
            components.pairs[touching].tolist(), components.borders_px[touching].tolist(), strict=True
        ):
            if small[i]:
                self.neighbours[i][j] = length
            if small[j]:
                self.neighbours[j][i] = length

    def root(self, i: int) -> int:
        """The region that component `i` belongs to now."""
        top = i
        while self.parent[top] != top:
            top = self.parent[top]
        while self.parent[i] != top:
            self.parent[i], i = top, self.parent[i]
        return top

    def settle(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Merge until no small region is left; the class and the region of every component."""
        queue = [(self.area[i], i) for i in self.neighbours]
        heapq.heapify(queue)
        while queue:
            area, i = heapq.heappop(queue)
            if i not in self.neighbours or self.area[i] != area:
                continue  # merged, or grown, since it was queued
            merged = self._give_way(i)
            if merged in self.neighbours:
                heapq.heappush(queue, (self.area[merged], merged))
        roots = np.array([self.root(i) for i in range(len(self.parent))], np.int64)
        return np.asarray(self.klass, np.uint8)[roots], roots

    def _give_way(self, i: int) -> int:
        """Merge region `i` into the neighbours of its best class; the region that comes of it."""
        borders: dict[int, int] = {}  # by region
        for j, length in self.neighbours[i].items():
            root = self.root(j)
            borders[root] = borders.get(root, 0) + length
        by_class: dict[int, tuple[int, int]] = {}  # class: border, area of its largest neighbour
        for root, length in borders.items():
            total, largest = by_class.get(self.klass[root], (0, 0))
            by_class[self.klass[root]] = total + length, max(largest, self.area[root])
        if not by_class:
            self.klass[i] = 0
            del self.neighbours[i]
            return i
        best = max(by_class, key=lambda c: (*by_class[c], -c))
        self.klass[i] = best
        return self._merge({i, *(root for root in borders if self.klass[root] == best)})

    def _merge(self, members: set[int]) -> int:
        """Make one region of several; it is named after its first pixel's component."""
        top = min(members)
        area = sum(self.area[j] for j in members)
        adjacent = [self.neighbours.pop(j, {}) for j in members]
        for j in members:
            self.parent[j] = top
        self.area[top] = area
        if area < self.min_area_px[self.klass[top]]:
            # Never large, since all members are small: the dictionaries together have at most 4 * min_area entries.
            together: dict[int, int] = {}
            for borders in adjacent:
                for j, length in borders.items():
                    root = self.root(j)
                    if root != top:
                        together[root] = together.get(root, 0) + length
            self.neighbours[top] = together
        return top


class SievedMap:
    """A class map in which small components gave way; a `ClassMapSource` that reads another one."""

    def __init__(self, source: ClassMapSource, components: Components, absorption: Absorption) -> None:
        self.source = source
        self.components = components
        table = np.append(absorption.classes, np.uint8(0))  # the last one for component -1
        self._fragment_class = table[components.block_components]

    @property
    def size(self) -> Size:
        """Size of the map in map pixels."""
        return self.source.size

    def read(self, box: Box) -> npt.NDArray[np.uint8]:
        """The classes in `box`; whole blocks are read and labelled again, so boxes of the blocks cost least."""
        out = np.zeros(box.size.shape, np.uint8)
        side = self.components.block
        across = ceil_div(self.size.width, side)
        for y in range(box.y // side * side, box.bottom, side):
            for x in range(box.x // side * side, box.right, side):
                own = Box(x, y, side, side).intersect(Box.from_size(self.size))
                part = own.intersect(box)
                fragments = label_fragments(self.source.read(own))
                start = int(self.components.block_starts[y // side * across + x // side])
                lookup = self._fragment_class[start - 1 : start + int(fragments.max())].copy()
                lookup[0] = 0
                out[part.slices(box)] = lookup[fragments[part.slices(own)]]
        return out
