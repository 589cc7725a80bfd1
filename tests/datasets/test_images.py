"""Patches and masks in every format: read right against known pixels, or refused by name."""

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsiseg.datasets.check import check_dataset
from wsiseg.datasets.dataset import read_dataset
from wsiseg.datasets.images import image_size, read_image
from wsiseg.datasets.masks import MaskCoding
from wsiseg.errors import DatasetError

COLORS = ((213, 45, 45), (60, 90, 200))


@pytest.fixture(scope="module")
def pixels(sample_data: Path) -> np.ndarray:
    """Real tissue, 64 wide and 48 high."""
    path = sorted((sample_data / "patches" / "images").iterdir())[0]
    return np.array(Image.open(path).convert("RGB"))[:48, :64]


def shown(pixels: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]


def tiff(pixels: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)  # type: ignore[arg-type]


def alpha(pixels: np.ndarray) -> np.ndarray:
    """Opaque, but for the first row, which is transparent and black."""
    out = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    out[0] = 0
    return out


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def interlaced(pixels: np.ndarray) -> bytes:
    """An Adam7 PNG, which Pillow cannot write."""
    height, width = pixels.shape[:2]
    rows = b""
    for y, x, dy, dx in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        for row in pixels[y::dy, x::dx]:
            rows += b"\0" + row.tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png16(channels: int) -> bytes:
    """A PNG of 16 bits a channel in colour, which Pillow reads the high bytes of."""
    rows = b"".join(b"\0" + b"\x12\x34" * channels * 8 for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


LOSSLESS: dict[str, Callable[[np.ndarray], Callable[[Path], None]]] = {
    "plain.png": shown,
    "PLAIN.PNG": lambda p: lambda path: Image.fromarray(p).save(path, format="PNG"),
    "interlaced.png": lambda p: lambda path: path.write_bytes(interlaced(p)),
    "plain.bmp": shown,
    "lossless.webp": lambda p: shown(p, lossless=True),
    "plain.ppm": shown,
    "called.jpg": lambda p: lambda path: Image.fromarray(p).save(path, format="PNG"),
    "plain.tif": shown,
    "lzw.tif": lambda p: shown(p, compression="tiff_lzw"),
    "deflate.tiff": lambda p: shown(p, compression="tiff_adobe_deflate"),
    "packbits.tif": lambda p: shown(p, compression="packbits"),
    "tiled.tif": lambda p: tiff(p, tile=(16, 32), photometric="rgb"),
    "tiled-deflate.tif": lambda p: tiff(p, tile=(16, 16), photometric="rgb", compression="zlib", predictor=True),
    "big-endian.tif": lambda p: tiff(p, byteorder=">", photometric="rgb"),
    "bigtiff.tif": lambda p: tiff(p, bigtiff=True, photometric="rgb"),
    "planes.tif": lambda p: tiff(np.moveaxis(p, 2, 0).copy(), photometric="rgb", planarconfig="separate"),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_are_read_pixel_by_pixel(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    LOSSLESS[name](pixels)(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), pixels)
    assert image_size(tmp_path / name) == (64, 48)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("p.jpg", {"quality": 95}),
        ("p.jpeg", {"quality": 95, "progressive": True}),
        ("p.tif", {"compression": "jpeg", "quality": 95}),
        ("p.webp", {"quality": 95}),
    ],
)
def test_lossy_formats_are_read_closely(
    tmp_path: Path, pixels: np.ndarray, name: str, options: dict[str, object]
) -> None:
    shown(pixels, **options)(tmp_path / name)
    difference = np.abs(read_image(tmp_path / name).astype(int) - pixels)
    assert 0 < difference.mean() < 8


