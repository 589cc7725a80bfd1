"""Tiles that claim to be huge are damaged tiles, and no memory is taken for them."""

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsiseg.geometry import Box, Size
from wsiseg.slides import open_slide
from wsiseg.slides.claims import claimed_size

PIXELS = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encoded("JPEG"),
        encoded("JPEG", progressive=True),
        encoded("PNG"),
        encoded("WEBP"),
        encoded("WEBP", lossless=True),
        encoded("WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
        encoded("JPEG2000"),
        imagecodecs.jpeg2k_encode(PIXELS, codecformat="j2k"),
    ],
    ids=["jpeg", "progressive", "png", "webp", "lossless", "vp8x", "jp2", "j2k"],
)
def test_the_size_that_a_stream_states(data: bytes) -> None:
    assert claimed_size(data) == Size(70, 50)
    for kept in range(0, 60, 7):
        claimed_size(data[:kept])  # raises nothing
    assert claimed_size(bytes(100)) is None


def inflate(path: Path, index: int) -> None:
    """Let a tile of a TIFF claim 65,500 x 65,500 pixels."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count, codec = page.dataoffsets[index], page.databytecounts[index], int(page.compression)
    data = bytearray(path.read_bytes())
    tile = bytes(data[offset : offset + count])
    if codec == 7:
        place = offset + next(tile.index(m) for m in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2") if m in tile)
        struct.pack_into(">HH", data, place + 5, 65_500, 65_500)
    else:
        place = offset + tile.index(b"\xff\x4f\xff\x51")
        struct.pack_into(">II", data, place + 8, 65_500, 65_500)
    path.write_bytes(data)


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
@pytest.mark.parametrize("layout", ["jpeg", "jpeg2000"])
def test_a_tile_that_claims_to_be_huge(tmp_path: Path, layout: str, reader: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 60, (256, 256, 3), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(64, 64), compression=layout, photometric="rgb")
    inflate(path, 5)
    with open_slide(path, reader=reader if layout == "jpeg" else "tiffslide", mpp=0.5) as slide:
        region = slide.read_level(0, Box(0, 0, 256, 256))
        assert slide.damaged_area == {Box(64, 64, 64, 64)}
        assert region.damaged is not None
        assert region.damaged.sum() == 64 * 64


def test_a_strip_that_claims_to_be_huge(tmp_path: Path) -> None:
    """Read by TiffSlide itself, which would hand it to the decoder as it is."""
    pixels = np.random.default_rng(0).integers(0, 60, (256, 256, 3), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, rowsperstrip=64, compression="jpeg", photometric="rgb")
    inflate(path, 1)
    with open_slide(path, reader="tiffslide", mpp=0.5) as slide:
        slide.read_level(0, Box(0, 0, 256, 256))
        assert slide.damaged_area == {Box(0, 64, 256, 64)}
