"""Overlapping patches of probabilities become one map: the weights of a patch's pixels, and the whole in plain words.

The value of a pixel is sum(w * p) / sum(w) over the patches that cover it. `wsiseg.prediction.sums` takes these sums
piece by piece.
"""

from __future__ import annotations

import numpy as np

from wsiseg.arrays import Float32Array
from wsiseg.geometry import Box, Size
from wsiseg.tiling.grid import Tile, TileGrid


def window(patch_px: int, overlap_px: int) -> Float32Array:
    """Weights (patch_px, patch_px) of a patch's pixels, positive everywhere.

    A linear ramp over the overlap at every side, flat between: neighbouring patches add up to a constant where two
    meet. With more than half overlapping it is a pyramid; without overlap all weights are 1.
    """
    # From the middle of each pixel: at the map's edge a pixel has one patch, whose weight must not be 0.
    distance = np.minimum(np.arange(patch_px), np.arange(patch_px)[::-1]) + 0.5  # to the nearer side
    ramp = np.minimum(1.0, distance / overlap_px) if overlap_px else np.ones(patch_px)
    return np.outer(ramp, ramp).astype(np.float32)


def blend(size: Size, patches: list[tuple[Tile, Float32Array]], tiles: TileGrid) -> Float32Array:
    """All of a small map at once, (K, height, width) float32, 0 where no patch lies: for one's own experiments.

    Args:
        size: of the map.
        patches: of the grid, with probabilities (K, P, P) float32 each.
        tiles: the grid.
    """
    weights = window(tiles.patch_px, tiles.overlap_px)
    sums = np.zeros((len(patches[0][1]) + 1, *size.shape), np.float32)
    for tile, values in patches:
        inside = tile.box.intersect(Box.from_size(size))
        rows, columns = inside.slices(tile.box)
        target = sums[(slice(None), *inside.slices())]
        target[:-1] += weights[rows, columns] * values[:, rows, columns]
        target[-1] += weights[rows, columns]
    blended: Float32Array = np.divide(sums[:-1], sums[-1], out=np.zeros_like(sums[:-1]), where=sums[-1] > 0)
    return blended
