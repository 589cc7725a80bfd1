"""A small MIRAX slide out of known pixels, as OpenSlide reads it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

TILE = 64
_SECTION = """[LAYER_0_LEVEL_{level}_SECTION]
OVERLAP_X = 0
OVERLAP_Y = 0
MICROMETER_PER_PIXEL_X = {mpp}
MICROMETER_PER_PIXEL_Y = {mpp}
IMAGE_FORMAT = PNG
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = 64
DIGITIZER_HEIGHT = 64
IMAGE_CONCAT_FACTOR = {concat}
"""


def write_mirax(path: Path, pixels: npt.NDArray[np.uint8], levels: int = 2, data_files: int = 2) -> Path:
    """Write `path` (NAME.mrxs) and its folder; `pixels` are (height, width, 3), whole tiles of 64.

    Level n + 1 is every second pixel of level n; tiles go in turn into `data_files` files.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    data = [io.BytesIO() for _ in range(data_files)]
    pages = []
    for level in range(levels):
        step = 2**level
        entries = []
        for y in range(0, rows, step):
            for x in range(0, columns, step):
                tile = pixels[::step, ::step][y // step * TILE :, x // step * TILE :][:TILE, :TILE]
                number = len(entries) % data_files
                entries.append((y * columns + x, *_append(data[number], tile), number))
        pages.append(entries)
    (folder / "Index.dat").write_bytes(_index("ABCDEF0123456789", pages))
    for number, content in enumerate(data):
        (folder / f"Data{number:04d}.dat").write_bytes(content.getvalue())
    (folder / "Slidedat.ini").write_text(_slidedat(rows, columns, levels, data_files), encoding="utf-8-sig")
    Image.fromarray(pixels).resize((300, 200)).save(path, format="JPEG")
    return path


def _append(file: io.BytesIO, tile: npt.NDArray[np.uint8]) -> tuple[int, int]:
    whole = np.full((TILE, TILE, 3), 255, np.uint8)
    whole[: tile.shape[0], : tile.shape[1]] = tile
    start = file.tell()
    Image.fromarray(whole).save(file, format="PNG")
    file.seek(0, 2)
    return start, file.tell() - start


def _index(slide_id: str, levels: list[list[tuple[int, int, int, int]]]) -> bytes:
    """Version, slide, roots, a pointer for each level, and for each one page of all its tiles."""
    head = b"01.02" + slide_id.encode()
    table = len(head) + 8
    place = table + 4 * len(levels)
    pointers, body = b"", b""
    for entries in levels:
        pointers += struct.pack("<i", place + len(body))
        body += struct.pack("<iiii", 0, place + len(body) + 8, len(entries), 0)
        body += b"".join(struct.pack("<iiii", *entry) for entry in entries)
    return head + struct.pack("<ii", table, 0) + pointers + body


def _slidedat(rows: int, columns: int, levels: int, data_files: int) -> str:
    lines = [
        *("[GENERAL]", "SLIDE_VERSION = 01.02", "SLIDE_ID = ABCDEF0123456789"),
        *(f"IMAGENUMBER_X = {columns}", f"IMAGENUMBER_Y = {rows}", "OBJECTIVE_MAGNIFICATION = 20"),
        *("CameraImageDivisionsPerSide = 1", "[HIERARCHICAL]", "INDEXFILE = Index.dat", "HIER_COUNT = 1"),
        *("HIER_0_NAME = Slide zoom level", f"HIER_0_COUNT = {levels}", "NONHIER_COUNT = 0"),
    ]
    for level in range(levels):
        lines += [
            f"HIER_0_VAL_{level} = ZoomLevel_{level}",
            f"HIER_0_VAL_{level}_SECTION = LAYER_0_LEVEL_{level}_SECTION",
        ]
    lines += [_SECTION.format(level=n, mpp=0.5 * 2**n, concat=int(n > 0)).rstrip() for n in range(levels)]
    lines += ["[DATAFILE]", f"FILE_COUNT = {data_files}", *(f"FILE_{n} = Data{n:04d}.dat" for n in range(data_files))]
    return "\n".join(lines) + "\n"
