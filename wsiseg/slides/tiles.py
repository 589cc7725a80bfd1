"""The compressed tiles of a TIFF, read and decoded as they lie in the file.

A plain tiled TIFF or SVS is read this way once OpenSlide has opened it: the pixels are the same, at a quarter of the
time, every pixel of a level is exactly itself (OpenSlide blurs levels whose downsample is not a whole number, by an
amount that depends on where a box begins), and a damaged tile is known for what it is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from wsiseg.slides.damage import Cell, UnreadableError
from wsiseg.slides.source import ByteSource
from wsiseg.slides.tile_table import TileTable

CACHE_BYTES = 64 * 2**20
"""Decoded tiles that are kept: boxes that overlap need the same ones again."""

SAMPLE = 16
"""Tiles of a level that are looked at before the check for whole data is trusted with its writer."""


class TileSource:
    """Reads the tiles of some levels of one file; safe to use from several threads.

    Args:
        source: the file, which this object owns from now on.
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
        key = (level, cell)
        with self._lock:
            cached = self._cache.get(key)
            if cached is not None:
                self._cache.move_to_end(key)
                return cached
        pixels = self._decode(level, cell)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = pixels
                self._cached_bytes += pixels.nbytes
                while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:  # a strip may be larger
                    self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def _decode(self, level: int, cell: Cell) -> npt.NDArray[np.uint8]:
        table = self.tables[level]
        assert table is not None
        parts = self._raw(table, cell)
        if parts is None:
            return np.full((*table.box(cell).size.shape, 3), 255, np.uint8)
        if table.is_jpeg and self._checks(level, table):
            fault = table.fault(parts)
            if fault is not None:
                raise UnreadableError(fault)
        return table.pixels(cell, parts)

    def _raw(self, table: TileTable, cell: Cell) -> list[bytes] | None:
        """The bytes of a tile, None where the file leaves it out."""
        ranges = table.ranges(cell, self._source.length, zero_is_damaged=self._zero_is_damaged)
        if ranges is None:
            return None
        parts = self._source.read_many(ranges)
        if any(len(part) != count for part, (_, count) in zip(parts, ranges, strict=True)):
            raise UnreadableError("lies beyond the end of the file")
        return parts

    def _checks(self, level: int, table: TileTable) -> bool:
        """Whether tiles of a level are checked: not where its writer ends sound tiles as if they were damaged.

        Looks at tiles spread over the level; more than half of them faulty is a way of writing, not damage.
        """
        if level not in self._checked:
            total = table.count
            faults, looked = 0, 0
            for index in range(0, total, max(1, total // SAMPLE)):
                try:
                    parts = self._raw(table, (index % table.columns, index // table.columns))
                except UnreadableError:
                    continue
                if parts is not None:
                    looked += 1
                    fault = table.fault(parts) or ""
                    faults += fault.startswith(("has data left", "ends early"))
            self._checked[level] = faults <= looked / 2
        return self._checked[level]
