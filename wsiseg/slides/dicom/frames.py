"""Where the frames of DICOM instances lie, as tiles of a level."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from wsiseg.errors import SlideError
from wsiseg.geometry import ceil_div
from wsiseg.slides.damage import Cell, UnreadableError
from wsiseg.slides.dicom.codecs import JPEG, RAW, decode
from wsiseg.slides.dicom.header import MAX_FRAMES, Instance
from wsiseg.slides.limits import MAX_TILE_BYTES
from wsiseg.slides.sources.source import ByteSource, LocalSource, Range
from wsiseg.slides.tiff.integrity import jpeg_fault
from wsiseg.slides.tiff.pixel_kind import PixelKind
from wsiseg.slides.tiff.tile_table import Plane, TileTable

_ITEM, _END = struct.pack("<HH", 0xFFFE, 0xE000), struct.pack("<HH", 0xFFFE, 0xE0DD)
_UNDEFINED = 2**32 - 1
_BUFFER = 2**16

Places = npt.NDArray[np.int64]


class JoinedSource(ByteSource):
    """Several files, one behind the other.

    Attributes:
        starts: where each begins.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self._sources: list[LocalSource] = []
        try:
            for path in paths:
                self._sources.append(LocalSource(path))
        except SlideError:
            self.close()
            raise
        lengths = [source.length for source in self._sources]
        self.starts = [sum(lengths[:index]) for index in range(len(lengths))]
        self.length = sum(lengths)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """See `ByteSource.read_many`; a range ends with the file that it begins in."""
        parts = []
        for start, count in ranges:
            index = max(0, int(np.searchsorted(self.starts, start, side="right")) - 1)
            parts += self._sources[index].read_many([(start - self.starts[index], count)])
        return parts

    def file(self) -> BinaryIO:
        """See `ByteSource.file`."""
        return io.BufferedReader(_JoinedFile(self))

    def close(self) -> None:
        """See `ByteSource.close`."""
        for source in self._sources:
            source.close()


class _JoinedFile(io.RawIOBase):
    def __init__(self, source: JoinedSource) -> None:
        self._source, self._place = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._source.length)[whence]
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read_at(self._place, len(buffer)) if self._place < self._source.length else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


@dataclass(frozen=True, kw_only=True)
class FrameTable(TileTable):
    """The frames of a level.

    Attributes:
        instance: what all instances of the level have in common.
    """

    instance: Instance

    def fault(self, parts: Sequence[bytes]) -> str | None:
        """See `TileTable.fault`."""
        return jpeg_fault(self.frame(parts[0]))

    def pixels(self, cell: Cell, parts: Sequence[bytes]) -> npt.NDArray[np.uint8]:
        """See `TileTable.pixels`."""
        inside, about = self.box(cell), self.instance
        pixels = decode(self.frame(parts[0]), about.syntax, about.photometric, self.tile, planar=about.planar)
        return pixels[: inside.height, : inside.width]

    def frame(self, data: bytes) -> bytes:
        """A frame's own bytes: those of its fragments, where it is compressed.

        Raises:
            UnreadableError: there is none.
        """
        if self.instance.syntax in RAW:
            return data
        fragments, place = [], 0
        while place + 8 <= len(data) and data[place : place + 4] == _ITEM:
            length = struct.unpack_from("<I", data, place + 4)[0]
            if place + 8 + length > len(data):
                raise UnreadableError("ends before its data do")
            fragments.append(data[place + 8 : place + 8 + length])
            place += 8 + length
        if not fragments:
            raise UnreadableError("does not begin where it is said to")
        return fragments[0] if len(fragments) == 1 else b"".join(fragments)


def frame_table(parts: Sequence[Instance], starts: Sequence[int]) -> FrameTable:
    """The frames of a level that is stored in one instance, or in several.

    Args:
        parts: the instances, first frames first.
        starts: where each one's file begins in the `JoinedSource`.

    Raises:
        SlideError: frames are missing, or too many.
    """
    first = parts[0]
    size, tile = first.size, first.tile
    columns, rows = ceil_div(size.width, tile.width), ceil_div(size.height, tile.height)
    if rows * columns > MAX_FRAMES:
        raise SlideError(f"{first.name} states {rows * columns:,} tiles, which no slide has; it is damaged")
    offsets, counts = np.zeros(rows * columns, np.int64), np.zeros(rows * columns, np.int64)
    if all(part.cells is None for part in parts):
        _require_full(parts, rows * columns)
    for part, start in zip(parts, starts, strict=True):
        places, lengths = _frames(part)
        if part.cells is None:
            index = np.arange(part.first_frame, part.first_frame + part.frames)
        else:
            if (part.cells >= (columns, rows)).any():
                raise SlideError(f"{part.name} has frames outside of its {size} px; it is damaged")
            index = part.cells[:, 1] * columns + part.cells[:, 0]
        if (counts[index] | offsets[index]).any():
            raise SlideError(f"{part.name} has frames that another part of the same level has too; it is damaged")
        offsets[index], counts[index] = places + start, lengths
    plane = Plane(offsets.tolist(), counts.tolist(), 0, _no_decoder, None)
    return FrameTable(size, tile, columns, rows, (plane,), PixelKind(8, 3), first.syntax in JPEG, instance=first)


