"""Where the patches lie: a regular grid of overlapping squares over a map, those kept in a fixed order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size, ceil_div


@dataclass(frozen=True, slots=True)
class Tile:
    """One patch of the map.

    Attributes:
        index: its place in the order of the tiles that are kept, from 0 without a gap.
        row: its row in the grid.
        column: its column in the grid.
        box: the map pixels it covers; it may reach over the right and lower edge of the map.
    """

    index: int
    row: int
    column: int
    box: Box


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a map of any size is cut.

    Attributes:
        side_px: side of a patch in map pixels.
        overlap_px: pixels that neighbouring patches share.
    """

    side_px: int
    overlap_px: int

    def grid(self, map_size: Size) -> TileGrid:
        """The grid over a map."""
        return TileGrid(map_size, self.side_px, self.overlap_px)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """A regular grid of square patches that covers a map.

    The patch of row r and column c has its corner at (c * stride, r * stride). The last ones reach over the edge,
    so that the grid does not depend on the map's size.

    Attributes:
        map_size: the map, in map pixels.
        patch_px: side of a patch in map pixels.
        overlap_px: pixels that neighbouring patches share.
    """

    map_size: Size
    patch_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        if self.patch_px < 1:
            raise OptionError(f"a patch needs at least one pixel, got {self.patch_px}")
        if not 0 <= self.overlap_px < self.patch_px:
            raise OptionError(
                f"the overlap must be 0 to {self.patch_px - 1} px (below the patch size), got {self.overlap_px}"
            )

    @classmethod
    def from_share(cls, map_size: Size, patch_px: int, overlap: float) -> TileGrid:
        """A grid whose patches overlap by a share (0 to below 1) of their side."""
        if not 0 <= overlap < 1:
            raise OptionError(f"the overlap is a share of the patch's side, 0 to below 1, got {overlap}")
        return cls(map_size, patch_px, min(patch_px - 1, round(patch_px * overlap)))

    @property
    def stride_px(self) -> int:
        """Map pixels from one patch to the next."""
        return self.patch_px - self.overlap_px

    @property
    def rows(self) -> int:
        """Rows of patches."""
        return _count(self.map_size.height, self.patch_px, self.stride_px)

    @property
    def columns(self) -> int:
        """Columns of patches."""
        return _count(self.map_size.width, self.patch_px, self.stride_px)

    def __len__(self) -> int:
        return self.rows * self.columns

    def box(self, row: int, column: int) -> Box:
        """The map pixels of one patch."""
        return Box(column * self.stride_px, row * self.stride_px, self.patch_px, self.patch_px)

    def select(self, keep: Callable[[Box], bool]) -> npt.NDArray[np.bool_]:
        """Which patches to read, (rows, columns) bool; `keep` sees each box, cut to the map."""
        whole = Box.from_size(self.map_size)
        flat = (
            keep(self.box(row, column).intersect(whole)) for row in range(self.rows) for column in range(self.columns)
        )
        return np.fromiter(flat, np.bool_, len(self)).reshape(self.rows, self.columns)

    def tiles(self, selected: npt.NDArray[np.bool_] | None = None) -> Iterator[Tile]:
        """The tiles row by row, from left to right: all of them, or those `selected`, (rows, columns) bool."""
        places = np.ones((self.rows, self.columns), np.bool_) if selected is None else selected
        index = 0
        for row in np.flatnonzero(places.any(axis=1)).tolist():
            for column in np.flatnonzero(places[row]).tolist():
                yield Tile(index, row, column, self.box(row, column))
                index += 1


def _count(length: int, patch: int, stride: int) -> int:
    return 1 + max(0, ceil_div(length - patch, stride))
