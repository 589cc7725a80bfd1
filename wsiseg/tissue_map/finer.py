"""Probabilities at a finer level than a map keeps them: an estimate from the finest that it has. Pure."""

from __future__ import annotations

import numpy as np
from PIL import Image

from wsiseg.arrays import UInt8Array
from wsiseg.geometry import Box, Size, ceil_div
from wsiseg.tissue_map.pyramid import halved

MARGIN = 2
"""Pixels around a box that a cubic kernel reaches."""


def source_of(box: Box, factor: int, size: Size) -> Box:
    """The pixels of a coarser level, of this size, that an estimate of a box needs; its pixels are `factor` as wide."""
    left, top = box.x // factor - MARGIN, box.y // factor - MARGIN
    right, bottom = ceil_div(box.right, factor) + MARGIN, ceil_div(box.bottom, factor) + MARGIN
    return Box(left, top, right - left, bottom - top).intersect(Box.from_size(size))


def shares_with_class(classes: UInt8Array, count: int, level: int) -> UInt8Array:
    """How much of each pixel of a level has a class, in 255ths, of the classes (h, w) of the finest level."""
    shares = np.where((classes > 0) & (classes <= count), np.uint8(255), np.uint8(0))
    for _ in range(level):
        shares = halved(shares, labels=False)
    return shares


def estimated(coarse: UInt8Array, source: Box, factor: int, box: Box, shares: UInt8Array) -> UInt8Array:
    """Probabilities (K, h, w) of a box, by cubic interpolation of coarser ones.

    A coarser pixel may cover what has no class, too, where probabilities are 0. So what is interpolated is divided by
    its sum and multiplied by the share of the finer pixel that has a class, which the class map knows.

    Args:
        coarse: (K, h', w') uint8, the pixels of `source`.
        source: from `source_of`.
        factor: pixels of the box along one of `coarse`.
        box: what is asked for.
        shares: (h, w) uint8, see `shares_with_class`.
    """
    found = np.zeros((len(coarse), *box.size.shape), np.uint8)
    if not coarse.any() or not shares.any():
        return found
    place = (
        box.x / factor - source.x, box.y / factor - source.y, box.right / factor - source.x,
        box.bottom / factor - source.y,
    )  # fmt: skip
    # Where the map ends within a coarser pixel, that pixel lies in `source` as a whole.
    raised = np.stack([
        np.asarray(Image.fromarray(channel).resize((box.width, box.height), Image.Resampling.BICUBIC, box=place))
        for channel in coarse
    ])  # fmt: skip
    total = raised.sum(axis=0, dtype=np.float32)
    scale = np.divide(shares, total, out=np.zeros_like(total), where=total > 0)
    np.rint(np.minimum(raised * scale, 255.0), out=found, casting="unsafe")
    return found
