"""Where a slide ends upon its map: the last column and row of map pixels may lie on it in part only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wsiseg.geometry import Box, Grid, Size

_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class SlideEdge:
    """How much of a slide each map pixel covers.

    Attributes:
        whole: map pixels that lie on the slide wholly: columns and rows.
        share_x: of the width of the next column that lies on the slide, 0 to below 1.
        share_y: the same of the next row.
    """

    whole: Size
    share_x: float
    share_y: float

    @classmethod
    def from_grid(cls, grid: Grid, slide_size: Size) -> SlideEdge:
        """The edge of a slide of `slide_size` level-0 pixels."""
        width, share_x = _along(slide_size.width / grid.step_x)
        height, share_y = _along(slide_size.height / grid.step_y)
        return cls(Size(width, height), share_x, share_y)

    @property
    def weights(self) -> tuple[float, float, float, float]:
        """Share of a map pixel's area that counts: inside, in the last column, in the last row, in both."""
        return 1.0, self.share_x, self.share_y, self.share_x * self.share_y

    def parts(self, box: Box) -> tuple[tuple[slice, slice], ...]:
        """(rows, columns) of the four parts of a box, in its own pixels, in the order of `weights`."""
        columns = min(max(self.whole.width - box.x, 0), box.width)
        rows = min(max(self.whole.height - box.y, 0), box.height)
        inside_x, last_x = slice(0, columns), slice(columns, box.width)
        inside_y, last_y = slice(0, rows), slice(rows, box.height)
        return (inside_y, inside_x), (inside_y, last_x), (last_y, inside_x), (last_y, last_x)


def _along(pixels: float) -> tuple[int, float]:
    whole = math.floor(pixels + _ROUNDING)
    share = pixels - whole
    return whole, share if share > _ROUNDING else 0.0
