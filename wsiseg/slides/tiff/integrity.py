"""Whether a JPEG tile is whole: what a decoder does not tell.

libjpeg treats damaged entropy-coded data as a warning and goes on: it fills in grey, or, where the Huffman codes fall
into step again, shows blocks at wrong places. Most libraries pass that on in silence. Both leave a trace: the coded
data end too early, or some are left over when the last block is filled. One cheap decode tells: the tile's header is
changed to promise one more row of blocks than there is. A sound tile has nothing to fill it with: libjpeg begins its
first block, finds the end, and leaves the others grey (128 in every channel, all coefficients zero). Left-over data
show up there; where the end came before, the first block is grey too. At an eighth of the scale only the means of the
blocks are computed, which is all that is needed.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from wsiseg.geometry import ceil_div

GREY = 128
"""What libjpeg makes of a block without data."""

_SOF_HUFFMAN = (0xC0, 0xC1)
_SOS = 0xDA
_MAX_HEIGHT = 65500


def join_tables(data: bytes, tables: bytes | None) -> bytes:
    """A JPEG that stands alone, from a TIFF tile and the file's JPEGTables."""
    return data if not tables else tables[:-2] + data[2:]


def jpeg_fault(data: bytes) -> str | None:
    """Look for damage in a JPEG: what is wrong, None where nothing is found.

    Finds data that end early, data that are left over (by more than a block) and what no decoder accepts. Damage that
    leaves the number of blocks as it was cannot be told from an image. Progressive JPEGs are only checked for being
    decodable.

    Args:
        data: a JPEG with its tables; see `join_tables`.
    """
    try:
        frame = _frame(data)
        if frame is None:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
            return None
        position, height, unit_width, unit_height = frame
        rows = ceil_div(height, unit_height) * unit_height
        if rows + unit_height > _MAX_HEIGHT:
            return None
        longer = data[:position] + struct.pack(">H", rows + unit_height) + data[position + 2 :]
        with Image.open(io.BytesIO(longer)) as image:
            image.draft(None, (image.width // 8, image.height // 8))
            means = np.asarray(image)
    except (OSError, ValueError, SyntaxError, IndexError, struct.error, Image.DecompressionBombError) as error:
        return f"cannot be decoded ({error})"
    unit_x, unit_y, last = unit_width // 8, unit_height // 8, rows // 8
    if (means[last:, unit_x:] != GREY).any():
        return "has data left over"
    # A sound tile's padding makes the decoder begin the first added unit, at the mean of the unit before.
    if (means[last : last + unit_y, :unit_x] == GREY).all():
        return "ends early"
    return None


def _frame(data: bytes) -> tuple[int, int, int, int] | None:
    """Where the height stands, the height, and the width and height of a coded unit; None if not sequential."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("no JPEG marker at its start")
    position = 2
    while position < len(data) - 4:
        if data[position] != 0xFF:
            raise ValueError("no marker where one belongs")
        marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        if marker in _SOF_HUFFMAN:
            height, _, components = struct.unpack_from(">HHB", data, position + 5)
            sampling = [data[position + 11 + 3 * component] for component in range(components)]
            return position + 5, height, 8 * max(s >> 4 for s in sampling), 8 * max(s & 15 for s in sampling)
        if marker == _SOS or (0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return None
        position += 2 + length
    raise ValueError("no image in it")
