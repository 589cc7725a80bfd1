"""Which pixels of an overview are stained tissue: not glass, not pen, not the frame around the scan.

Everything is measured against the slide's own glass. With I the intensity of a channel and G that of the glass, the
transmission is I / G and the optical density OD = -log(I / G) (Beer and Lambert). The saturation of the transmission,
1 - min / max over the channels, is 1 - exp(-(max OD - min OD)): colour, whatever the brightness.

What is told apart, and why:
    Glass: hardly absorbs. How saturated it still is (noise, JPEG, uneven light) is measured, and bounds the threshold
        from below; so does no noise become tissue.
    Tissue: Otsu's threshold of the saturation, bounded from above by `PALE_SATURATION`: beside strongly stained tissue,
        and on a slide that is nearly all tissue, Otsu's own would cut through the tissue.
    Pen: haematoxylin and eosin both absorb green more than red. Blue and green ink do not; red ink absorbs blue as
        much as green, eosin does not; black ink absorbs all alike, and strongly.
    Frame: black or pure white areas that a scanner puts around what it scanned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

PALE_SATURATION = 0.04
"""What is more saturated than this is tissue, whatever Otsu's threshold: eosin at an optical density of about 0.045."""

Colour = tuple[float, float, float]

DEFAULT_GLASS: Colour = (243.0, 243.0, 243.0)
"""Assumed where a picture shows no glass."""

_GLASS_SHARE = 0.002
_FILLED_SHARE = 0.7
_GLASS_SAMPLE = 2_000_000
_GLASS_MIN = 195
_GLASS_SATURATION = 0.05
_NOISE_SPREADS = 4.0
_NOISE_MAX = 0.05
_BLACK = 30
_PEN_OD, _RIM_OD, _DARK_OD = 0.20, 0.05, 0.9
_PEN_WIDTH_UM, _PEN_MARGIN_UM = 130.0, 24.0
_SIGMA = 0.7
_ROWS = 128
_HALO = 8
_BINS = 512


@dataclass(frozen=True)
class Glass:
    """Empty glass on one slide.

    Attributes:
        level: its red, green and blue, 0 to 255.
        saturation: the saturation, against `level`, that its noise hardly ever exceeds.
        found: whether the picture shows any.
        filled: whether it is one constant colour and so was never scanned, or is clipped.
    """

    level: Colour
    saturation: float
    found: bool
    filled: bool = False


def find_glass(overview: npt.NDArray[np.uint8]) -> Glass:
    """The glass of an overview (h, w, 3): the most frequent bright and nearly grey colour."""
    step = math.ceil(math.sqrt(overview.shape[0] * overview.shape[1] / _GLASS_SAMPLE))
    sample = overview[::step, ::step]
    bright = _bright(sample)
    if len(bright) < max(16, _GLASS_SHARE * sample.shape[0] * sample.shape[1]):
        return Glass(DEFAULT_GLASS, _NOISE_MAX / 2, found=False)
    darkest = bright.min(axis=1)
    level = bright[np.abs(darkest - _mode(darkest)) <= 2].mean(axis=0)
    # Pixels around the mode are glass for certain; their spread tells the noise.
    near = (np.abs(bright.astype(np.float32) - level) < 8).all(axis=1)
    colour = (float(level[0]), float(level[1]), float(level[2]))
    values = saturation(bright[near][None], colour)[0]
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return Glass(colour, min(_NOISE_MAX, middle + _NOISE_SPREADS * spread), found=True, filled=_constant(bright[near]))


