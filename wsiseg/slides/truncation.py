"""Whether a TIFF was cut off or makes OpenSlide crash, told from its directories alone.

They form a chain, and writers put them, or some of them, at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from wsiseg.errors import SlideError

_CLASSIC, _BIG = 42, 43
_MAX_DIRECTORIES = 65536
_MAX_ENTRIES = 4096
_WIDTH, _HEIGHT, _ABOUT, _TILE_WIDTH = 256, 257, 270, 322
_NUMBERS = {3: "H", 4: "I", 16: "Q"}
_APERIO = b"Aperio"


def require_whole_tiff(path: Path) -> None:
    """Raise `SlideError` on a TIFF with a directory beyond its end, or levels out of order; other files pass.

    A TIFF whose directories are whole but whose tiles are not passes too: its missing tiles are damaged tiles.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 4:
            return
        magic = struct.unpack_from(order + "H", head, 2)[0]
        if magic not in (_CLASSIC, _BIG) or (magic == _CLASSIC and length >= 2**32):
            return  # Hamamatsu's NDPI keeps the upper half of long offsets elsewhere
        # Entries: a count, then 12 or 20 bytes each, then the place of the next directory.
        count_format, entry, place_format = ("H", 12, "I") if magic == _CLASSIC else ("Q", 20, "Q")
        first = 4 if magic == _CLASSIC else 8
        if len(head) < first + struct.calcsize(place_format):
            raise _cut_off(path, length)
        place = struct.unpack_from(order + place_format, head, first)[0]
        seen: set[int] = set()
        largest: Mapping[int, int] | None = None
        while place and place not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(place)
            if place >= length:  # it may be more than a file can be sought to
                raise _cut_off(path, length, place)
            file.seek(place)
            raw = file.read(struct.calcsize(count_format))
            if len(raw) < struct.calcsize(count_format):
                raise _cut_off(path, length, place)
            count = struct.unpack(order + count_format, raw)[0]
            end = file.tell() + count * entry
            if end + struct.calcsize(place_format) > length:
                raise _cut_off(path, length, place)
            tags = _tags(file.read(min(count, _MAX_ENTRIES) * entry), order, entry)
            if len(seen) == 1 and _is_aperio(file, tags):
                largest = tags
            elif largest is not None:
                _require_smaller(path, tags, largest)
            file.seek(end)
            raw = file.read(struct.calcsize(place_format))
            if len(raw) < struct.calcsize(place_format):  # the file shrank meanwhile
                raise _cut_off(path, length, place)
            place = struct.unpack(order + place_format, raw)[0]


def _tags(raw: bytes, order: str, entry: int) -> dict[int, int]:
    """Those tags of a directory that hold one whole number, and the place of the description."""
    long, found = "Q" if entry == 20 else "I", {}
    for start in range(0, len(raw), entry):
        tag, kind = struct.unpack_from(order + "HH", raw, start)
        count = struct.unpack_from(order + long, raw, start + 4)[0]
        code = long if tag == _ABOUT else _NUMBERS.get(kind)
        # A value wider than its field stands elsewhere: the place of it is no number to compare.
        if code and (tag == _ABOUT or (count == 1 and struct.calcsize(code) <= struct.calcsize(long))):
            found[tag] = struct.unpack_from(order + code, raw, start + 4 + struct.calcsize(long))[0]
    return found


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
