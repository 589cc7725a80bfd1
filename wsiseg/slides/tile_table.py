"""Where the compressed tiles of a TIFF's level lie, and how their bytes become pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box, Size
from wsiseg.slides.claims import require_claim
from wsiseg.slides.damage import Cell, UnreadableError
from wsiseg.slides.integrity import join_tables, jpeg_fault
from wsiseg.slides.limits import MIN_TILE
from wsiseg.slides.source import Range

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

    def box(self, cell: Cell) -> Box:
        """The pixels of a tile that lie inside the level."""
        box = Box(cell[0] * self.tile.width, cell[1] * self.tile.height, self.tile.width, self.tile.height)
        return box.intersect(Box.of(self.size))

    def index(self, cell: Cell) -> int:
        """A tile's place in the table."""
        return cell[1] * self.columns + cell[0]

    def ranges(self, cell: Cell, length: int, *, zero_is_damaged: bool = False) -> list[Range] | None:
        """Where the bytes of a tile lie, None where the file leaves it out.

        Args:
            cell: the tile.
            length: bytes of the file.
            zero_is_damaged: whether a tile without bytes is damaged (Aperio), or left out on purpose (others).

        Raises:
            UnreadableError: what the table says cannot be.
        """
        try:
            offset, count = int(self.offsets[self.index(cell)]), int(self.counts[self.index(cell)])
        except (TypeError, ValueError) as error:  # whatever stands in the tags
            raise UnreadableError("states no place or length") from error
        if count == 0:
            if zero_is_damaged or offset:
                raise UnreadableError("has no data")
            return None
        if min(offset, count) < 0 or count > 4 * _MAX_TILE_BYTES:
            raise UnreadableError("states an impossible place or length")
        if offset + count > length:
            raise UnreadableError("lies beyond the end of the file")
        return [(offset, count)]

    def fault(self, parts: Sequence[bytes]) -> str | None:
        """What a decoder would not tell of damage in a JPEG tile, None where nothing is found; see `jpeg_fault`."""
        return next((fault for part in parts if (fault := jpeg_fault(join_tables(part, self.tables)))), None)

    def pixels(self, cell: Cell, parts: Sequence[bytes]) -> npt.NDArray[np.uint8]:
        """The pixels of a tile, those inside the level: (height, width, 3) uint8.

        Args:
            cell: the tile.
            parts: the bytes of `ranges`.

        Raises:
            UnreadableError: it is damaged.
        """
        (data,) = parts
        inside = self.box(cell)
        require_claim(data, self.tile)
        try:
            pixels = self.decode(data, self.index(cell), jpegtables=self.tables)[0]
            pixels = np.asarray(pixels, np.uint8).reshape(-1, pixels.shape[-2], 3)
        except Exception as error:  # codecs raise whatever they like on damaged data
            raise UnreadableError(str(error)) from error
        if pixels.shape[0] < inside.height or pixels.shape[1] < inside.width:
            raise UnreadableError(f"is {pixels.shape[1]} x {pixels.shape[0]} pixels")
        return pixels[: inside.height, : inside.width]
