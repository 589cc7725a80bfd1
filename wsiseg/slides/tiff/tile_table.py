"""Where the compressed tiles of a TIFF's level lie, and how their bytes become pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, Size, ceil_div
from wsiseg.slides.claims import require_claim
from wsiseg.slides.damage import Cell, UnreadableError
from wsiseg.slides.limits import MIN_TILE
from wsiseg.slides.sources.source import Range
from wsiseg.slides.tiff.integrity import join_tables, jpeg_fault
from wsiseg.slides.tiff.pixel_kind import PixelKind

_RGB, _YCBCR = 2, 6
_JPEG = 7
_CODECS = {1, 5, 7, 8, 32946, 33003, 33005, 34712, 50000}  # none, LZW, JPEG, deflate, JPEG 2000, Zstandard
_MAX_TILE_BYTES = 16 * 2**20
_PLAIN = PixelKind(8, 3)

_CELL_ROWS = 64
"""Strips lower than this are read several at once."""

_PIECE_BYTES = 2**20
"""About how much is read at once of a picture that is stored as one uncompressed strip."""


@dataclass(frozen=True)
class Plane:
    """One or several channels of a level: the tiles or strips of a page.

    Attributes:
        offsets: where each segment of the page lies in the file.
        counts: its number of bytes.
        first: the plane's first segment in them.
        decode: tifffile's decoder of the page.
        tables: what JPEG segments share, None where each stands alone.
    """

    offsets: Sequence[int]
    counts: Sequence[int]
    first: int
    decode: Callable[..., Any]
    tables: bytes | None


@dataclass(frozen=True)
class TileTable:
    """One level's tiles, or strips, which are tiles as wide as the level.

    Attributes:
        size: pixels of the level, without what fills up its last tiles.
        tile: pixels of a tile: what is read and decoded at once.
        columns: tiles in a row.
        rows: rows of tiles.
        planes: one where the samples of a pixel stand together, one for each sample where they do not.
        kind: how samples become colours.
        is_jpeg: whether tiles are JPEG.
        strip_rows: height of a strip, of which a tile may be several; 0 where there are tiles.
        raw: dtype of the samples where a tile is a part of one uncompressed strip, else None.
    """

    size: Size
    tile: Size
    columns: int
    rows: int
    planes: tuple[Plane, ...]
    kind: PixelKind
    is_jpeg: bool
    strip_rows: int = 0
    raw: np.dtype[Any] | None = None

    @property
    def count(self) -> int:
        """Number of tiles of a plane."""
        return self.columns * self.rows

    @property
    def tables(self) -> bytes | None:
        """The JPEG tables that all tiles share; None where there are none."""
        return self.planes[0].tables

    @classmethod
    def from_page(cls, page: Any) -> TileTable | None:
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
        return cls.of_pages([page], _PLAIN) if plain else None

    @classmethod
    def of_pages(cls, pages: Sequence[Any], kind: PixelKind, size: Size | None = None) -> TileTable | None:
        """The table of a level that is one tifffile page, or several of one channel each.

        Args:
            pages: of one size, layout and depth.
            kind: how their samples become colours.
            size: of the level, where pages are filled up to whole tiles.

        Returns:
            None where a page does not say where all its segments lie.
        """
        page = pages[0]
        stored = Size(page.imagewidth, page.imagelength)
        strip_rows = 0 if page.is_tiled else max(1, min(page.rowsperstrip, page.imagelength))
        tile = Size(page.tilewidth, page.tilelength) if page.is_tiled else Size(stored.width, strip_rows)
        columns, rows = ceil_div(stored.width, tile.width), ceil_div(stored.height, tile.height)
        separate = page.samplesperpixel if int(page.planarconfig) == 2 else 1
        planes = []
        for one in pages:
            offsets, counts = one.dataoffsets, one.databytecounts
            if not len(offsets) == len(counts) == columns * rows * separate:
                return None
            tables = one.jpegtables if isinstance(one.jpegtables, bytes) else None
            decode = one.decode
            planes += [Plane(offsets, counts, index * columns * rows, decode, tables) for index in range(separate)]
        table = cls(
            size or stored, tile, columns, rows, tuple(planes), kind, int(page.compression) == _JPEG, strip_rows
        )
        return table._in_pieces(page) if strip_rows else table

    def _in_pieces(self, page: Any) -> TileTable:
        """Low strips several at once, one high uncompressed strip in parts."""
        plain = int(page.compression) == 1 and int(page.predictor) == 1 and int(page.fillorder) == 1
        if self.rows == 1 and plain:
            samples = self.kind.samples if len(self.planes) == 1 else 1
            row_bytes = self.size.width * samples * self.kind.bits // 8
            height = min(self.tile.height, max(_CELL_ROWS, _PIECE_BYTES // row_bytes))
            dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
            rows = ceil_div(self.tile.height, height)
            return replace(self, tile=Size(self.tile.width, height), rows=rows, raw=dtype)
        group = ceil_div(_CELL_ROWS, self.strip_rows)
        height = min(group * self.strip_rows, self.rows * self.strip_rows)
        return replace(self, tile=Size(self.tile.width, height), rows=ceil_div(self.rows * self.strip_rows, height))

    def box(self, cell: Cell) -> Box:
        """The pixels of a tile that lie inside the level."""
        box = Box(cell[0] * self.tile.width, cell[1] * self.tile.height, self.tile.width, self.tile.height)
        return box.intersect(Box.from_size(self.size))

    def _segments(self, cell: Cell) -> list[int]:
        """The places of a tile's segments in the tables, of its first plane."""
        if self.raw is not None:
            return [0]
        if not self.strip_rows:
            return [cell[1] * self.columns + cell[0]]
        box = self.box(cell)
        return list(range(box.y // self.strip_rows, ceil_div(box.bottom, self.strip_rows)))

    def ranges(self, cell: Cell, length: int, *, zero_is_damaged: bool = False) -> list[Range] | None:
        """Where the bytes of a tile lie, by plane, and in each from top to bottom; None where the file leaves it out.

        A range without bytes is a strip that is left out beside others that are not.

        Args:
            cell: the tile.
            length: bytes of the file.
            zero_is_damaged: whether a tile without bytes is damaged (Aperio), or left out on purpose (others).

        Raises:
            UnreadableError: what the table says cannot be.
        """
        found = [
            self._range(plane, plane.first + segment, length, zero_is_damaged)
            for plane in self.planes
            for segment in self._segments(cell)
        ]
        if all(one is None for one in found):
            return None
        if self.raw is None:
            return [(0, 0) if one is None else one for one in found]
        return [self._part(one, cell) for one in found if one is not None]

    def _range(self, plane: Plane, index: int, length: int, zero_is_damaged: bool) -> Range | None:
        try:
            offset, count = int(plane.offsets[index]), int(plane.counts[index])
        except (TypeError, ValueError) as error:  # whatever stands in the tags
            raise UnreadableError("states no place or length") from error
        if count == 0 or offset == 0:
            if zero_is_damaged or offset:
                raise UnreadableError("has no data")
            return None
        if min(offset, count) < 0 or (self.raw is None and count > self._most_bytes()):
            raise UnreadableError("states an impossible place or length")
        if offset + count > length and self.raw is None:
            raise UnreadableError("lies beyond the end of the file")
        return offset, count

    def _most_bytes(self) -> int:
        return max(4 * _MAX_TILE_BYTES, 2 * self.tile.area * self.kind.samples * self.kind.bits // 8)

    def _row_bytes(self) -> int:
        samples = self.kind.samples if len(self.planes) == 1 else 1
        return self.size.width * samples * self.kind.bits // 8

    def _part(self, strip: Range, cell: Cell) -> Range:
        """The bytes of a tile that is a part of one uncompressed strip."""
        box, row = self.box(cell), self._row_bytes()
        if box.bottom * row > strip[1]:
            raise UnreadableError("lies beyond the end of its strip")
        return strip[0] + box.y * row, box.height * row

    def fault(self, parts: Sequence[bytes]) -> str | None:
        """What a decoder would not tell of damage in a JPEG tile, None where nothing is found; see `jpeg_fault`."""
        each = len(parts) // len(self.planes)
        joined = (join_tables(part, self.planes[i // each].tables) for i, part in enumerate(parts) if part)
        faults = (jpeg_fault(data) for data in joined)
        # In one channel the mark of data that end early is one value, which one sound tile in 256 has by chance.
        return next((fault for fault in faults if fault and not (len(self.planes) > 1 and fault == "ends early")), None)

    def pixels(self, cell: Cell, parts: Sequence[bytes]) -> npt.NDArray[np.uint8]:
        """The pixels of a tile, those inside the level: (height, width, 3) uint8.

        Args:
            cell: the tile.
            parts: the bytes of `ranges`.

        Raises:
            UnreadableError: it is damaged.
        """
        segments = self._segments(cell)
        rows = []
        for place, segment in enumerate(segments):
            mine = parts[place :: len(segments)]  # of each plane
            rows.append(self._segment(cell, segment, mine))
        pixels = rows[0] if len(rows) == 1 else np.concatenate(rows)
        inside = self.box(cell)
        if pixels.shape[0] < inside.height or pixels.shape[1] < inside.width:
            raise UnreadableError(f"is {pixels.shape[1]} x {pixels.shape[0]} pixels")
        return pixels[: inside.height, : inside.width]

    def _segment(self, cell: Cell, segment: int, parts: Sequence[bytes]) -> npt.NDArray[np.uint8]:
        """The pixels of one tile or strip from its bytes, by plane."""
        if not any(parts):
            rows = min(self.strip_rows, self.size.height - segment * self.strip_rows)
            return np.full((rows, self.size.width, 3), 255, np.uint8)
        decoded = [self._decode(cell, plane, segment, part) for plane, part in zip(self.planes, parts, strict=True)]
        try:
            samples = decoded[0] if len(decoded) == 1 else np.concatenate(decoded, axis=-1)
        except ValueError as error:
            raise UnreadableError("has planes of different sizes") from error
        return self.kind.rgb(samples)

    def _decode(self, cell: Cell, plane: Plane, segment: int, data: bytes) -> npt.NDArray[Any]:
        """The samples of one tile or strip of one plane: (height, width, samples)."""
        each = self.kind.samples if len(self.planes) == 1 else 1
        if self.raw is not None:
            box = self.box(cell)
            return np.frombuffer(data, self.raw).reshape(box.height, box.width, each)
        if not data:
            raise UnreadableError("lacks a channel")
        require_claim(data, Size(self.tile.width, self.strip_rows or self.tile.height))
        try:
            pixels = plane.decode(data, plane.first + segment, jpegtables=plane.tables)[0]
            return np.asarray(pixels).reshape(-1, pixels.shape[-2], each)
        except Exception as error:  # codecs raise whatever they like on damaged data
            raise UnreadableError(str(error)) from error
