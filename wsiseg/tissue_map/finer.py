"""Probabilities at a finer level than a map keeps them: an estimate from the finest that it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wsiseg.arrays import UInt8Array
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size, ceil_div
from wsiseg.tissue_map.probability_levels import ProbabilityLevels
from wsiseg.tissue_map.pyramid import halved

if TYPE_CHECKING:
    from wsiseg.tissue_map.reader import TissueMap

MARGIN = 2
"""Pixels around a box that a cubic kernel reaches."""


def probabilities_of(tissue_map: TissueMap) -> ProbabilityLevels:
    """How a map keeps its probabilities.

    Raises:
        OptionError: it was written without them.
    """
    if tissue_map.probability_levels is None:
        name = tissue_map.path.name
        raise OptionError(
            f"{name} was written without probabilities; predict again with --probabilities full or coarse"
        )
    return tissue_map.probability_levels


def interpolated_from_um(tissue_map: TissueMap, level: int) -> float | None:
    """Microns per pixel of the probabilities that those of a level are interpolated from.

    None where the map has the level's own, or no probabilities at all.
    """
    kept = tissue_map.probability_levels
    return None if kept is None or level >= kept.first else tissue_map.mpp.times(kept.factor).mean


def channels(tissue_map: TissueMap, box: Box, level: int) -> Iterator[UInt8Array]:
    """The probabilities of a box, (h, w) uint8 class by class; see `TissueMap.estimate_probabilities`.

    What the map has of the level itself is read one class after the other.
    """
    kept = probabilities_of(tissue_map)
    indices = range(1, len(tissue_map.classes) + 1)
    if level >= kept.first:
        return (tissue_map.read_probability(index, box, level) for index in indices)
    finest = Box(box.x << level, box.y << level, box.width << level, box.height << level)
    classes = tissue_map.read(finest.intersect(Box.from_size(tissue_map.size)))
    factor = 2 ** (kept.first - level)
    source = source_of(box, factor, tissue_map.grid.coarsen(kept.factor))
    coarse = np.stack([tissue_map.read_probability(index, source, kept.first) for index in indices])
    return iter(estimated(coarse, source, factor, box, shares_with_class(classes, len(indices), level)))


def probability(tissue_map: TissueMap, index: int, box: Box, level: int) -> UInt8Array:
    """That of one class, (h, w) uint8; see `channels`."""
    if interpolated_from_um(tissue_map, level) is None:
        return tissue_map.read_probability(index, box, level)
    if not 1 <= index <= len(tissue_map.classes):
        raise OptionError(f"expected a class from 1 to {len(tissue_map.classes)}, got {index}")
    found: UInt8Array = tissue_map.estimate_probabilities(box, level)[index - 1]
    return found


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
    for channel, values in zip(
        found, raised, strict=True
    ):  # one after the other: floats of all at once take much memory
        np.rint(np.minimum(values * scale, 255.0), out=channel, casting="unsafe")
    return found
