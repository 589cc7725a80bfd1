"""The frames of DICOM slides as RGB, by their transfer syntax and the colours that are stated."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Size
from wsiseg.slides.claims import require_claim, transforms_colours
from wsiseg.slides.damage import UnreadableError

Pixels = npt.NDArray[np.uint8]

RAW = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
JPEG = ("1.2.840.10008.1.2.4.50",)
_J2K = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_JPEGLS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_RLE = "1.2.840.10008.1.2.5"

_JFIF, _ADOBE, _SOS, _SOF55, _EOI = 0xE0, 0xEE, 0xDA, 0xF7, 0xD9
_RST_FIRST, _RST_LAST = 0xD0, 0xD7
_MARKER = re.compile(rb"\xff[\x80-\xff]")


def decode(data: bytes, syntax: str, photometric: str, tile: Size, *, planar: bool = False) -> Pixels:
    """The pixels of a frame, (tile.height, tile.width, 3) uint8 RGB.

    Args:
        data: the frame's bytes.
        syntax: a transfer syntax of `CODECS`.
        photometric: the colours as the instance states them.
        tile: size of a frame.
        planar: whether an uncompressed frame holds one colour after the other.

    Raises:
        UnreadableError: it cannot be decoded, or to another size.
    """
    require_claim(data, tile)
    try:
        pixels = np.asarray(CODECS[syntax](data, photometric, tile, planar))
    except UnreadableError:
        raise
    except Exception as error:  # codecs raise whatever they like on damaged data
        raise UnreadableError(str(error)) from error
    if pixels.shape != (tile.height, tile.width, 3) or pixels.dtype != np.uint8:
        raise UnreadableError(f"is an array of {pixels.shape} {pixels.dtype}")
    return pixels


def jpeg_says(data: bytes) -> str:
    """The colours that a JPEG itself states, "RGB" or "YBR"; empty where it leaves them to the file around it."""
    place, ids = 2, b""
    try:
        while data[place + 1] != _SOS:
            marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
            if marker == _JFIF and data[place + 4 : place + 8] == b"JFIF":
                return "YBR"
            if marker == _ADOBE and data[place + 4 : place + 9] == b"Adobe":
                return "YBR" if data[place + 15] else "RGB"
            if 0xC0 <= marker <= 0xC2:
                ids = data[place + 10 : place + 19 : 3]
                if len(set(data[place + 11 : place + 20 : 3])) > 1:  # fewer pixels of colour than of light
                    return "YBR"
            place += 2 + length
    except (IndexError, struct.error):
        return ""  # damaged: the decoder says so
    return "RGB" if ids == b"RGB" else ""


def _jpeg(data: bytes, photometric: str, _tile: Size, _planar: bool) -> Pixels:
    colours = jpeg_says(data) or ("RGB" if photometric == "RGB" else "YBR")
    stored = "RGB" if colours == "RGB" else "YCBCR"
    return imagecodecs.jpeg8_decode(data, colorspace=stored, outcolorspace="RGB")


def _jpeg2000(data: bytes, photometric: str, _tile: Size, _planar: bool) -> Pixels:
    """Where the stream itself says that colours were transformed, its decoder transforms them back."""
    pixels = imagecodecs.jpeg2k_decode(data)
    if photometric in ("YBR_FULL", "YBR_FULL_422", "YBR_ICT") and not transforms_colours(data):
        return _from_ybr(pixels)
    return pixels


def _jpeg_ls(data: bytes, photometric: str, tile: Size, _planar: bool) -> Pixels:
    place = 2
    while place + 9 < len(data) and data[place + 1] not in (_SOF55, _SOS):
        place += 2 + int(struct.unpack_from(">H", data, place + 2)[0])
    height, width, channels = struct.unpack_from(">HHB", data, place + 5)
    if (height, width, channels) != (tile.height, tile.width, 3):
        raise UnreadableError(f"states a size of {width} x {height} px with {channels} channels")
    _require_whole_scans(data, place)
    return _coloured(imagecodecs.jpegls_decode(data), photometric)


def _require_whole_scans(data: bytes, place: int) -> None:
    """Refuse a JPEG-LS stream whose scans do not reach to its end: its decoder may take minutes over one.

    Args:
        data: the stream.
        place: of a segment before the first scan.
    """
    while place + 4 <= len(data):
        marker = data[place + 1]
        if marker == _EOI:
            break
        if _RST_FIRST <= marker <= _RST_LAST:
            place += 2
        else:
            place += 2 + int(struct.unpack_from(">H", data, place + 2)[0])
            if marker != _SOS and data[place : place + 1] == b"\xff":
                continue
        found = _MARKER.search(data, place)  # within a scan a zero bit follows each byte of ones
        if found is None:
            break
        place = found.start()
    if data[place : place + 2] != b"\xff\xd9" or data[place + 2 :].strip(b"\0"):
        raise UnreadableError("ends before its data do")


def _rle(data: bytes, photometric: str, tile: Size, _planar: bool) -> Pixels:
    room = bytearray(3 * tile.area)
    imagecodecs.dicomrle_decode(data, "u1", out=room)
    planes = np.frombuffer(room, np.uint8).reshape(3, *tile.shape)
    return _coloured(np.ascontiguousarray(planes.transpose(1, 2, 0)), photometric)


def _raw(data: bytes, photometric: str, tile: Size, planar: bool) -> Pixels:
    samples = np.frombuffer(data, np.uint8, 3 * tile.area)
    if planar:
        return _coloured(np.ascontiguousarray(samples.reshape(3, *tile.shape).transpose(1, 2, 0)), photometric)
    return _coloured(samples.reshape(*tile.shape, 3), photometric)


def _coloured(pixels: Pixels, photometric: str) -> Pixels:
    if photometric == "YBR_FULL_422":
        raise UnreadableError("is YBR_FULL_422 without JPEG, which is not read")
    return _from_ybr(pixels) if photometric.startswith("YBR") else pixels


def _from_ybr(pixels: Pixels) -> Pixels:
    """RGB from full-range BT.601."""
    y, cb, cr = np.moveaxis(pixels.astype(np.float32), -1, 0)
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return np.asarray(np.rint(rgb).clip(0, 255), np.uint8)


Codec = Callable[[bytes, str, Size, bool], Any]

CODECS: Mapping[str, Codec] = {
    **dict.fromkeys(RAW, _raw),
    **dict.fromkeys(JPEG, _jpeg),
    **dict.fromkeys(_J2K, _jpeg2000),
    **dict.fromkeys(_JPEGLS, _jpeg_ls),
    _RLE: _rle,
}
"""How frames are decoded, by transfer syntax; what is not in it is refused."""

COLOURS_OF_CODECS: Mapping[str, tuple[str, ...]] = {
    "YBR_FULL_422": (*JPEG, *_J2K),
    "YBR_ICT": (*JPEG, *_J2K),
    "YBR_RCT": _J2K,
}
"""Colours that belong to some transfer syntaxes; elsewhere it is not known how samples were stored."""
