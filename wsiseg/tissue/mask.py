"""A mask of tissue upon a slide, asked in map pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, Grid, Size
from wsiseg.tiling.grid import TileGrid
from wsiseg.tissue.bit_mask import BitMask
from wsiseg.tissue.stain import Glass

_CHUNK = 1024

_FINER = 0.9
"""Map pixels so much smaller than those of the mask that some lie between any two of its rows and columns."""


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Where the tissue of a slide is.

    Attributes:
        mask: of the whole slide, (h, w).
        step_x: level-0 pixels per mask pixel along x.
        step_y: the same along y.
        slide_size: size of level 0; nothing outside it is tissue.
        method: "otsu", "none", or the name of the file that it came from.
        glass: that of the overview, None where none was looked at.
    """

    mask: BitMask
    step_x: float
    step_y: float
    slide_size: Size
    method: str
    glass: Glass | None = None

    @property
    def area_px(self) -> float:
        """Area of the tissue in level-0 pixels."""
        rows = np.clip(self.slide_size.height - np.arange(self.mask.shape[0]) * self.step_y, 0, self.step_y)
        columns = np.clip(self.slide_size.width - np.arange(self.mask.shape[1]) * self.step_x, 0, self.step_x)
        return sum(float(rows[top : top + len(band)] @ (band @ columns)) for top, band in self.mask.bands())

    @property
    def share(self) -> float:
        """Share of the slide that is tissue, 0 to 1."""
        return self.area_px / self.slide_size.area

    def rows(self, grid: Grid, box: Box) -> npt.NDArray[np.bool_]:
        """Whether each map pixel of `box` is tissue, (box.height, box.width).

        The mask, taken as 0 and 1 at the centres of its pixels, is interpolated linearly; from a half on it is
        tissue. So outlines are smooth, and a map pixel's answer does not depend on the box.
        """
        out = np.zeros((box.height, box.width), np.bool_)
        for top in range(0, box.height, _CHUNK):  # what is interpolated takes sixteen times the memory of the answer
            strip = Box(box.x, box.y + top, box.width, min(_CHUNK, box.height - top))
            self._strip(grid, strip, out[top : top + _CHUNK])
        return out

    def _strip(self, grid: Grid, box: Box, out: npt.NDArray[np.bool_]) -> None:
        """Fill `out` for a box of few rows."""
        y0, y1, fy, in_y = self._axis(box.y, box.height, grid.step_y, self.step_y, 0)
        x0, x1, fx, in_x = self._axis(box.x, box.width, grid.step_x, self.step_x, 1)
        top = int(y0.min())
        for left in range(0, box.width, _CHUNK):  # a band may be as wide as the map
            part = slice(left, min(box.width, left + _CHUNK))
            first, last = int(x0[part].min()), int(x1[part].max()) + 1
            block = self.mask.block(top, int(y1.max()) + 1, first, last)
            if not block.any():
                continue
            if block.all():
                out[:, part] = True
                continue
            strip = block.astype(np.float32)
            down = strip[y0 - top] * (1 - fy[:, None]) + strip[y1 - top] * fy[:, None]  # (h, mask columns)
            a, b = x0[part] - first, x1[part] - first
            out[:, part] = down[:, a] * (1 - fx[part]) + down[:, b] * fx[part] >= 0.5
        out &= in_y[:, None] & in_x[None, :]

    def select(self, grid: Grid, tiles: TileGrid) -> npt.NDArray[np.bool_]:
        """Which patches hold tissue, (rows, columns) bool: `rows(…).any()` of each, mostly without computing it."""
        (top, bottom), (left, right) = self._ranges(grid, tiles, 0), self._ranges(grid, tiles, 1)
        count = _within(self._sums(1), top, bottom, left, right)
        whole = Box.from_size(tiles.map_size)
        selected = count > 0
        # Only where some mask pixels are tissue and some are not may interpolation decide otherwise,
        unsure = selected & (count < np.outer(bottom - top, right - left))
        if unsure.any() and max(grid.step_x / self.step_x, grid.step_y / self.step_y) < _FINER:
            # and not where a map pixel lies amid four that are. The last ones may lie outside the slide.
            corners = _within(self._sums(2), top, np.maximum(top, bottom - 2), left, np.maximum(left, right - 2))
            unsure &= corners == 0
        for row, column in np.argwhere(unsure).tolist():
            selected[row, column] = self.rows(grid, tiles.box(row, column).intersect(whole)).any()
        return np.asarray(selected, np.bool_)

    def _ranges(self, grid: Grid, tiles: TileGrid, axis: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """First mask pixel, and the one behind the last, of each row (axis 0) or column (axis 1) of patches."""
        length = tiles.map_size.shape[axis]
        map_step, mask_step = (grid.step_y, self.step_y) if axis == 0 else (grid.step_x, self.step_x)
        low, high, _, _ = self._axis(0, length, map_step, mask_step, axis)
        first = np.arange(tiles.rows if axis == 0 else tiles.columns) * tiles.stride_px
        last = np.minimum(first + tiles.patch_px, length) - 1
        return low[first], high[last] + 1

    def _sums(self, side: int) -> npt.NDArray[np.int32]:
        """(h + 1, w + 1): how many mask pixels above and left of each corner are tissue.

        With `side` 2 instead of 1 those alone count that are the top left one of four that are. Not kept:
        of a large slide it would be the largest thing that a run holds to its end.
        """
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1), np.int32)
        for top, rows in self.mask.bands():  # all at once would take the memory twice
            full = rows
            if side == 2:
                below = self.mask.block(top + 1, min(height, top + len(rows) + 1), 0, width)
                full = np.zeros_like(rows)
                full[: len(below), :-1] = (rows[: len(below), :-1] & rows[: len(below), 1:]) & (
                    below[:, :-1] & below[:, 1:]
                )
            band = np.cumsum(full, axis=1, dtype=np.int32)
            band[0] += sums[top, 1:]
            np.cumsum(band, axis=0, out=sums[top + 1 : top + 1 + len(band), 1:])
        return sums

    def _axis(
        self, start: int, length: int, map_step: float, mask_step: float, axis: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """For map pixels along one axis: the mask pixels before and after, the share of the latter, and if inside."""
        index = np.arange(start, start + length, dtype=np.float64)
        centre = (index + 0.5) * map_step / mask_step - 0.5
        before = np.floor(centre)
        share = (centre - before).astype(np.float32)
        last = self.mask.shape[axis] - 1
        extent = self.slide_size.shape[axis]
        inside = (index >= 0) & (index * map_step < extent)
        low = np.clip(before, 0, last).astype(np.intp)
        return low, np.clip(before + 1, 0, last).astype(np.intp), share, inside


def _within(
    sums: npt.NDArray[np.int32],
    top: npt.NDArray[np.intp],
    bottom: npt.NDArray[np.intp],
    left: npt.NDArray[np.intp],
    right: npt.NDArray[np.intp],
) -> npt.NDArray[np.int32]:
    """Sums over boxes, (rows, columns), whose first and last corners the rows and columns give."""
    down = sums[bottom] - sums[top]
    return np.asarray(down[:, right] - down[:, left], np.int32)
