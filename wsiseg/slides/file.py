"""What readers of files share: whole tiles where the format allows it, boxes else, damage left white, a quick hash."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, Grid
from wsiseg.slides.base import WHITE, Region, SlideReader
from wsiseg.slides.damage import Cell, DamageMap, read_around
from wsiseg.slides.sources.source import ByteSource
from wsiseg.slides.tiff.tiles import TileSource


class FileReader(SlideReader):
    """A slide in a file; a subclass says how a box is read from it."""

    damage: DamageMap
    _source: ByteSource | None = None
    _tiles: TileSource | None = None
    _open = True

    def read_level(self, level: int, box: Box) -> Region:
        """See `SlideReader.read_level`."""
        self.require_open(self._open)
        if not 0 <= level < len(self.levels):
            raise IndexError(f"{self.name} has levels 0 to {len(self.levels) - 1}, not {level}")
        pixels = np.full((*box.size.shape, 3), WHITE, np.uint8)
        inside = box.intersect(Box.from_size(self.levels[level].size))
        if inside.is_empty:
            return Region(pixels)
        if self._tiles is not None and self._tiles.can_read(level):
            self._read_tiles(level, inside, pixels, box)
        else:
            read_around(inside, level, self.damage, lambda part: self._checked(level, part), out=pixels, origin=box)
        # Asked after reading, so that what this read found damaged counts as well.
        damaged = self.damage.mask(level, inside)
        if damaged is None:
            return Region(pixels)
        mask = np.zeros(box.size.shape, np.bool_)
        mask[inside.slices(box)] = damaged
        pixels[mask] = WHITE
        return Region(pixels, mask)

    def forget(self) -> None:
        """See `SlideReader.forget`."""
        if self._tiles is not None:
            self._tiles.forget()
        if self._source is not None:
            self._source.forget()

    def expect(self, grid: Grid, boxes: Sequence[Box]) -> None:
        """See `SlideReader.expect`; the tiles of all boxes together, so that neighbours come with one request."""
        if self.version is None or not self._open or self._tiles is None or not self._tiles.can_read(grid.level):
            return
        cells: dict[Cell, None] = {}
        for box in boxes:
            inside = grid.source(box).intersect(Box.from_size(self.levels[grid.level].size))
            if not inside.is_empty:
                cells |= dict.fromkeys(self.damage.cells(grid.level, inside))
        self._tiles.expect(grid.level, cells)

    def require_unchanged(self) -> None:
        """See `SlideReader.require_unchanged`."""
        if self._source is not None:
            self._source.require_unchanged()

    def _read_tiles(self, level: int, inside: Box, pixels: npt.NDArray[np.uint8], box: Box) -> None:
        """Paste the tiles under `inside` into `pixels`, whose first pixel is the corner of `box`."""
        assert self._tiles is not None
        cells = [cell for cell in self.damage.cells(level, inside) if not self.damage.is_damaged(level, cell)]
        for cell, tile in self._tiles.read_many(level, cells):
            if tile is None:
                self.damage.mark(level, cell)
                continue
            area = self.damage.cell_box(level, cell)
            part = area.intersect(inside)
            pixels[part.slices(box)] = tile[part.slices(area)]

    def _checked(self, level: int, box: Box) -> npt.NDArray[np.uint8]:
        """`_read_box`, where a source that failed is never taken for damage, nor for pixels."""
        try:
            return self._read_box(level, box)
        finally:
            if self._source is not None:
                self._source.check()

    @abstractmethod
    def _read_box(self, level: int, box: Box) -> npt.NDArray[np.uint8]:
        """The pixels of a box inside a level. Raises `UnreadableError` where they cannot be decoded."""
