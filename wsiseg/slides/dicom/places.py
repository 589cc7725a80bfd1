"""The places of a sparse DICOM image's frames, found in the bytes of the header.

A header has some three hundred bytes for each frame in nested sequences. To build objects of all of it takes
milliseconds a frame, minutes for a slide; only two numbers of it are needed, whose elements look the same each time.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from wsiseg.errors import SlideError
from wsiseg.geometry import Size

PER_FRAME = 0x52009230
PER_FRAME_START = struct.pack("<HH", 0x5200, 0x9230)
_PIXELS = re.compile(rb"\xe0\x7f\x10\x00O[BW]\x00\x00")
_COLUMN, _ROW = (re.compile(rb"\x48\x00" + tag + rb"\x02SL\x04\x00(.{4})", re.DOTALL) for tag in (b"\x1e", b"\x1f"))
_OFFSETS, _LENGTHS = (
    re.compile(rb"\xe0\x7f" + tag + rb"\x00OV\x00\x00(.{4})", re.DOTALL) for tag in (b"\x01", b"\x02")
)
_STEP, _MOST, _OVERLAP = 2**22, 2**29, 16


@dataclass(frozen=True)
class FoundPlaces:
    """The per-frame part of a header.

    Attributes:
        place: where the element of the pixels begins.
        corners: (frames, 2) column and row of each frame's first pixel, from 1; None where no frame states them.
        tables: the two extended offset tables, as bytes; empty where there is none.
    """

    place: int
    corners: npt.NDArray[np.int64] | None
    tables: tuple[bytes, bytes]


def find_places(file: BinaryIO, frames: int) -> FoundPlaces | None:
    """Read on from the element of the per-frame sequence; None where what is found there does not fit together."""
    start = file.tell()
    head = bytearray()
    while len(head) < _MOST:
        step = file.read(_STEP)
        if not step:
            return None
        searched = max(0, len(head) - _OVERLAP)
        head += step
        if (pixels := _PIXELS.search(head, searched)) is not None:
            break
    else:
        return None
    if not head.startswith(PER_FRAME_START):
        return None
    end = pixels.start()
    columns, rows = (_numbers(pattern, head, end) for pattern in (_COLUMN, _ROW))
    tables = (_table(_OFFSETS, head, end), _table(_LENGTHS, head, end))
    if not len(columns) == len(rows) == frames:
        return None if len(columns) or len(rows) else FoundPlaces(start + end, None, tables)
    return FoundPlaces(start + end, np.stack([columns, rows], axis=1), tables)


def stated_places(name: str, groups: Any) -> npt.NDArray[np.int64] | None:
    """The corners of frames, from the per-frame sequence as pydicom parsed it; None where no frame states any.

    Raises:
        SlideError: some frames state theirs, and others do not.
    """
    corners = []
    for group in groups or ():
        sequence = group.get("PlanePositionSlideSequence")
        if sequence:
            place = sequence[0]
            corners.append([int(place.get(f"{side}PositionInTotalImagePixelMatrix")) for side in ("Column", "Row")])
    if not corners:
        return None
    if len(corners) != len(groups):
        raise SlideError(f"{name} states no place for some of its frames; it is damaged")
    return np.array(corners, np.int64)


def cells_of(name: str, corners: npt.NDArray[np.int64], tile: Size, frames: int) -> npt.NDArray[np.int64]:
    """Column and row of the cell of each frame.

    Raises:
        SlideError: frames lie on no grid, or several at one place.
    """
    if len(corners) != frames:
        raise SlideError(f"{name} states places of {len(corners)} of its {frames} frames; it is damaged")
    places = corners - 1
    if (places % (tile.width, tile.height)).any() or (places < 0).any():
        raise SlideError(f"{name} has frames that lie on no common grid, which is not read; store it TILED_FULL")
    cells = places // (tile.width, tile.height)
    if len(np.unique(cells, axis=0)) < frames:
        raise SlideError(
            f"{name} holds several frames at one place: focal planes or optical paths, expected one of each; store the "
            "plane or path that is wanted apart"
        )
    return cells


def _numbers(pattern: re.Pattern[bytes], head: bytearray, end: int) -> npt.NDArray[np.int64]:
    return np.frombuffer(b"".join(pattern.findall(head, 0, end)), "<i4").astype(np.int64)


def _table(pattern: re.Pattern[bytes], head: bytearray, end: int) -> bytes:
    found = pattern.search(head, 0, end)
    if found is None:
        return b""
    return bytes(head[found.end() : found.end() + struct.unpack("<I", found[1])[0]])
