"""Whether a picture that has the shape of a level shows what a finer level shows, or something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, Level

Pixels = npt.NDArray[np.uint8]
Read = Callable[[Box], Pixels | None]
"""The pixels of a box inside a level, None where some of them are not there or damaged."""

_SIDE = 64
"""Pixels of the coarser level that are compared at once, squared."""

_FINE_SIDE = 2048
"""Of the finer level at most."""

_MEAN_OF = 4
"""Means of so many pixels, squared, are compared: makers smooth, sharpen, and shift by a pixel or two."""

_CONTRAST, _SAME, _ALIKE = 8.0, 4.0, 0.6
_PLACES = (1 / 2, 1 / 4, 3 / 4, 1 / 8, 7 / 8)
_LOOKED_AT, _ENOUGH = 6, 2
"""Places that are compared at most, and how many that are alike are enough where none is not."""


def shows_other(coarse: Level, read_coarse: Read, fine: Level, read_fine: Read) -> bool:
    """Whether a coarser picture shows something else than a finer level.

    Places where neither has any structure, or where pixels are missing, say nothing.

    Args:
        coarse: the picture as a level.
        read_coarse: its pixels.
        fine: a level that is known to be one.
        read_fine: its pixels.
    """
    ratio_x, ratio_y = coarse.downsample_x / fine.downsample_x, coarse.downsample_y / fine.downsample_y
    side = min(_SIDE, int(_FINE_SIDE / max(ratio_x, ratio_y)))
    if side < 2 * _MEAN_OF:
        return False
    alike = unlike = 0
    for box in _boxes(coarse, side):
        seen = read_coarse(box)
        if seen is None or _means(seen).std() < _CONTRAST:
            continue
        left, top = round(box.x * ratio_x), round(box.y * ratio_y)
        right, bottom = round(box.right * ratio_x), round(box.bottom * ratio_y)
        inside = Box(left, top, right - left, bottom - top).intersect(Box.from_size(fine.size))
        pixels = None if inside.is_empty else read_fine(inside)
        if pixels is None:
            continue
        if _alike(_means(seen), _means(_reduced(pixels, box))):
            alike += 1
        else:
            unlike += 1
        if alike + unlike == _LOOKED_AT or (alike == _ENOUGH and not unlike):
            break
    return unlike > alike


def _boxes(level: Level, side: int) -> Iterator[Box]:
    """Places all over a level, the middle first."""
    width, height = (min(side, length) for length in (level.size.width, level.size.height))
    seen = set()
    for y in _PLACES:
        for x in _PLACES:
            corner = int((level.size.width - width) * x), int((level.size.height - height) * y)
            if corner not in seen:
                seen.add(corner)
                yield Box(*corner, width, height)


def _reduced(pixels: Pixels, box: Box) -> Pixels:
    """The pixels, resampled to the size of a box of the coarser level."""
    from PIL import Image  # noqa: PLC0415

    return np.asarray(Image.fromarray(pixels).resize((box.width, box.height), Image.Resampling.BOX))


def _means(pixels: Pixels) -> npt.NDArray[np.float64]:
    """(h / 4, w / 4) brightness."""
    height, width = (length // _MEAN_OF * _MEAN_OF for length in pixels.shape[:2])
    grey = pixels[:height, :width].mean(-1, dtype=np.float64)
    found: npt.NDArray[np.float64] = grey.reshape(height // _MEAN_OF, _MEAN_OF, width // _MEAN_OF, _MEAN_OF).mean(
        (1, 3)
    )
    return found


def _alike(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> bool:
    if first.shape != second.shape or np.abs(first - second).mean() < _SAME:
        return True
    if min(first.std(), second.std()) == 0:
        return False
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1]) > _ALIKE
