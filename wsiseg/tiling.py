"""Where the patches lie: a regular grid of overlapping squares over a map, those kept in a fixed order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size


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
    def of(cls, map_size: Size, patch_px: int, overlap: float) -> TileGrid:
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

    def tiles(self, keep: Callable[[Box], bool] | None = None) -> Iterator[Tile]:
        """The tiles row by row, from left to right; `keep` sees each box, cut to the map, and says whether it stays."""
        index = 0
        whole = Box.of(self.map_size)
        for row in range(self.rows):
            for column in range(self.columns):
                box = self.box(row, column)
                if keep is None or keep(box.intersect(whole)):
                    yield Tile(index, row, column, box)
                    index += 1


def _count(length: int, patch: int, stride: int) -> int:
    return 1 + max(0, -(-(length - patch) // stride))
