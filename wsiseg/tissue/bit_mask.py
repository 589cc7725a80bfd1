"""A mask in a bit a pixel: that of a whole slide is held for as long as a run takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import ceil_div

BAND_ROWS = 512


class BitMask:
    """Which pixels of a picture something holds for.

    Args:
        mask: (h, w) bool.

    Attributes:
        shape: h and w.
    """

    def __init__(self, mask: npt.NDArray[np.bool_]) -> None:
        self.shape: tuple[int, int] = mask.shape
        self._bits = np.packbits(mask, axis=1)

    def block(self, top: int, bottom: int, left: int, right: int) -> npt.NDArray[np.bool_]:
        """The pixels of rows from `top` to before `bottom`, and columns from `left` to before `right`, all inside."""
        first = left // 8
        values = np.unpackbits(self._bits[top:bottom, first : ceil_div(right, 8)], axis=1)
        return values[:, left - 8 * first : right - 8 * first].view(np.bool_)

    def pixels(self) -> npt.NDArray[np.bool_]:
        """The whole mask as bool (h, w), in eight times the memory."""
        return self.block(0, self.shape[0], 0, self.shape[1])

    def bands(self) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """The mask from top to bottom, `BAND_ROWS` at once: the first row's index, and the rows as bool."""
        height, width = self.shape
        for top in range(0, height, BAND_ROWS):
            yield top, self.block(top, min(height, top + BAND_ROWS), 0, width)