def test_a_telephones_jpeg_is_its_first_picture(tmp_path: Path, pixels: np.ndarray) -> None:
    first, second = Image.fromarray(pixels), Image.fromarray(255 - pixels)
    first.save(tmp_path / "p.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    first.save(tmp_path / "plain.jpg", quality=95)
    with Image.open(tmp_path / "p.jpg") as image:
        assert image.format == "MPO"
    np.testing.assert_array_equal(read_image(tmp_path / "p.jpg"), read_image(tmp_path / "plain.jpg"))


@pytest.mark.parametrize("name", ["p.png", "p.tif", "p.webp"])
def test_what_is_transparent_is_white(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    shown(alpha(pixels), **({"lossless": True} if name.endswith("webp") else {}))(tmp_path / name)
    read = read_image(tmp_path / name)
    assert (read[0] == 255).all()
    np.testing.assert_array_equal(read[1:], pixels[1:])


@pytest.mark.parametrize("name", ["p.png", "p.gif", "p.bmp", "p.tif"])
def test_palettes_and_grey_are_read_as_their_colours(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    palette = Image.fromarray(pixels).quantize(32)
    palette.save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), np.array(palette.convert("RGB")))
    grey = Image.fromarray(pixels).convert("L")
    grey.save(tmp_path / f"grey-{name}")
    np.testing.assert_array_equal(read_image(tmp_path / f"grey-{name}"), np.array(grey.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_as_everyone_sees_them(tmp_path: Path, pixels: np.ndarray, orientation: int) -> None:
    """EXIF says how a picture is to be turned; undone here by hand."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "p.png"
    Image.fromarray(pixels).save(path, exif=exif)
    turned = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.swapaxes(0, 1),
              6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(pixels)}  # fmt: skip
    np.testing.assert_array_equal(read_image(path), turned[orientation])
    assert image_size(path) == turned[orientation].shape[1::-1]


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "grey16.png": (lambda p: Image.fromarray(np.full((8, 8), 20_000, np.uint16)).save(p), "more than 8 bits"),
    "rgb16.png": (lambda p: p.write_bytes(png16(3)) and None, "more than 8 bits"),
    "rgba16.png": (lambda p: p.write_bytes(png16(4)) and None, "more than 8 bits"),
    "la16.png": (lambda p: p.write_bytes(png16(2)) and None, "more than 8 bits"),
    "rgb16.tif": (tiff(np.full((8, 8, 3), 4660, np.uint16), photometric="rgb"), "more than 8 bits"),
    "rgb16-big-endian.tif": (tiff(np.full((8, 8, 3), 4660, ">u2"), photometric="rgb", byteorder=">"), "8 bits"),
    "rgb16.ppm": (lambda p: p.write_bytes(b"P6\n# by hand\n8 8\n65535\n" + b"\x12\x34" * 192) and None, "8 bits"),
    "rgb12.ppm": (lambda p: p.write_bytes(b"P6 8 8 4095\n" + b"\x02\x34" * 192) and None, "8 bits"),
    "float.tif": (tiff(np.full((8, 8), 0.5, np.float32)), "8 bits"),
    "pages.tif": (tiff(np.zeros((3, 8, 8, 3), np.uint8), photometric="rgb"), "several pictures"),
    "frames.gif": (
        lambda p: Image.new("RGB", (8, 8), "red").save(p, save_all=True, append_images=[Image.new("RGB", (8, 8))]),
        "several pictures",
    ),
    "frames.png": (
        lambda p: Image.new("RGB", (8, 8), "red").save(p, save_all=True, append_images=[Image.new("RGB", (8, 8))]),
        "several pictures",
    ),
    "frames.webp": (
        lambda p: Image.new("RGB", (8, 8), "red").save(p, save_all=True, append_images=[Image.new("RGB", (8, 8))]),
        "several pictures",
    ),
    "cmyk.tif": (lambda p: Image.new("CMYK", (8, 8), (10, 200, 50, 0)).save(p), "CMYK, expected RGB"),
    "cmyk.jpg": (lambda p: Image.new("CMYK", (8, 8), (10, 200, 50, 0)).save(p), "CMYK, expected RGB"),
    "lab.tif": (lambda p: Image.new("LAB", (8, 8)).save(p), "LAB, expected RGB"),
    "empty.png": (lambda p: p.touch(), "the file is empty"),
    "text.tif": (lambda p: p.write_text("<html>404</html>") and None, "does not begin as PNG"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_right_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(DatasetError, match=message) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp", "webp", "gif", "ppm"])
def test_files_that_are_cut_off_are_refused(tmp_path: Path, pixels: np.ndarray, kind: str) -> None:
    path = tmp_path / f"p.{kind}"
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DatasetError, match=r"p\.\w+ cannot be read as an image"):
            read_image(path)


VALUES = np.repeat(np.array([[0, 1, 2, 255]], np.uint8), 4, axis=0)


def palette(values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values).convert("L").convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([*(v for color in COLORS for v in color), *([7] * (768 - 6))])
    return image


MASKS: dict[str, Callable[[Path], None]] = {
    "m.png": shown(VALUES),
    "m.bmp": shown(VALUES),
    "palette.png": lambda p: palette(VALUES).save(p),
    "palette.tif": lambda p: palette(VALUES).save(p),
    "palette.bmp": lambda p: palette(VALUES).save(p),
    "lzw.tif": shown(VALUES, compression="tiff_lzw"),
    "tiled.tif": tiff(VALUES, tile=(16, 16), photometric="minisblack"),
    "uint16.png": lambda p: Image.fromarray(VALUES.astype(np.uint16)).save(p),
    "uint16.tif": tiff(VALUES.astype(np.uint16)),
    "uint16-big-endian.tif": tiff(VALUES.astype(">u2"), byteorder=">"),
    "int32.tif": tiff(VALUES.astype(np.int32)),
    "lossless.webp": shown(
        np.array([*COLORS, (0, 0, 0), (255, 255, 255)], np.uint8)[[[0, 1, 2, 3]] * 4], lossless=True
    ),
    "colours.tif": shown(np.array([*COLORS, (0, 0, 0), (255, 255, 255)], np.uint8)[[[0, 1, 2, 3]] * 4]),
    "transparent.png": shown(
        np.array([(*COLORS[0], 255), (*COLORS[1], 128), (9, 9, 9, 0), (0, 0, 0, 255)], np.uint8)[[[0, 1, 2, 3]] * 4]
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_every_format(tmp_path: Path, name: str) -> None:
    MASKS[name](tmp_path / name)
    assert MaskCoding(2, None, COLORS).read(tmp_path / name).tolist() == [[0, 1, 2, 2]] * 4


def test_masks_of_few_bits_have_the_numbers_that_are_stored(tmp_path: Path) -> None:
    """Programs that make PNG small store four classes in 2 bits of grey; Pillow spreads them over 0 to 255."""
    for bits, values in ((2, [0, 1, 2, 3]), (4, [0, 1, 2, 3, 9, 15, 4, 0])):
        packed = int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(len(values) * bits // 8, "big")
        head = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
        data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + packed)) + chunk(b"IEND", b"")
        (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
        assert MaskCoding(16).read(tmp_path / "m.png").tolist() == [values]


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("m.jpg", lambda p: Image.fromarray(VALUES).save(p), "mask in JPEG"),
        ("m.tif", lambda p: Image.fromarray(VALUES).save(p, compression="jpeg"), "mask in JPEG"),
        ("white.tif", tiff(VALUES, photometric="miniswhite"), "0 is white"),
        ("float.tif", tiff(VALUES.astype(np.float32)), "whole numbers, got mode F"),
        ("la.png", lambda p: Image.new("LA", (4, 4)).save(p), "got mode LA"),
        ("many.tif", tiff(np.full((4, 4), 300, np.uint16)), "unknown class 300"),
        ("pages.tif", tiff(np.zeros((2, 4, 4), np.uint8), photometric="minisblack"), "several pictures"),
        ("empty.png", lambda p: p.touch(), "as a mask: the file is empty"),
    ],
)
def test_masks_that_may_mean_something_else_are_refused(
    tmp_path: Path, name: str, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(DatasetError, match=message):
        MaskCoding(2).read(tmp_path / name)


def test_a_turned_picture_with_a_mask_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "train" / "img").mkdir(parents=True)
    (tmp_path / "train" / "mask").mkdir()
    Image.new("RGB", (32, 32), (200, 90, 160)).save(tmp_path / "train" / "img" / "p-[10].jpg", exif=exif)
    Image.new("L", (32, 32)).save(tmp_path / "train" / "mask" / "p-[10].png")
    (tmp_path / "dataset.json").write_text(json.dumps({"mpp": 1, "classes": ["A", "B"]}))
    with pytest.raises(DatasetError, match="how its mask lies"):
        read_dataset(tmp_path)


def test_every_reader_of_patches_takes_every_format(tmp_path: Path, pixels: np.ndarray) -> None:
    """A set of TIFF, BMP and WebP passes the check and is what a training is given."""
    square = pixels[:48, :48]
    (tmp_path / "images").mkdir()
    for name, options in (("a.tif", {}), ("b.bmp", {}), ("c.webp", {"lossless": True}), ("d.png", {})):
        Image.fromarray(np.roll(square, ord(name[0]), axis=1)).save(tmp_path / "images" / name, **options)
    rows = "".join(f"images/{name},1,0,{name}\n" for name in ("a.tif", "b.bmp", "c.webp", "d.png"))
    (tmp_path / "labels.csv").write_text("file,A,B,group\n" + rows.replace("d.png,1,0", "d.png,0,1"))
    (tmp_path / "dataset.json").write_text('{"mpp": 0.5}')
    found = check_dataset(tmp_path)
    assert found.sound, found.problems
    for patch in read_dataset(tmp_path).train:
        np.testing.assert_array_equal(read_image(patch.path), np.roll(square, ord(patch.path.name[0]), axis=1))


def test_reading_in_a_fresh_process_with_threads(tmp_path: Path, pixels: np.ndarray) -> None:
    """Formats are registered before threads ask for them at once."""
    for number in range(16):
        Image.fromarray(pixels).save(tmp_path / f"{number}.tif")
    code = (
        "import sys; from pathlib import Path; from concurrent.futures import ThreadPoolExecutor\n"
        "from wsiseg.datasets.images import read_image\n"
        "with ThreadPoolExecutor(8) as pool: print(len(list(pool.map(read_image, Path(sys.argv[1]).iterdir()))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "16\n"


def test_bytes_are_not_decoded_by_what_a_file_is_called(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(buffer, format="ICNS")
    (tmp_path / "p.png").write_bytes(buffer.getvalue())
    with pytest.raises(DatasetError, match="does not begin as PNG"):
        read_image(tmp_path / "p.png")
