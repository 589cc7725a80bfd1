"""Whether a TIFF was cut off or makes a library crash or hang, told from its directories alone.

They form a chain, and writers put them, or some of them, at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wsiseg.errors import SlideError

_CLASSIC, _BIG = 42, 43
_MAX_DIRECTORIES = 65536
_MAX_ENTRIES = 4096
_WIDTH, _HEIGHT, _ABOUT, _TILE_WIDTH = 256, 257, 270, 322
_LENGTHS = (279, 325)
"""The tags that hold the bytes of each strip or tile."""

_NUMBERS = {3: "H", 4: "I", 16: "Q"}
_LONG_KINDS = {4: 4, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of each value, by the kind."""

_APERIO = b"Aperio"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Byte order, and the forms of a count of entries and of a place; an entry is 4 bytes, a place and a place long."""

    order: str
    count: str
    place: str

    @property
    def place_bytes(self) -> int:
        return struct.calcsize(self.place)

    @property
    def entry_bytes(self) -> int:
        return 4 + 2 * self.place_bytes

    def read(self, form: str, raw: bytes, start: int = 0) -> int:
        value: int = struct.unpack_from(self.order + form, raw, start)[0]
        return value


def require_whole_tiff(path: Path, longest: int = 2**32) -> None:
    """Raise `SlideError` on a TIFF with a directory beyond its end, or what no library may see; other files pass.

    A TIFF whose directories are whole but whose tiles are not passes too: its missing tiles are damaged tiles.

    Args:
        path: the file.
        longest: bytes that a tile or strip may state to have, where the file has fewer.
    """
    length = path.stat().st_size
    longest = max(length, longest)
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 4:
            return
        magic = struct.unpack_from(order + "H", head, 2)[0]
        if magic not in (_CLASSIC, _BIG) or (magic == _CLASSIC and length >= 2**32):
            return  # Hamamatsu's NDPI keeps the upper half of long offsets elsewhere
        layout = _Layout(order, "H", "I") if magic == _CLASSIC else _Layout(order, "Q", "Q")
        first = 4 if magic == _CLASSIC else 8
        if len(head) < first + layout.place_bytes:
            raise _cut_off(path, length)
        largest: Mapping[int, int] | None = None
        place = layout.read(layout.place, head, first)
        for index, entries in enumerate(_directories(path, file, length, layout, place)):
            _require_lengths(path, file, longest, layout, entries)
            tags = _tags(layout, entries)
            if index == 0 and _is_aperio(file, tags):
                largest = tags
            elif largest is not None:
                _require_smaller(path, tags, largest)


def _directories(path: Path, file: BinaryIO, length: int, layout: _Layout, place: int) -> Iterator[bytes]:
    """The entries of each directory, the first at `place`."""
    seen: set[int] = set()
    while place and len(seen) < _MAX_DIRECTORIES:
        if place in seen:  # tifffile would go round and round
            raise SlideError(f"{path.name} is damaged: its directories lead back to byte {place:,}; copy it again")
        seen.add(place)
        if place >= length:  # it may be more than a file can be sought to
            raise _cut_off(path, length, place)
        file.seek(place)
        raw = file.read(struct.calcsize(layout.count))
        if len(raw) < struct.calcsize(layout.count):
            raise _cut_off(path, length, place)
        count = layout.read(layout.count, raw)
        end = file.tell() + count * layout.entry_bytes
        if end + layout.place_bytes > length:
            raise _cut_off(path, length, place)
        yield file.read(min(count, _MAX_ENTRIES) * layout.entry_bytes)
        file.seek(end)
        raw = file.read(layout.place_bytes)
        if len(raw) < layout.place_bytes:  # the file shrank meanwhile
            raise _cut_off(path, length, place)
        place = layout.read(layout.place, raw)


def _entries(layout: _Layout, entries: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Tag, kind, count, and where in `entries` the value or its place stands."""
    for start in range(0, len(entries) - layout.entry_bytes + 1, layout.entry_bytes):
        tag, kind = struct.unpack_from(layout.order + "HH", entries, start)
        yield tag, kind, layout.read(layout.place, entries, start + 4), start + 4 + layout.place_bytes


def _tags(layout: _Layout, entries: bytes) -> dict[int, int]:
    """Those tags of a directory that hold one whole number, and the place of the description."""
    found = {}
    for tag, kind, count, start in _entries(layout, entries):
        form = layout.place if tag == _ABOUT else _NUMBERS.get(kind)
        # A value wider than its field stands elsewhere: the place of it is no number to compare.
        if form and (tag == _ABOUT or (count == 1 and struct.calcsize(form) <= layout.place_bytes)):
            found[tag] = layout.read(form, entries, start)
    return found


def _require_lengths(path: Path, file: BinaryIO, longest: int, layout: _Layout, entries: bytes) -> None:
    """OpenSlide takes as much memory for a tile as it says to have bytes, and ends the process where that fails."""
    end = file.seek(0, 2)
    for tag, kind, count, start in _entries(layout, entries):
        width = _LONG_KINDS.get(kind, 0)
        if tag not in _LENGTHS or 256**width <= longest:
            continue
        place = layout.read(layout.place, entries, start)
        if width * count <= layout.place_bytes:
            raw = entries[start : start + width * count]
        elif place < end:
            file.seek(place)
            raw = file.read(min(width * count, end - place))
        else:
            continue  # no library finds them either
        lengths = np.frombuffer(raw[: len(raw) // width * width], f"{layout.order}u{width}")
        if len(lengths) and int(lengths.max()) > longest:
            raise SlideError(f"{path.name} is damaged: a tile states {int(lengths.max()):,} bytes; copy it again")


def _is_aperio(file: BinaryIO, tags: Mapping[int, int]) -> bool:
    try:
        file.seek(tags.get(_ABOUT, 0))
        return file.read(len(_APERIO)) == _APERIO
    except (OSError, OverflowError, ValueError):
        return False


def _require_smaller(path: Path, tags: Mapping[int, int], largest: Mapping[int, int]) -> None:
    """In an Aperio slide the first level is the largest; where another is, OpenSlide divides by zero."""
    if _TILE_WIDTH not in tags:
        return
    for side in (_WIDTH, _HEIGHT):
        if side in tags and side in largest and tags[side] > largest[side]:
            raise SlideError(
                f"{path.name} has a level of {tags.get(_WIDTH)} x {tags.get(_HEIGHT)} px, larger than its first of "
                f"{largest.get(_WIDTH)} x {largest.get(_HEIGHT)} px; it is damaged"
            )


def _cut_off(path: Path, length: int, place: int | None = None) -> SlideError:
    where = "" if place is None else f", a directory belongs at byte {place:,}"
    return SlideError(f"{path.name} is cut off: it ends at byte {length:,}{where}; copy it again")
