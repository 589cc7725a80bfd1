"""The field of the Leiden method: the one with the most stroma that has tumour on all four sides of its border."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal

from wsiseg.arrays import BoolArray, Float32Array
from wsiseg.errors import OptionError
from wsiseg.geometry import Mpp

RIM_SHARE = 0.1
"""Width of the field's border, as a share of its radius."""

SECTORS = 8
"""Parts of the border, each of which needs tumour. With only four, a field at the tumour's edge may lie outside by more
than half, with tumour in a corner of each."""

LEAST_TUMOUR = 0.05
"""Share of each part of the border that has to be tumour."""

LEAST_FILLED = 0.5
"""Share of the field that has to be tumour or stroma."""

STEP_UM = 32.0
"""Microns between the places where fields are tried."""


@dataclass(frozen=True, slots=True)
class Field:
    """A circular field.

    Attributes:
        x: column of its centre, in cells, counted from the corner of the first one.
        y: row likewise.
        radius_um: its radius.
    """

    x: float
    y: float
    radius_um: float

    def mask(self, shape: tuple[int, int], mpp: Mpp) -> BoolArray:
        """The cells whose centres lie in the field, (height, width) bool."""
        rows = (np.arange(shape[0]) + 0.5 - self.y) * mpp.y
        columns = (np.arange(shape[1]) + 0.5 - self.x) * mpp.x
        return np.asarray(rows[:, None] ** 2 + columns[None] ** 2 <= self.radius_um**2)


def check_diameter(diameter_um: float) -> None:
    """Raise `OptionError` on a field that no microscope has."""
    if not (math.isfinite(diameter_um) and 200 <= diameter_um <= 20_000):
        raise OptionError(f"a field's diameter must be 200 to 20000 um, got {diameter_um:g}")


def find_field(tumour: BoolArray, stroma: BoolArray, bulk: BoolArray, mpp: Mpp, diameter_um: float) -> Field | None:
    """The field with the largest share of stroma among tumour and stroma; None where no field qualifies.

    One qualifies whose centre lies in the bulk, that is at least half tumour or stroma, and of whose border each
    eighth (right, below to the right, below…) has tumour.

    Args:
        tumour: (height, width) bool.
        stroma: likewise, its inflammation included.
        bulk: likewise.
        mpp: microns along a cell.
        diameter_um: of the field.
    """
    factor = max(1, round(STEP_UM / mpp.mean))
    step = mpp.times(factor)
    shares = [_shares(mask, factor) for mask in (tumour, stroma)]
    disc, sectors = _kernels(diameter_um / 2, step)
    tumour_share, stroma_share = (_sums(share, disc) / disc.sum() for share in shares)
    fits = (tumour_share + stroma_share >= LEAST_FILLED) & (_shares(bulk, factor) >= 0.5)
    for sector in sectors:
        fits &= _sums(shares[0], sector) / sector.sum() >= LEAST_TUMOUR
    if not fits.any():
        return None
    total = np.maximum(tumour_share + stroma_share, 1e-6)
    # The first of equal ones, also where the last digits of the sums differ from machine to machine.
    share = np.where(fits, np.round(stroma_share / total, 5), -1)
    row, column = np.unravel_index(int(share.argmax()), share.shape)
    return Field((int(column) + 0.5) * factor, (int(row) + 0.5) * factor, diameter_um / 2)


def _shares(mask: BoolArray, factor: int) -> Float32Array:
    """Share of each square of `factor` cells that a mask covers, (h, w) float32; beyond the mask there is nothing."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % factor), (0, -width % factor)))
    squares = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float32))


def _kernels(radius_um: float, step: Mpp) -> tuple[Float32Array, list[Float32Array]]:
    """The disc, and the parts of its rim, (n, m) float32 each of odd sides."""
    reach_x, reach_y = math.ceil(radius_um / step.x), math.ceil(radius_um / step.y)
    y = np.arange(-reach_y, reach_y + 1)[:, None] * step.y
    x = np.arange(-reach_x, reach_x + 1)[None] * step.x
    distance = np.hypot(y, x)
    disc = distance <= radius_um
    rim = disc & (distance >= radius_um - max(RIM_SHARE * radius_um, step.mean))
    turned = np.round(np.arctan2(y, x) / (2 * np.pi / SECTORS)).astype(int) % SECTORS
    return disc.astype(np.float32), [(rim & (turned == sector)).astype(np.float32) for sector in range(SECTORS)]


def _sums(share: Float32Array, kernel: Float32Array) -> npt.NDArray[np.floating]:
    """For each place the sum under a kernel that is centred there."""
    found: npt.NDArray[np.floating] = signal.oaconvolve(share, kernel[::-1, ::-1], mode="full")
    top, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    return found[top : top + share.shape[0], left : left + share.shape[1]]