def _constant(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether most pixels (n, 3) have the very same colour; of scanned glass about a sixth has, even in an overview."""
    usual = np.median(pixels, axis=0)
    return bool((pixels == usual).all(axis=1).mean() >= _FILLED_SHARE)


def _bright(overview: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The pixels (n, 3) that may be glass: bright, nearly grey, and not the pure white of a frame."""
    low, high = overview.min(axis=2), overview.max(axis=2)
    keep = (low >= _GLASS_MIN) & (high - low <= _GLASS_SATURATION * high)
    scanned = keep & (low < 255)
    # Some scanners clip glass to pure white: then that is the glass.
    chosen = scanned if np.count_nonzero(scanned) >= 0.05 * np.count_nonzero(keep) else keep
    return np.asarray(overview[chosen])


def _mode(values: npt.NDArray[np.uint8]) -> float:
    counts = np.bincount(values, minlength=256).astype(np.float64)
    return float(np.argmax(ndimage.gaussian_filter1d(counts, 1.5, mode="constant")))


def transmission(overview: npt.NDArray[Any], glass: Colour) -> npt.NDArray[np.float32]:
    """Light that passes, (h, w, 3), against the glass; one more on either side keeps black finite."""
    return np.asarray((overview.astype(np.float32) + 1) / (np.asarray(glass, np.float32) + 1), np.float32)


def saturation(overview: npt.NDArray[Any], glass: Colour) -> npt.NDArray[np.float32]:
    """Saturation of the transmission, (h, w) of 0 to 1."""
    light = transmission(overview, glass)
    red, green, blue = light[..., 0], light[..., 1], light[..., 2]
    # Much faster than a reduction over an axis of three.
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    return np.asarray(1 - low / high, np.float32)


def pen(overview: npt.NDArray[np.uint8], glass: Colour, mpp: float) -> npt.NDArray[np.bool_]:
    """Where pen marks are, (h, w): ink somewhere as wide as a pen, and what belongs to it.

    Pathologists also ink the margins of the tissue itself. That is narrower than a pen's stroke, and stays tissue.

    Args:
        overview: (h, w, 3).
        glass: see `Glass.level`.
        mpp: microns per pixel of the overview.
    """
    every = np.repeat(np.arange(256)[None, :, None], 3, axis=2)
    densities = -np.log(np.minimum(transmission(every, glass), 1))[0]  # (256, 3): of each value in each channel
    core = np.zeros(overview.shape[:2], np.bool_)
    ink = np.zeros_like(core)
    for top in range(0, len(overview), _ROWS):
        rows = slice(top, top + _ROWS)
        red, green, blue = (densities[:, channel][overview[rows][..., channel]] for channel in range(3))
        strongest, weakest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
        # Brown absorbs blue most: melanin, iron, DAB. That is tissue, and no reason to look at blue against green.
        like_red = (blue > 0.85 * green) & (blue < 1.15 * green) & (red < 0.5 * green)
        like_black = (weakest > 0.8 * strongest) & (strongest > _DARK_OD)
        core[rows] = (strongest > _PEN_OD) & ((green < 0.97 * red) | like_red | like_black)
        ink[rows] = (strongest > _RIM_OD) & ((green < red) | like_red | like_black)
    width = max(3, round(_PEN_WIDTH_UM / mpp))
    ink |= core
    # A square of the pen's width fits inside the ink.
    wide = np.asarray(ndimage.minimum_filter(core.view(np.uint8), size=width, mode="nearest")).view(np.bool_)
    del core
    if not wide.any():
        return wide
    whole = ndimage.binary_propagation(wide, mask=ink)
    # Where ink fades into glass its colour is lost.
    margin = 2 * math.ceil(_PEN_MARGIN_UM / mpp) + 1
    return np.asarray(ndimage.maximum_filter(whole.view(np.uint8), size=margin)).view(np.bool_)


def stained(overview: npt.NDArray[np.uint8], mpp: float, glass: Glass | None = None) -> npt.NDArray[np.bool_]:
    """Where tissue is, (h, w), of an overview (h, w, 3) at `mpp`; specks and holes are left to the caller.

    `glass` is what `find_glass` says of the overview; None looks for it.
    Works in bands of rows, so that it needs little more memory than the overview.
    """
    height, width = overview.shape[:2]
    glass = glass or find_glass(overview)
    kept = pen(overview, glass.level, mpp)  # first: it needs as much memory as `levels` and more
    np.logical_not(kept, out=kept)
    levels = np.zeros((height, width), np.uint8)
    histogram = np.zeros(_BINS, np.int64)
    for top in range(0, height, _ROWS):
        bottom = min(height, top + _ROWS)
        first, last = max(0, top - _HALO), min(height, bottom + _HALO)
        band, inner = overview[first:last], slice(top - first, bottom - first)
        smooth = ndimage.gaussian_filter(band, (_SIGMA, _SIGMA, 0), output=np.float32, mode="nearest")
        values = np.clip(saturation(smooth, glass.level)[inner], 0, 1)
        bins = np.minimum(values * _BINS, _BINS - 1).astype(np.uint16)
        levels[top:bottom] = np.minimum(bins, 255)  # `_threshold` is at most `_NOISE_MAX`, bin 25
        kept[top:bottom] &= ~_frame(band)[inner]
        histogram += np.bincount(bins[kept[top:bottom]], minlength=_BINS)
    if not histogram.any():
        return kept
    least = _threshold(histogram, glass) * _BINS
    for top in range(0, height, _ROWS):
        kept[top : top + _ROWS] &= levels[top : top + _ROWS] >= least
    return kept


def _frame(band: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which pixels (h, w) are black or pure white, as frames and fillings are: they are no tissue."""
    red, green, blue = band[..., 0], band[..., 1], band[..., 2]
    return np.asarray((np.maximum(np.maximum(red, green), blue) < _BLACK) | ((red & green & blue) == 255))


def _threshold(histogram: npt.NDArray[np.int64], glass: Glass) -> float:
    """Otsu's threshold of the saturation, not below the glass's noise and not above what pale tissue has."""
    counts = histogram.astype(np.float64)
    centres = (np.arange(_BINS) + 0.5) / _BINS
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    otsu = float(centres[int(np.argmax(np.nan_to_num(between)))])
    return max(glass.saturation, min(otsu, PALE_SATURATION))
