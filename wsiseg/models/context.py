"""A gate that looks beyond its patch: the classifier's probabilities, averaged over the patches around each.

Which tissues a patch may hold is written in its surroundings as well: a single patch of collapsed lung looks like
tumour stroma, thirty of them in a row do not. A classifier that errs on patches one by one errs less on their mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float32Array
from wsiseg.tiling.grid import TileGrid

REACH = 2.0
"""Patches further away than this many standard deviations have no weight."""


def gaussian(sigma: float) -> npt.NDArray[np.float64]:
    """Weights (2 r + 1,) of the tiles up to r = `REACH` sigma to either side, the middle one 1; `sigma` in tiles."""
    radius = int(REACH * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights: npt.NDArray[np.float64] = np.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
    return weights


def mean_in_context(values: Float32Array, present: npt.NDArray[np.bool_], sigma: float) -> Float32Array:
    """The weighted means of the probabilities around the tiles of a grid, by a Gaussian of their distance.

    Args:
        values: probabilities (rows, columns, K); those of tiles that are not `present` do not count.
        present: (rows, columns) bool.
        sigma: standard deviation in tiles; 0 leaves each tile to itself.

    Returns:
        (rows, columns, K) float32, 0 where no tile is present.
    """
    from scipy.ndimage import correlate1d  # noqa: PLC0415  (only a gate that looks around needs it)

    weights = gaussian(sigma)
    sums = np.concatenate([np.where(present[..., None], values, 0.0), present[..., None]], axis=2, dtype=np.float64)
    for axis in (0, 1):
        sums = correlate1d(sums, weights, axis=axis, mode="constant")
    total = sums[..., -1:]
    means = np.divide(sums[..., :-1], total, out=np.zeros_like(sums[..., :-1]), where=total > 0)
    return np.where(present[..., None], means, 0.0).astype(np.float32)


def context_tiles(gate_context: float, tiles: TileGrid) -> float:
    """The standard deviation of the gate's context in tiles, from sides of a patch."""
    return gate_context * tiles.patch_px / tiles.stride_px
