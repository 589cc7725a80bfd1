"""From one level of a map's pyramid to the next coarser one: pixels, boxes, whole arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import zarr

from wsiseg.arrays import UInt8Array
from wsiseg.geometry import Box, ceil_div
from wsiseg.system.memory import trim_memory
from wsiseg.tissue_map.shards import shard_shape, shards_in

Reduced = Callable[[UInt8Array], UInt8Array]
"""What makes (ceil(h / 2), ceil(w / 2)) of (h, w)."""

STRIP_PX = 256
"""Rows that are halved at once: their sums, twice as large as the pixels, stay in the processor's cache.

A multiple of four: each strip has to begin with an even field of the chess board, see `halved`.
"""


def halved_any(flags: UInt8Array) -> UInt8Array:
    """(ceil(h / 2), ceil(w / 2)) of flags (h, w) uint8, 1 where any of two by two is: so that none gets lost."""
    even = _even(flags)
    rows = even[::2] | even[1::2]
    found: UInt8Array = rows[:, ::2] | rows[:, 1::2]
    return found


def half_box(box: Box) -> Box:
    """The pixels of the coarser level over a box whose corner has even coordinates."""
    return Box(box.x // 2, box.y // 2, ceil_div(box.width, 2), ceil_div(box.height, 2))


def halved(pixels: UInt8Array, *, labels: bool) -> UInt8Array:
    """(…, ceil(h / 2), ceil(w / 2)) of (…, h, w) uint8: of each two by two pixels the mean, or of labels the majority.

    Both keep the middle of the four as their place, so that levels of either kind lie upon each other. Means are
    rounded half up. Of labels each value counts alike, also 0 and 255, and the one that most of the four have wins. A
    tie (two and two, or four of one each) goes to the upper left of the four, and on every other pixel, as the fields
    of a chess board alternate, to the lower right: so neither does a class grow from level to level nor do borders
    move. What lies outside the map has no say: at odd edges two pixels decide, or one.

    Args:
        pixels: a map or part of one whose corner has coordinates that four divides, so that the chess board is that of
            the whole map.
        labels: whether values are classes.
    """
    height, width = pixels.shape[-2:]
    coarse = np.empty((*pixels.shape[:-2], ceil_div(height, 2), ceil_div(width, 2)), np.uint8)
    reduced = _majorities if labels else _means
    for channel in np.ndindex(pixels.shape[:-2]):
        for y in range(0, height, STRIP_PX):
            coarse[channel][y // 2 : (y + STRIP_PX) // 2] = reduced(_even(pixels[channel][y : y + STRIP_PX]))
    return coarse


def _even(pixels: UInt8Array) -> UInt8Array:
    """Pixels with even sides: a last odd row and column twice, so that they have the say of two."""
    odd_height, odd_width = pixels.shape[0] % 2, pixels.shape[1] % 2
    return np.pad(pixels, ((0, odd_height), (0, odd_width)), mode="edge") if odd_height or odd_width else pixels


def _means(even: UInt8Array) -> UInt8Array:
    rows = even[::2].astype(np.uint16) + even[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


def _majorities(even: UInt8Array) -> UInt8Array:
    """Of a strip that begins with an even field of the chess board."""
    first, last = even[::2, ::2].copy(), np.ascontiguousarray(even[1::2, 1::2])
    if (first == last).all() and (first == even[::2, 1::2]).all() and (first == even[1::2, ::2]).all():
        return first
    for start in (0, 1):  # fields on which a tie goes to the lower right
        rows, columns = slice(start, None, 2), slice(1 - start, None, 2)
        first[rows, columns], last[rows, columns] = last[rows, columns].copy(), first[rows, columns].copy()
    right, below = np.ascontiguousarray(even[::2, 1::2]), np.ascontiguousarray(even[1::2, ::2])
    # `first` has at least as many as any other where another is like it. Else two or three of the others may be alike.
    alone = (first != last) & (first != right) & (first != below)
    np.copyto(first, last, where=alone & ((last == right) | (last == below)))
    np.copyto(first, right, where=alone & (right == below))
    return first


def halve(
    fine: zarr.Array[Any], coarse: zarr.Array[Any], *, labels: bool = False, reduced: Reduced | None = None
) -> None:
    """Fill `coarse` from `fine`, shard by shard, by `reduced`; else see `halved`.

    A shard of `fine` is all zero where it has no file, and is not read.
    """
    whole = Box(0, 0, coarse.shape[-1], coarse.shape[-2])
    height, width = shard_shape(coarse)
    for y in range(0, whole.height, height):
        for x in range(0, whole.width, width):
            box = Box(x, y, width, height).intersect(whole)
            pixels = _read_halved(fine, box, reduced or partial(halved, labels=labels))
            if pixels is not None:
                coarse[(..., *box.slices())] = pixels
            trim_memory()


def _read_halved(fine: zarr.Array[Any], box: Box, reduced: Reduced) -> UInt8Array | None:
    """The pixels of a box of the coarser level, (h, w) or (K, h, w); None where all of them are zero."""
    limits = Box(0, 0, fine.shape[-1], fine.shape[-2])
    lead = fine.shape[:-2]
    found = None
    for source in shards_in(fine, Box(2 * box.x, 2 * box.y, 2 * box.width, 2 * box.height).intersect(limits)):
        target = half_box(source).slices(box)
        for channel in np.ndindex(lead):
            pixels = np.asarray(fine[(*channel, *source.slices())])
            if pixels.any():
                found = np.zeros((*lead, *box.size.shape), np.uint8) if found is None else found
                found[(*channel, *target)] = reduced(pixels)
    return found
