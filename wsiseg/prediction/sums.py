"""Overlapping patches become a piece of the map: weighted sums on the networks' device, whole pixels off it.

The value of a pixel is sum(w * p) / sum(w) over the patches that cover it. Both sums take the patches in the same
order and in the same float32 steps: so equal inputs give equal bytes, and a constant p of 1 gives exactly 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsiseg.arrays import UInt8Array
from wsiseg.geometry import Box
from wsiseg.models.calibration import Calibration
from wsiseg.tiling.grid import Tile


@dataclass(frozen=True, slots=True)
class PiecePixels:
    """A finished piece of the map, before the tissue mask.

    Attributes:
        box: its place in map pixels.
        classes: (height, width) uint8, the class of the highest probability; 0 where no patch had a readable pixel.
        values: (K, height, width) uint8 probabilities, 255 is 1.0.
    """

    box: Box
    classes: UInt8Array
    values: UInt8Array


class PieceSums:
    """The sums of one piece, of which only as many rows are held as patches still come for.

    Within a band of rows patches may come in any order; `close_above` ends a band. But float32 sums depend on the
    order, so for the same bytes it has to be the same order in every run: that of `wsiseg.tiling.pieces.blocks_of`.

    Args:
        box: the piece, in map pixels.
        channels: K, probabilities per pixel.
        weights: (P, P) float32, the weight of a patch's pixels; see `wsiseg.tiling.blending.window`.
        band_px: rows that are held: those between the first row of a band's patches and their last.
        calibration: of the probabilities, which changes no class; None for none.
    """

    def __init__(
        self, box: Box, channels: int, weights: Tensor, band_px: int, calibration: Calibration | None = None
    ) -> None:
        self._calibration = calibration
        self.box = box
        self._weights = weights
        self._sums = torch.zeros((channels + 1, min(band_px, box.height), box.width), device=weights.device)
        self._top = box.y
        self._left, self._right, self._bottom = box.right, box.x, box.y  # of what was touched and not closed
        self._pixels = PiecePixels(
            box, np.zeros(box.size.shape, np.uint8), np.zeros((channels, *box.size.shape), np.uint8)
        )

    def add(self, tile: Tile, probabilities: Tensor, readable: npt.NDArray[np.bool_] | None = None) -> None:
        """Add what of a patch lies inside the piece.

        Args:
            tile: its place.
            probabilities: (K, P, P) float32, on the weights' device.
            readable: (P, P) bool, false where the slide is damaged; None where all of it is readable.
        """
        inside = tile.box.intersect(self.box)
        if inside.is_empty:
            return
        rows, columns = inside.slices(tile.box)
        weights = self._weights[rows, columns]
        if readable is not None:
            weights = weights * torch.from_numpy(readable[rows, columns]).to(weights.device)
        y, x = inside.slices(Box(self.box.x, self._top, 0, 0))
        target = self._sums[:, y, x]
        # Patch by patch. A sum over a whole batch would round otherwise, and the bytes would depend on the batch size.
        target[:-1].addcmul_(probabilities[:, rows, columns], weights)
        target[-1].add_(weights)
        self._left, self._right = min(self._left, inside.x), max(self._right, inside.right)
        self._bottom = max(self._bottom, inside.bottom)

    def close_above(self, y: int) -> None:
        """Finish the rows above map row `y`, which no later patch touches."""
        # Only touched columns, down to `_bottom`, are moved and cleared. All others must be zero: clear what you touch.
        bottom = min(max(y, self._top), self.box.bottom)
        self._finish(min(bottom, self._bottom))
        done = bottom - self._top
        height = self._sums.shape[1]
        if 0 < done < height and self._bottom > bottom:
            columns = slice(self._left - self.box.x, self._right - self.box.x)
            kept = self._sums[:, done : self._bottom - self._top, columns].clone()  # old and new place may overlap
            self._sums[:, : self._bottom - self._top, columns] = 0
            self._sums[:, : kept.shape[1], columns] = kept
        elif done and self._right > self._left:
            self._sums[:, :, self._left - self.box.x : self._right - self.box.x] = 0
            self._left, self._right = self.box.right, self.box.x
        self._top = bottom

    def finish(self) -> PiecePixels:
        """Finish the rows that are left; the whole piece."""
        self.close_above(self.box.bottom)
        return self._pixels

    def _finish(self, bottom: int) -> None:
        """Divide the rows down to map row `bottom`, and take them off the device."""
        if bottom <= self._top or self._right <= self._left:
            return
        columns = slice(self._left - self.box.x, self._right - self.box.x)
        step = CPU_ROWS if self._sums.device.type == "cpu" else bottom - self._top
        for top in range(self._top, bottom, step):
            last = min(top + step, bottom)
            classes, values = quotients(self._sums[:, top - self._top : last - self._top, columns])
            rows = slice(top - self.box.y, last - self.box.y)
            self._pixels.classes[rows, columns] = classes.cpu().numpy()
            stored = values.cpu().numpy()
            self._pixels.values[:, rows, columns] = (
                stored if self._calibration is None else self._calibration.of(stored)
            )


CPU_ROWS = 16
"""Rows that are divided at once on a CPU: what comes of them stays in its cache."""


def quotients(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Classes (h, w) and probabilities (K, h, w), both uint8, of K weighted sums and the weights' sum (K + 1, h, w)."""
    total = sums[-1]
    covered = total > 0
    probabilities = sums[:-1] / torch.where(covered, total, 1.0)  # (K, h, w), 0 where nothing was read
    classes = first_of_largest(probabilities).add_(1).mul_(covered)
    return classes, probabilities.mul_(255).round_().to(torch.uint8)


def first_of_largest(values: Tensor) -> Tensor:
    """The channel (h, w), uint8, of the largest of values (K, h, w); the first of equal ones, as numpy's `argmax`.

    Torch's own `max` takes any of them, which may depend on the number of threads.
    """
    largest = values[0]
    index = torch.zeros(values.shape[1:], dtype=torch.uint8, device=values.device)
    for channel in range(1, len(values)):
        index.masked_fill_(values[channel] > largest, channel)
        largest = torch.maximum(largest, values[channel])
    return index
