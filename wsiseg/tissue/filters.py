"""Filters of an overview, in NumPy alone and with the values of SciPy's, whose import takes longer than they do."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import BoolArray, Float64Array

_WIDTHS = 4.0
"""Standard deviations at which a Gaussian is cut off."""


def gaussian(
    values: npt.NDArray[Any], sigma: float, axis: int = 0, *, beyond: Literal["edge", "constant"] = "edge"
) -> Float64Array:
    """Values smoothed along one axis, in float64; as `scipy.ndimage.gaussian_filter1d`.

    Args:
        values: of any shape.
        sigma: standard deviation in pixels.
        axis: the axis.
        beyond: what lies outside: the outermost value ("edge") or 0 ("constant").
    """
    radius = int(_WIDTHS * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    weights = weights / weights.sum()
    room = [(radius, radius) if one == axis else (0, 0) for one in range(values.ndim)]
    padded = np.moveaxis(np.pad(values.astype(np.float64), room, beyond), axis, 0)
    length = values.shape[axis]
    # SciPy sums from the middle, then from the outside in; another order would round otherwise.
    total = padded[radius : radius + length] * weights[radius]
    for distance in range(radius, 0, -1):
        before = padded[radius - distance : radius - distance + length]
        total += (before + padded[radius + distance : radius + distance + length]) * weights[radius - distance]
    return np.moveaxis(total, 0, axis)


def fits(mask: BoolArray, side: int) -> BoolArray:
    """Where a square fits into a mask, (h, w), at its middle; the square may reach over the picture's edge.

    Args:
        mask: (h, w).
        side: of the square, in pixels; the middle of an even one is the pixel after it.
    """
    for axis in (0, 1):
        before, after = side // 2, side - side // 2 - 1
        room = [(before, after) if one == axis else (0, 0) for one in (0, 1)]
        rows = np.moveaxis(np.pad(mask, room, constant_values=True), axis, 0)
        width = 1  # of the stretch that fits, which doubles
        while width < side:
            step = min(width, side - width)
            rows = rows[:-step] & rows[step:]
            width += step
        mask = np.moveaxis(rows, 0, axis)
    return mask
