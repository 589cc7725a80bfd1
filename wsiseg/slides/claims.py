"""How large a compressed tile says that its picture is, before anything is decoded.

Decoders of pictures allocate what the stream itself states, not what the TIFF around it does: twenty bytes can ask for
twelve gigabytes.
"""

from __future__ import annotations

import struct

from wsiseg.geometry import Size
from wsiseg.slides.damage import UnreadableError

_J2K_START = b"\xff\x4f\xff\x51"
_JP2_BOX = b"jP  "
_COD = 0x52
_HEAD_BYTES = 4096
_NO_FRAME = (0xC4, 0xC8, 0xCC)


def require_claim(data: bytes, tile: Size) -> None:
    """Raise `UnreadableError` where a JPEG, JPEG 2000, PNG or WebP states more than twice the sides of its tile.

    Writers may pad a tile; other streams pass.
    """
    claimed = claimed_size(data)
    if claimed is not None and (claimed.width > 2 * tile.width + 64 or claimed.height > 2 * tile.height + 64):
        raise UnreadableError(f"the picture of a tile of {tile} px states a size of {claimed} px")


def claimed_size(data: bytes) -> Size | None:
    """The size that the head of a JPEG, JPEG 2000, PNG or WebP states; None for anything else."""
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return Size(*struct.unpack_from(">II", data, 16))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        # Any other stream may hold the four bytes by chance, as one tile in a million of deflate does.
        in_box = data[4:8] == _JP2_BOX
        start = data.find(_J2K_START, 0, _HEAD_BYTES) if in_box else 0 if data.startswith(_J2K_START) else -1
        if start >= 0:
            width, height, left, top = struct.unpack_from(">IIII", data, start + 8)
            return Size(max(0, width - left), max(0, height - top))
    except (struct.error, IndexError):
        pass  # cut off: the decoder says so
    return None


def transforms_colours(data: bytes) -> bool:
    """Whether a JPEG 2000 stream says that its colours were transformed, so that decoders give red, green, blue."""
    place = data.find(_J2K_START, 0, _HEAD_BYTES) + 2
    try:
        while place > 1 and data[place] == 0xFF:
            if data[place + 1] == _COD:
                return data[place + 8] != 0
            place += 2 + int(struct.unpack_from(">H", data, place + 2)[0])
    except (struct.error, IndexError):
        pass  # cut off: the decoder says so
    return False


def _jpeg(data: bytes) -> Size | None:
    position = 2
    while position < len(data) - 9:
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # stand alone
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return Size(width, height)
        else:
            position += 2 + int(struct.unpack_from(">H", data, position + 2)[0])
    return None


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return Size(int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Size(width & 0x3FFF, height & 0x3FFF)
    return None
