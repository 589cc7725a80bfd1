"""What readers of files share: whole tiles where the format allows it, boxes else, damage left white, a quick hash."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box
from wsiseg.slides.base import WHITE, Region, SlideReader
from wsiseg.slides.damage import DamageMap, UnreadableError, read_around
from wsiseg.slides.tiles import TileSource

_EDGE_BYTES = 2**20
_SAMPLE_BYTES = 2**16
_SAMPLES = 16


class FileReader(SlideReader):
    """A slide in a file; a subclass says how a box is read from it."""

    damage: DamageMap
    _tiles: TileSource | None = None
    _open = True

    def read_level(self, level: int, box: Box) -> Region:
        """See `SlideReader.read_level`."""
        self.require_open(self._open)
        if not 0 <= level < len(self.levels):
            raise IndexError(f"{self.name} has levels 0 to {len(self.levels) - 1}, not {level}")
        pixels = np.full((*box.size.shape, 3), WHITE, np.uint8)
        inside = box.intersect(Box.of(self.levels[level].size))
        if inside.is_empty:
            return Region(pixels)
        if self._tiles is not None and self._tiles.can_read(level):
            self._read_tiles(level, inside, pixels, box)
        else:
            read_around(inside, level, self.damage, lambda part: self._read_box(level, part), out=pixels, origin=box)
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

    def _read_tiles(self, level: int, inside: Box, pixels: npt.NDArray[np.uint8], box: Box) -> None:
        """Paste the tiles under `inside` into `pixels`, whose first pixel is the corner of `box`."""
        assert self._tiles is not None
        for cell in self.damage.cells(level, inside):
            if self.damage.is_damaged(level, cell):
                continue
            try:
                tile = self._tiles.read(level, cell)
            except UnreadableError:
                self.damage.mark(level, cell)
                continue
            area = self.damage.cell_box(level, cell)
            part = area.intersect(inside)
            pixels[part.slices(box)] = tile[part.slices(area)]

    @abstractmethod
    def _read_box(self, level: int, box: Box) -> npt.NDArray[np.uint8]:
        """The pixels of a box inside a level. Raises `UnreadableError` where they cannot be decoded."""


def hash_samples(file: BinaryIO, length: int) -> str:
    """SHA-256 of a file's length, its beginning, its end, and sixteen samples between them."""
    digest = hashlib.sha256(str(length).encode())
    digest.update(file.read(_EDGE_BYTES))
    for index in range(1, _SAMPLES + 1):
        file.seek(length * index // (_SAMPLES + 1))
        digest.update(file.read(_SAMPLE_BYTES))
    file.seek(max(0, length - _EDGE_BYTES))
    digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()
