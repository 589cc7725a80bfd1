"""Reading in an order that is known: what comes next is on its way while what came before is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from wsiseg.geometry import Box, Grid
from wsiseg.slides.base import SlideReader

Item = TypeVar("Item")

GROUP_PX = 8_000_000
"""Pixels of the slide's level that it is told of at once: neighbouring tiles lie beside each other in the file and come
with one request. Two groups of uncompressed pixels fit into what a slide keeps of its file."""


def expected(slide: SlideReader, grid: Grid, items: Iterable[Item], box_of: Callable[[Item], Box]) -> Iterator[Item]:
    """The items in their order, each given out after the slide was told of it and of the group that follows.

    Requests wait for a server, decoding for a processor. So as many threads read as there are cores, and the slide's
    own threads, which are many, fetch for them: where sixteen threads do both, they cost half as much time again.

    Args:
        slide: to be read.
        grid: as `slide.read` gets it.
        items: what will be read; up to two groups are taken ahead of what is given out.
        box_of: the box of an item, in map pixels.
    """
    if slide.version is None:  # a file of this machine
        yield from items
        return
    told: list[Item] = []
    for group in _groups(items, lambda item: grid.source(box_of(item)).size.area):
        slide.expect(grid, [box_of(item) for item in group])
        yield from told
        told = group
    yield from told


def _groups(items: Iterable[Item], pixels: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items in groups of up to `GROUP_PX`, at least one."""
    group: list[Item] = []
    held = 0
    for item in items:
        count = pixels(item)
        if group and held + count > GROUP_PX:
            yield group
            group, held = [], 0
        group.append(item)
        held += count
    if group:
        yield group
