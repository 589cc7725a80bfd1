"""The compressed tiles of a TIFF, read and decoded as they lie in the file.

A plain tiled TIFF or SVS is read this way once OpenSlide has opened it: the pixels are the same, at a quarter of the
time, every pixel of a level is exactly itself (OpenSlide blurs levels whose downsample is not a whole number, by an
amount that depends on where a box begins), and a damaged tile is known for what it is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, Size
from wsiseg.slides.claims import require_claim
from wsiseg.slides.damage import Cell, UnreadableError
from wsiseg.slides.integrity import join_tables, jpeg_fault
from wsiseg.slides.limits import MIN_TILE

CACHE_BYTES = 64 * 2**20
"""Decoded tiles that are kept: boxes that overlap need the same ones again."""

SAMPLE = 16
"""Tiles of a level that are looked at before the check for whole data is trusted with its writer."""

_RGB, _YCBCR = 2, 6
_JPEG = 7
_CODECS = {1, 5, 7, 8, 32946, 33003, 33005, 34712, 50000}  # none, LZW, JPEG, deflate, JPEG 2000, Zstandard
_MAX_TILE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class TileTable:
    """One level's tiles.

    Attributes:
        size: pixels of the level.
        tile: pixels of a tile.
        offsets: where each tile lies in the file.
        counts: its number of bytes.
        is_jpeg: whether tiles are JPEG.
        tables: what JPEG tiles share, None where each stands alone.
        decode: tifffile's decoder of the page.
    """

    size: Size
    tile: Size
    offsets: Sequence[int]
    counts: Sequence[int]
    is_jpeg: bool
    tables: bytes | None
    decode: Callable[..., Any]

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.size.width // self.tile.width)

    @classmethod
    def of(cls, page: Any) -> TileTable | None:
        """The table of a tifffile page, None where its tiles are not plain 8-bit RGB."""
        try:
            return cls._of_plain(page.keyframe)
        except (TypeError, ValueError, ArithmeticError, LookupError):
            return None  # tifffile computes with whatever stands in the tags, when it is asked for it

    @classmethod
    def _of_plain(cls, page: Any) -> TileTable | None:
        plain = (
            page.is_tiled
            and min(page.tilewidth, page.tilelength) >= MIN_TILE
            and int(page.photometric) in (_RGB, _YCBCR)
            and page.samplesperpixel == 3
            and int(page.planarconfig) == 1
            and page.dtype == np.uint8
            and page.imagedepth == 1
            and int(page.compression) in _CODECS
            and isinstance(page.jpegtables, bytes | None)
            and page.tilewidth * page.tilelength * 3 <= _MAX_TILE_BYTES
        )
        if not plain:
            return None
        count = -(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength)
        if not len(page.dataoffsets) == len(page.databytecounts) == count:
            return None
        return cls(
            Size(page.imagewidth, page.imagelength),
            Size(page.tilewidth, page.tilelength),
            page.dataoffsets,
            page.databytecounts,
            int(page.compression) == _JPEG,
            page.jpegtables,
            page.decode,
        )


class TileSource:
    """Reads the tiles of some levels of one file; safe to use from several threads.

    Args:
        file: the file, which this object owns from now on.
        tables: by level, None where a level is not read this way.
        zero_is_damaged: whether a tile without bytes is damaged (Aperio), or left out on purpose (others).
    """

    def __init__(self, file: BinaryIO, tables: list[TileTable | None], *, zero_is_damaged: bool = False) -> None:
        self._file = file
        self.tables = tables
        self._zero_is_damaged = zero_is_damaged
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, Cell], npt.NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0
        self._checked: dict[int, bool] = {}
        self._file.seek(0, 2)
        self._length = self._file.tell()

    def close(self) -> None:
        """Give back the file."""
        with self._lock:
            self._file.close()
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
                while self._cached_bytes > CACHE_BYTES:
                    self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return pixels

    def _decode(self, level: int, cell: Cell) -> npt.NDArray[np.uint8]:
        table = self.tables[level]
        assert table is not None
        index = cell[1] * table.columns + cell[0]
        inside = Box(cell[0] * table.tile.width, cell[1] * table.tile.height, table.tile.width, table.tile.height)
        inside = inside.intersect(Box.of(table.size))
        data = self._raw(table, index)
        if data is None:
            return np.full((*inside.size.shape, 3), 255, np.uint8)
        require_claim(data, table.tile)
        if table.is_jpeg and self._checks(level, table):
            fault = jpeg_fault(join_tables(data, table.tables))
            if fault is not None:
                raise UnreadableError(fault)
        try:
            pixels = table.decode(data, index, jpegtables=table.tables)[0]
            pixels = np.asarray(pixels, np.uint8).reshape(-1, pixels.shape[-2], 3)
        except Exception as error:  # codecs raise whatever they like on damaged data
            raise UnreadableError(str(error)) from error
        if pixels.shape[0] < inside.height or pixels.shape[1] < inside.width:
            raise UnreadableError(f"is {pixels.shape[1]} x {pixels.shape[0]} pixels")
        return pixels[: inside.height, : inside.width]

    def _raw(self, table: TileTable, index: int) -> bytes | None:
        """The bytes of a tile, None where the file leaves it out."""
        try:
            offset, count = int(table.offsets[index]), int(table.counts[index])
        except (TypeError, ValueError) as error:  # whatever stands in the tags
            raise UnreadableError("states no place or length") from error
        if count == 0:
            if self._zero_is_damaged or offset:
                raise UnreadableError("has no data")
            return None
        if min(offset, count) < 0 or count > 4 * _MAX_TILE_BYTES:
            raise UnreadableError("states an impossible place or length")
        if offset + count > self._length:
            raise UnreadableError("lies beyond the end of the file")
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(count)
        if len(data) != count:
            raise UnreadableError("lies beyond the end of the file")
        return data

    def _checks(self, level: int, table: TileTable) -> bool:
        """Whether tiles of a level are checked: not where its writer ends sound tiles as if they were damaged.

        Looks at tiles spread over the level; more than half of them faulty is a way of writing, not damage.
        """
        if level not in self._checked:
            total = len(table.offsets)
            faults, looked = 0, 0
            for index in range(0, total, max(1, total // SAMPLE)):
                try:
                    data = self._raw(table, index)
                except UnreadableError:
                    continue
                if data is not None:
                    looked += 1
                    fault = jpeg_fault(join_tables(data, table.tables)) or ""
                    faults += fault.startswith(("has data left", "ends early"))
            self._checked[level] = faults <= looked / 2
        return self._checked[level]
