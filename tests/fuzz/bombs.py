"""Files of a few bytes that claim to be huge, one folder each, for every way in."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.fuzz import seeds
from wsiseg.geometry import ceil_div


def png(width: int, height: int, mode: int = 2) -> bytes:
    """A PNG (grey 0, colours 2, with transparency 6) of any size, all zero; sound up to a gigabyte."""
    row = zlib.compressobj(9)
    length = height * (1 + width * {0: 1, 2: 3, 6: 4}[mode])
    data = b"".join(row.compress(bytes(2**20)) for _ in range(ceil_div(min(length, 2**30), 2**20))) + row.flush()
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)),
            (b"IDAT", data),
            (b"IEND", b""),
        )
    )


def jpeg(width: int, height: int) -> bytes:
    """A JPEG whose head claims any size up to 65535 a side."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    place = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, place + 5, height, width)
    return bytes(data)


def tiff(width: int, height: int, tile: int) -> bytes:
    """A tiled TIFF that claims any size of image and tile."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), photometric="rgb", compression="zlib")
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        tags = opened.pages[0].tags
        for code, value in ((256, width), (257, height), (322, tile), (323, tile)):
            struct.pack_into("<HI", data, tags[code].offset + 2, 4, 1)
            struct.pack_into("<I", data, tags[code].offset + 8, value)
    return bytes(data)


def laughs() -> bytes:
    """An OME-TIFF whose description expands to gigabytes."""
    rows = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    about = f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a0 "haha">{rows}]><OME>&a11;</OME>'
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((64, 64, 3), np.uint8), photometric="rgb", description=about, metadata=None)
    return file.getvalue()


def slides(folder: Path) -> None:
    """Pictures and TIFFs of absurd size."""
    contents = {
        "wide.png": png(50_000, 50_000),
        "large.png": png(16_000, 11_000),
        "fits.png": png(11_000, 11_000, 6),
        "clear.png": png(15_000, 11_000, 6),
        "head.jpg": jpeg(65_500, 65_500),
        "side.tif": tiff(2**31, 2**31, 64),
        "all.tif": tiff(2**32 - 16, 2**32 - 16, 2**20),
        "tile.tif": tiff(60_000, 60_000, 60_000 // 16 * 16),
        "laughs.ome.tif": laughs(),
        "sixteen.tif": tiff(2**20, 2**20, 16),
    }
    for name, data in contents.items():
        (folder / name).mkdir()
        (folder / name / name).write_bytes(data)


def areas(folder: Path) -> None:
    """Tissue of one's own that unpacks to gigabytes."""
    contents = {
        "wide.png": png(50_000, 50_000, 0),
        "just.png": png(12_000, 9000),
        "zeros.geojson": gzip.compress(b" " * 2**30, 1),
        "deep.geojson": b"[" * 2_000_000,
        "lists.geojson": gzip.compress(b"[" + b"[]," * 80_000_000 + b"[]]", 1),
    }
    for name, data in contents.items():
        (folder / name).mkdir()
        (folder / name / name).write_bytes(data)


def datasets(folder: Path) -> None:
    """Images and masks of absurd size."""
    seeds.datasets(folder)
    for path in folder.iterdir():
        path.rename(folder / f"{path.name}-")
        (folder / path.name).mkdir()
        (folder / f"{path.name}-").rename(folder / path.name / path.name)
    shutil.copytree(folder / "table", folder / "table-mask")
    (folder / "table" / "table" / "images" / "0.png").write_bytes(png(30_000, 30_000))
    (folder / "table-mask" / "table" / "masks" / "1.png").write_bytes(png(30_000, 30_000, 0))
    next((folder / "folders" / "folders" / "train").iterdir()).write_bytes(png(13_000, 13_000))
    (folder / "cells" / "cells" / "images" / "0.png").write_bytes(jpeg(60_000, 60_000))


def maps(folder: Path) -> None:
    """Stores whose metadata state absurd sizes of arrays, shards and chunks."""
    big, changes = 2**31 - 1, {}
    changes["shape"] = {"shape": [big, big]}
    changes["shard"] = {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [big, big]}}}
    changes["huge"] = {"shape": [2**62, 2**62]}
    for name, change in changes.items():
        path = folder / name / "classes.zarr"
        shutil.copytree(Path(__file__).parent / "maps" / "classes.zarr", path)
        node = path / "labels" / "tissue" / "0" / "zarr.json"
        node.write_text(json.dumps({**json.loads(node.read_text()), **change}))
