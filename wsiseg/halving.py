"""From one level of a map's pyramid to the next coarser one: pixels, boxes, whole arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from wsiseg.geometry import Box
from wsiseg.memory import trim_memory
from wsiseg.shards import shard_shape, shards_in

UInt8Array = npt.NDArray[np.uint8]

STRIP_PX = 256
"""Rows that are halved at once: their sums, twice as large as the pixels, stay in the processor's cache."""


def half_box(box: Box) -> Box:
    """The pixels of the coarser level over a box whose corner has even coordinates."""
    return Box(box.x // 2, box.y // 2, -(-box.width // 2), -(-box.height // 2))


def halved(pixels: UInt8Array, *, nearest: bool) -> UInt8Array:
    """(…, ceil(h / 2), ceil(w / 2)) of (…, h, w) uint8.

    The upper left of four pixels, or their mean (rounded half up) over those that lie inside the map.
    """
    coarse = np.ascontiguousarray(pixels[..., ::2, ::2])
    if nearest:
        return coarse
    for channel in np.ndindex(pixels.shape[:-2]):
        for y in range(0, pixels.shape[-2], STRIP_PX):
            coarse[channel][y // 2 : (y + STRIP_PX) // 2] = _means(pixels[channel][y : y + STRIP_PX])
    return coarse


def _means(pixels: UInt8Array) -> UInt8Array:
    odd_height, odd_width = pixels.shape[0] % 2, pixels.shape[1] % 2
    even = np.pad(pixels, ((0, odd_height), (0, odd_width)), mode="edge") if odd_height or odd_width else pixels
    rows = even[::2].astype(np.uint16) + even[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


def halve(fine: zarr.Array[Any], coarse: zarr.Array[Any], *, nearest: bool) -> None:
    """Fill `coarse` from `fine`, shard by shard; see `halved`.

    A shard of `fine` is all zero where it has no file, and is not read.
    """
    whole = Box(0, 0, coarse.shape[-1], coarse.shape[-2])
    height, width = shard_shape(coarse)
    for y in range(0, whole.height, height):
        for x in range(0, whole.width, width):
            box = Box(x, y, width, height).intersect(whole)
            pixels = _read_halved(fine, box, nearest)
            if pixels is not None:
                coarse[(..., *box.slices())] = pixels
            trim_memory()


def _read_halved(fine: zarr.Array[Any], box: Box, nearest: bool) -> UInt8Array | None:
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
                found[(*channel, *target)] = halved(pixels, nearest=nearest)
    return found