def _no_decoder(*_: object, **__: object) -> object:
    raise UnreadableError("is decoded by its transfer syntax")


def _require_full(parts: Sequence[Instance], cells: int) -> None:
    frames = sum(part.frames for part in parts)
    name = parts[0].name
    if frames > cells:
        raise SlideError(
            f"{name} holds {frames} frames for {cells} tiles: several focal planes or optical paths, expected 1; "
            "store the one that is wanted apart"
        )
    if frames < cells:
        raise SlideError(f"{name} holds {frames} of {cells} frames: parts of the slide are missing; copy all its files")
    expected = 0
    for part in parts:
        if len(parts) > 1 and part.first_frame != expected:
            raise SlideError(
                f"{part.name} begins at frame {part.first_frame}, expected {expected}; copy all files again"
            )
        expected += part.frames


def _frames(part: Instance) -> tuple[Places, Places]:
    """Where each frame of an instance lies in its file, and its bytes; 0 bytes where the file ends before it."""
    path = part.key.path
    length = path.stat().st_size
    with path.open("rb", buffering=_BUFFER) as file:
        file.seek(part.place + 4)
        head = file.read(4 if part.implicit else 8)
        if len(head) < (4 if part.implicit else 8):
            raise SlideError(f"{part.name} is cut off: its pixels are missing; copy it again")
        stated, begin = struct.unpack("<I", head[-4:])[0], file.tell()
        if part.syntax in RAW:
            bytes_each = part.tile.area * 3
            if stated != _UNDEFINED and stated < bytes_each * part.frames:
                raise SlideError(
                    f"{part.name} has {stated:,} bytes of pixels, expected {bytes_each * part.frames:,}; it is damaged"
                )
            places = begin + bytes_each * np.arange(part.frames, dtype=np.int64)
            return _inside(places, np.full(part.frames, bytes_each, np.int64), length)
        if stated != _UNDEFINED:
            raise SlideError(f"{part.name} states compressed pixels of one fixed length; it is damaged")
        return _inside(*_fragmented(file, part, begin, length), length)


def _inside(places: Places, lengths: Places, end: int) -> tuple[Places, Places]:
    """A frame that the file ends before is known by having a place and no bytes."""
    return places, np.where((places + lengths <= end) & (lengths > 0), lengths, 0)


def _fragmented(file: BinaryIO, part: Instance, begin: int, end: int) -> tuple[Places, Places]:
    """Places and lengths of compressed frames, with the heads of their fragments."""
    table, data = _basic_table(file, part, begin)
    if part.offsets is not None:
        places, lengths = data + part.offsets[:, 0], part.offsets[:, 1] + 8
        if (
            (lengths > 8).all()
            and (lengths < MAX_TILE_BYTES).all()
            and (places >= data).all()
            and (places < 2**62).all()
        ):
            return places, lengths
    if len(table) == part.frames and (np.diff(table) > 8).all() and table[0] == 0:
        last = _until_end(file, int(data + table[-1]), end)
        return data + table, np.append(np.diff(table), last)
    return _scanned(file, part, data, table)


def _basic_table(file: BinaryIO, part: Instance, begin: int) -> tuple[Places, int]:
    """The basic offset table, which may be empty, and where the fragments begin."""
    file.seek(begin)
    head = file.read(8)
    if head[:4] != _ITEM or len(head) < 8:
        raise SlideError(f"{part.name} has compressed pixels without their first item; it is damaged")
    length = struct.unpack("<I", head[4:])[0]
    raw = file.read(min(length, 4 * part.frames + 8))
    table = np.frombuffer(raw[: len(raw) // 4 * 4], "<u4").astype(np.int64)
    return table, begin + 8 + length


def _until_end(file: BinaryIO, place: int, end: int) -> int:
    """Bytes from the fragment at `place` to the end of the sequence; more than there are, where the file is cut off."""
    begin = place
    for _ in range(4096):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[:4] != _ITEM:
            return place - begin if len(head) == 8 else max(end - begin + 1, 1)
        place += 8 + int(struct.unpack("<I", head[4:])[0])
    return place - begin


def _scanned(file: BinaryIO, part: Instance, data: int, table: Places) -> tuple[Places, Places]:
    """Frames as a walk over all fragments finds them: one each, or by a table whose upper bits overflowed."""
    places = np.zeros(part.frames + 1, np.int64)
    place = data
    for index in range(part.frames + 1):
        places[index] = place
        file.seek(place)
        head = file.read(8)
        if head[:4] == _END:
            if index < part.frames:
                raise SlideError(f"{part.name} has {index} pieces of data for {part.frames} frames; it is damaged")
            return places[:-1], np.diff(places)
        if len(head) < 8:  # cut off: what is not there has a place behind the end
            places[index:] = place + np.arange(part.frames + 1 - index)
            return places[:-1], np.diff(places)
        if head[:4] != _ITEM:
            break
        place += 8 + int(struct.unpack("<I", head[4:])[0])
    raise SlideError(
        f"{part.name} has other pieces of data than its {part.frames} frames and no table of them"
        f"{'' if not len(table) else ' that fits'}; store it anew, one piece a frame"
    )
