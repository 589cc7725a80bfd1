"""The compressed tiles of a TIFF, read and decoded as they lie in the file.

A plain tiled TIFF or SVS is read this way once OpenSlide has opened it: the pixels are the same, at a quarter of the
time, every pixel of a level is exactly itself (OpenSlide blurs levels whose downsample is not a whole number, by an
amount that depends on where a box begins), and a damaged tile is known for what it is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, ceil_div
from wsiseg.slides.damage import Cell, UnreadableError
from wsiseg.slides.sources.source import ByteSource, Range
from wsiseg.slides.tiff.tile_table import TileTable

AT_ONCE = 256
"""Tiles whose bytes are fetched at once; those of a box of patches are fewer."""

CACHE_BYTES = 64 * 2**20
"""Decoded tiles that are kept: boxes that overlap need the same ones again."""

SAMPLE = 16
"""Tiles of a level that are looked at before the check for whole data is trusted with its writer."""


class TileSource:
    """Reads the tiles of some levels of one file; safe to use from several threads.

    Args:
        source: the file, which this object closes.
        tables: by level, None where a level is not read this way.
        zero_is_damaged: whether a tile without bytes is damaged (Aperio), or left out on purpose (others).
    """

    def __init__(self, source: ByteSource, tables: list[TileTable | None], *, zero_is_damaged: bool = False) -> None:
        self._source = source
        self.tables = tables
        self._zero_is_damaged = zero_is_damaged
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, Cell], npt.NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0
        self._checked: dict[int, bool] = {}

    def close(self) -> None:
        """Give back the file."""
        self._source.close()
        self.forget()

    def forget(self) -> None:
        """Free the decoded tiles."""
        with self._lock:
            self._cache.clear()
            self._cached_bytes = 0

    def can_read(self, level: int) -> bool:
        """Whether a level is read this way."""
        return self.tables[level] is not None

    def read(self, level: int, cell: Cell) -> npt.NDArray[np.uint8]:
        """The pixels of one tile, those inside the level; white where the file leaves it out.

        Raises:
            UnreadableError: the tile is damaged.
        """
        ((_, pixels),) = self.read_many(level, [cell])
        if pixels is None:
            raise UnreadableError("is damaged")
        return pixels

    def read_many(self, level: int, cells: Sequence[Cell]) -> Iterator[tuple[Cell, npt.NDArray[np.uint8] | None]]:
        """The pixels of tiles, as `read` gives them, in any order; None for a damaged one.

        The bytes of all that are not kept are fetched together: behind an address a request costs more than a tile.

        Raises:
            SlideError: the file can no longer be read, which says nothing of its tiles.
        """
        for first in range(0, len(cells), AT_ONCE):
            missing = []
            for cell in cells[first : first + AT_ONCE]:
                kept = self._kept(level, cell)
                if kept is None:
                    missing.append(cell)
                else:
                    yield cell, kept
            yield from self._fetched(level, missing)

    def expect(self, level: int, cells: Iterable[Cell]) -> None:
        """Have the bytes of tiles fetched that will be read soon, where the file is far away; never waits."""
        table = self.tables[level]
        assert table is not None
        ranges: list[Range] = []
        with self._lock:
            missing = [cell for cell in cells if (level, cell) not in self._cache]
        for cell in missing:
            with suppress(UnreadableError):  # told when it is read
                ranges += self._ranges(table, cell) or []
        self._source.expect(ranges)

    def reading(self, level: int) -> Callable[[Box], npt.NDArray[np.uint8] | None]:
        """A function that reads boxes of a level, and gives None where a tile of one is damaged or left out."""
        table = self.tables[level]
        assert table is not None

        def read(box: Box) -> npt.NDArray[np.uint8] | None:
            tile, pixels = table.tile, np.empty((*box.size.shape, 3), np.uint8)
            rows = range(box.y // tile.height, ceil_div(box.bottom, tile.height))
            cells = [(x, y) for y in rows for x in range(box.x // tile.width, ceil_div(box.right, tile.width))]
            for cell, found in self.read_many(level, cells):
                if found is None or table.ranges(cell, self._source.length) is None:
                    return None
                area = table.box(cell)
                part = area.intersect(box)
                pixels[part.slices(box)] = found[part.slices(area)]
            return pixels

        return read

    def _kept(self, level: int, cell: Cell) -> npt.NDArray[np.uint8] | None:
        with self._lock:
            cached = self._cache.get((level, cell))
            if cached is not None:
                self._cache.move_to_end((level, cell))
            return cached

    def _keep(self, level: int, cell: Cell, pixels: npt.NDArray[np.uint8]) -> None:
        with self._lock:
            if (level, cell) not in self._cache:
                self._cache[level, cell] = pixels
                self._cached_bytes += pixels.nbytes
                while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:  # a strip may be larger
                    self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes

    def _fetched(self, level: int, cells: Sequence[Cell]) -> Iterator[tuple[Cell, npt.NDArray[np.uint8] | None]]:
        """Tiles that are not kept."""
        table = self.tables[level]
        assert table is not None
        ranges: dict[Cell, list[Range]] = {}
        for cell in cells:
            try:
                found = self._ranges(table, cell)
            except UnreadableError:
                yield cell, None
                continue
            if found is None:
                yield cell, np.full((*table.box(cell).size.shape, 3), 255, np.uint8)
            else:
                ranges[cell] = found
        parts = iter(self._source.read_many([one for found in ranges.values() for one in found]))
        for cell, found in ranges.items():
            try:
                pixels = self._decode(level, table, cell, _whole([next(parts) for _ in found], found))
            except UnreadableError:
                yield cell, None
            else:
                self._keep(level, cell, pixels)
                yield cell, pixels

    def _decode(self, level: int, table: TileTable, cell: Cell, parts: Sequence[bytes]) -> npt.NDArray[np.uint8]:
        if table.is_jpeg and self._checks(level, table):
            fault = table.fault(parts)
            if fault is not None:
                raise UnreadableError(fault)
        return table.pixels(cell, parts)

    def _ranges(self, table: TileTable, cell: Cell) -> list[Range] | None:
        """Where the bytes of a tile lie, None where the file leaves it out."""
        return table.ranges(cell, self._source.length, zero_is_damaged=self._zero_is_damaged)

    def _checks(self, level: int, table: TileTable) -> bool:
        """Whether tiles of a level are checked: not where its writer ends sound tiles as if they were damaged.

        Looks at tiles spread over the level; more than half of them faulty is a way of writing, not damage.
        """
        if level not in self._checked:
            self._checked[level] = self._is_trusted(table)
        return self._checked[level]

    def _is_trusted(self, table: TileTable) -> bool:
        total = table.count
        sample: list[list[Range]] = []
        for index in range(0, total, max(1, total // SAMPLE)):
            with suppress(UnreadableError):
                sample.append(self._ranges(table, (index % table.columns, index // table.columns)) or [])
        parts = iter(self._source.read_many([one for found in sample for one in found]))
        faults, looked = 0, 0
        for found in sample:
            with suppress(UnreadableError):
                if tile := _whole([next(parts) for _ in found], found):
                    looked += 1
                    faults += (table.fault(tile) or "").startswith(("has data left", "ends early"))
        return faults <= looked / 2


def _whole(parts: list[bytes], ranges: Sequence[Range]) -> list[bytes]:
    """The bytes of a tile; raises `UnreadableError` where the file ends before they do."""
    if any(len(part) != count for part, (_, count) in zip(parts, ranges, strict=True)):
        raise UnreadableError("lies beyond the end of the file")
    return parts
