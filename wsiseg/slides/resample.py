"""Area-weighted resampling whose result does not depend on how an image is cut into pieces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float32Array
from wsiseg.geometry import EDGE, Box, Grid

_AT_ONCE = 2**16
"""Values that are summed at once: they stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Weights:
    """How output pixels along one axis are made of source pixels: a matrix most of whose values are 0.

    Attributes:
        source: (taps, length), which source pixels make each output pixel, in their order.
        weight: (taps, length), their weights; of a source pixel that comes up twice only one is not 0.
        source_length: pixels of the source.
    """

    source: npt.NDArray[np.intp]
    weight: Float32Array
    source_length: int

    def __matmul__(self, values: npt.NDArray[Any]) -> Float32Array:
        """The output (length, n) of a source (source_length, n); each value is summed tap by tap, in float32."""
        taps, length = self.source.shape
        out = np.zeros((length, values.shape[1]), np.float32)
        rows = max(1, _AT_ONCE // max(1, values.shape[1]))
        product = np.empty((min(rows, length), values.shape[1]), np.float32)
        for top in range(0, length, rows):
            total = out[top : top + rows]
            part = product[: len(total)]
            for tap in range(taps):
                np.multiply(values[self.source[tap, top : top + rows]], self.weight[tap, top : top + rows, None], part)
                total += part
        return out

    def toarray(self) -> Float32Array:
        """The whole matrix, (length, source_length)."""
        return self @ np.eye(self.source_length, dtype=np.float32)


def resample(pixels: npt.NDArray[np.uint8], source: Box, box: Box, grid: Grid) -> npt.NDArray[np.uint8]:
    """The pixels of `box` (map pixels of `grid`) from those of `source` (pixels of the level).

    Args:
        pixels: (source.height, source.width, 3) uint8.
        source: the level's pixels that `box` touches, as `source_interval` gives them.
        box: the wanted map pixels.
        grid: gives the zoom in both directions.

    Returns:
        (box.height, box.width, 3) uint8, rounded to nearest.
    """
    rows = axis_weights(box.y, box.height, grid.zoom_y, source.y, source.height)
    columns = axis_weights(box.x, box.width, grid.zoom_x, source.x, source.width)
    height, width = source.height, source.width
    down = (rows @ pixels.reshape(height, width * 3)).reshape(box.height, width, 3)  # (h, W, 3)
    across = columns @ down.transpose(1, 0, 2).reshape(width, box.height * 3)  # (w, h * 3)
    out = np.rint(across).clip(0, 255).astype(np.uint8).reshape(box.width, box.height, 3)
    return np.ascontiguousarray(out.transpose(1, 0, 2))


def axis_weights(start: int, length: int, zoom: float, source_start: int, source_length: int) -> Weights:
    """The weights that make output pixels [start, start + length) along one axis.

    Shrinking (zoom > 1): the share of each output pixel that each source pixel covers. Enlarging: linear
    interpolation between pixel centres (half-pixel convention).
    """
    index = np.arange(start, start + length, dtype=np.float64)
    if zoom >= 1:
        left = index * zoom
        right = (index + 1) * zoom
        source = np.floor(left) + np.arange(math.ceil(zoom) + 1)[:, None]  # (taps, length)
        weight = np.clip(np.minimum(source + 1, right) - np.maximum(source, left), 0, None)
        # What `source_interval` leaves out at a box's edge has no weight inside a box either, or a pixel's value
        # would depend on the box it is read with.
        inside = (source >= np.floor(left + EDGE)) & (source < np.ceil(right - EDGE))
        weight = np.where(inside, weight, 0)
    else:
        centre = (index + 0.5) * zoom - 0.5
        first = np.floor(centre)
        source = first + np.arange(2)[:, None]
        weight = np.stack([1 - (centre - first), centre - first])
    column = np.clip(source - source_start, 0, source_length - 1).astype(np.intp)
    # Sums go over an axis whose values lie side by side, or they would be added in another order.
    share = (weight / np.ascontiguousarray(weight.T).sum(axis=1)).astype(np.float32)
    # Beyond the source its outermost pixels stand in. What is the same pixel has one weight: the last of them.
    for tap in range(1, len(column)):
        again = column[tap] == column[tap - 1]
        share[tap] += np.where(again, share[tap - 1], 0)
        share[tap - 1][again] = 0
    return Weights(column, share, source_length)
