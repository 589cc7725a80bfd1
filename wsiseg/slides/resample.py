"""Area-weighted resampling whose result does not depend on how an image is cut into pieces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import EDGE, Box, Grid

if TYPE_CHECKING:
    from scipy import sparse


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


def axis_weights(start: int, length: int, zoom: float, source_start: int, source_length: int) -> sparse.csr_array:
    """The weights (length, source_length) that make output pixels [start, start + length) along one axis.

    Shrinking (zoom > 1): the share of each output pixel that each source pixel covers. Enlarging: linear
    interpolation between pixel centres (half-pixel convention).
    """
    from scipy import sparse  # noqa: PLC0415  a third of a second that opening a slide does not need

    index = np.arange(start, start + length, dtype=np.float64)
    if zoom >= 1:
        taps = math.ceil(zoom) + 1
        left = index * zoom
        right = (index + 1) * zoom
        first = np.floor(left)
        source = first[:, None] + np.arange(taps)  # (length, taps)
        weight = np.clip(np.minimum(source + 1, right[:, None]) - np.maximum(source, left[:, None]), 0, None)
        # What `source_interval` leaves out at a box's edge has no weight inside a box either, or a pixel's value
        # would depend on the box it is read with.
        inside = (source >= np.floor(left + EDGE)[:, None]) & (source < np.ceil(right - EDGE)[:, None])
        weight = np.where(inside, weight, 0)
    else:
        centre = (index + 0.5) * zoom - 0.5
        first = np.floor(centre)
        source = first[:, None] + np.arange(2)
        weight = np.stack([1 - (centre - first), centre - first], axis=1)
    column = np.clip(source - source_start, 0, source_length - 1).astype(np.int64)
    weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    row = np.repeat(np.arange(length), source.shape[1])
    return sparse.csr_array((weight.ravel(), (row, column.ravel())), shape=(length, source_length))
