"""Discs rolled over masks: what lies within a distance, closing, opening, and parts that are too small."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage, signal

from wsiseg.arrays import BoolArray
from wsiseg.geometry import EDGE, Mpp

TILE = 1024
"""Side of what is measured at once, in cells: memory for sums does not grow with the mask."""


def within(mask: BoolArray, distance_um: float, mpp: Mpp) -> BoolArray:
    """The cells whose centre is at most so far from that of a cell of the mask, (height, width) bool.

    Args:
        mask: (height, width) bool; there is nothing outside it.
        distance_um: not negative.
        mpp: microns along a cell.
    """
    found = np.zeros_like(mask)
    halo_x, halo_y = math.floor(distance_um / mpp.x + EDGE), math.floor(distance_um / mpp.y + EDGE)
    x_um, y_um = np.arange(-halo_x, halo_x + 1) * mpp.x, np.arange(-halo_y, halo_y + 1) * mpp.y
    disc = (y_um[:, None] ** 2 + x_um[None] ** 2 <= (distance_um * (1 + EDGE**2)) ** 2).astype(np.float32)
    height, width = mask.shape
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            top, left = max(0, y - halo_y), max(0, x - halo_x)
            part = mask[top : y + TILE + halo_y, left : x + TILE + halo_x]
            inner = slice(y - top, y - top + TILE), slice(x - left, x - left + TILE)
            if part.all():
                found[y : y + TILE, x : x + TILE] = True
            elif part.any():
                # Cells of the mask under the disc: a whole number, of which rounding leaves a hundredth in doubt.
                counts = signal.fftconvolve(part.astype(np.float32), disc, mode="full")
                counts = counts[halo_y : halo_y + part.shape[0], halo_x : halo_x + part.shape[1]]
                found[y : y + TILE, x : x + TILE] = counts[inner] > 0.5
    return found


def eroded(mask: BoolArray, distance_um: float, mpp: Mpp) -> BoolArray:
    """What of a mask is farther than so far from all that is not in it."""
    return np.asarray(~within(~mask, distance_um, mpp))


def closed(mask: BoolArray, diameter_um: float, mpp: Mpp) -> BoolArray:
    """The mask and all places that no disc of this diameter reaches without touching it.

    The mask needs an empty rim of at least the diameter.
    """
    return eroded(within(mask, diameter_um / 2, mpp), diameter_um / 2, mpp)


def opened(mask: BoolArray, diameter_um: float, mpp: Mpp) -> BoolArray:
    """What of the mask a disc of this diameter reaches that lies in it wholly."""
    return within(eroded(mask, diameter_um / 2, mpp), diameter_um / 2, mpp) & mask


def without_small(mask: BoolArray, least_mm2: float, mpp: Mpp) -> BoolArray:
    """The connected parts (corners connect) of at least this area."""
    labels, count = ndimage.label(mask, np.ones((3, 3), np.bool_))
    if count == 0:
        return mask
    keep = np.bincount(labels.ravel(), minlength=count + 1) * mpp.pixel_area_um2 / 1e6 >= least_mm2 * (1 - 1e-9)
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)


def filled(mask: BoolArray) -> BoolArray:
    """The mask with its holes: all that is not connected to the rim."""
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[edge] = True
    outside[0] = False
    return np.asarray(~outside[labels], np.bool_)
