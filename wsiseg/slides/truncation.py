"""Whether a TIFF was cut off: its directories form a chain, and writers put them, or some of them, at the end."""

from __future__ import annotations

import struct
from pathlib import Path

from wsiseg.errors import SlideError

_CLASSIC, _BIG = 42, 43
_MAX_DIRECTORIES = 65536


def require_whole_tiff(path: Path) -> None:
    """Raise `SlideError` on a TIFF with a directory beyond its end; other files pass.

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
        while place and place not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(place)
            file.seek(place)
            raw = file.read(struct.calcsize(count_format))
            if len(raw) < struct.calcsize(count_format):
                raise _cut_off(path, length, place)
            file.seek(struct.unpack(order + count_format, raw)[0] * entry, 1)
            raw = file.read(struct.calcsize(place_format))
            if len(raw) < struct.calcsize(place_format):
                raise _cut_off(path, length, place)
            place = struct.unpack(order + place_format, raw)[0]


def _cut_off(path: Path, length: int, place: int | None = None) -> SlideError:
    where = "" if place is None else f", a directory belongs at byte {place:,}"
    return SlideError(f"{path.name} is cut off: it ends at byte {length:,}{where}; copy it again")
