"""Patches from image files: the one reader of everything that looks at them."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Each registers its format with Pillow; left to Pillow, the first of several threads would do it for all of them.
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from wsiseg.errors import DatasetError

MAX_PX = 2**26
"""Pixels of an image or mask: 8192 a side, 200 MB in memory. A few bytes can claim any size."""

_FORMATS = tuple(
    kind.format
    for kind in (
        PngImagePlugin.PngImageFile,
        JpegImagePlugin.JpegImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile,
        WebPImagePlugin.WebPImageFile,
        PpmImagePlugin.PpmImageFile,
    )
)
"""What is opened, whatever a file is called. Pillow knows more, and would start other programs for some."""

_NAMED = "PNG, JPEG, TIFF, BMP, GIF, WebP or PPM"

_COLOURS = ("RGB", "RGBA", "RGBX", "YCbCr", "L", "LA", "P", "PA", "1")
"""Modes whose colours are known. CMYK and Lab mean nothing without the profile of a press."""

_BAD_FILE = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, MemoryError, EOFError,
             struct.error, NotImplementedError, Image.DecompressionBombError)  # fmt: skip
"""What Pillow's decoders raise on damaged files."""

_PNG_HEAD = 26
"""Bytes of a PNG up to its bits a channel and its kind of colour, the last two."""
_TIFF_BITS = 258
_PPM_HEAD = re.compile(rb"P[1-6]\s(?:\s|#[^\n]*\n)*\d+\s(?:\s|#[^\n]*\n)*\d+\s(?:\s|#[^\n]*\n)*(\d+)\s")
_UPRIGHT, _LYING = (0, 1), (5, 6, 7, 8)
"""EXIF's orientations of a picture that is stored as it is to be seen, and of one whose sides are exchanged."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image as RGB uint8 (H, W, 3), upright, transparent pixels on white.

    Raises:
        DatasetError: it cannot be read, is too large, has more than 8 bits a channel, more than one picture, or
            colours of a press (CMYK).
    """
    with opened(path, "an image") as image:
        if bits_of(path, image) > 8:
            raise DatasetError(
                f"{path} has more than 8 bits a channel, and does not say which of them are used: convert it to "
                "8 bits first"
            )
        if image.mode not in _COLOURS:
            raise DatasetError(f"{path} has colours of the kind {image.mode}, expected RGB or grey: convert it to RGB")
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            clear = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", clear.size, (255, 255, 255, 255)), clear)
        return np.array(upright.convert("RGB"))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in px as it is to be seen, from the head of the file.

    Raises:
        DatasetError: it cannot be read.
    """
    with opened(path, "an image") as image:
        width, height = image.size
        return (height, width) if _orientation(image) in _LYING else (width, height)


def is_turned(path: Path) -> bool:
    """Whether an image says that it is to be seen turned or mirrored, which leaves open how a mask of it lies.

    Raises:
        DatasetError: it cannot be read.
    """
    with opened(path, "an image") as image:
        return _orientation(image) not in _UPRIGHT


@contextmanager
def opened(path: Path, what: str) -> Iterator[Image.Image]:
    """The picture of a file, not decoded yet.

    Args:
        path: of the file.
        what: it is to be, for messages: "an image", "a mask".

    Raises:
        DatasetError: it is no file, none of the formats, too large, or holds several pictures; or what is done with it
            shows that it is damaged.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise DatasetError(f"{path} is not a file, replace or remove it")
    if not path.stat().st_size:
        raise DatasetError(f"{path} cannot be read as {what}: the file is empty, replace or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_FORMATS)
        with image:
            _require_one(path, image)
            yield image
    except DatasetError:
        raise
    except UnidentifiedImageError as error:
        raise DatasetError(
            f"{path} cannot be read as {what}: it does not begin as {_NAMED} does; convert, replace or remove it"
        ) from error
    except _BAD_FILE as error:
        raise DatasetError(
            f"{path} cannot be read as {what}, it may be cut off or damaged; replace or remove it"
        ) from error


def _require_one(path: Path, image: Image.Image) -> None:
    """Refuse what is too large or holds more than one picture; the small copy in a telephone's JPEG does not count."""
    if image.width * image.height > MAX_PX:
        raise DatasetError(
            f"{path} is {image.width} x {image.height} px, more than {MAX_PX} in all; cut it into patches"
        )
    if image.format == "MPO":
        return
    if image.format == "TIFF":
        try:
            image.seek(1)
        except EOFError:
            image.seek(0)
            return
    elif getattr(image, "n_frames", 1) < 2:
        return
    raise DatasetError(f"{path} holds several pictures (pages or frames), expected one: save the one that is meant")


def bits_of(path: Path, image: Image.Image) -> int:
    """Bits a channel, as the file stores them; Pillow's mode does not tell, and cuts 16 bits of colour to 8."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(_PNG_HEAD)[-2]
    if image.format == "TIFF":
        stored = tiff_tag(image, _TIFF_BITS, 1)
        return max(stored) if isinstance(stored, tuple) else int(stored)
    if image.format == "PPM":
        with path.open("rb") as file:
            head = _PPM_HEAD.match(file.read(1024))
        return int(head.group(1)).bit_length() if head and image.mode != "1" else 8
    return 16 if image.mode.startswith(("I", "F")) else 8


def tiff_tag(image: Image.Image, tag: int, default: int) -> int | tuple[int, ...]:
    """A numeric tag of a TIFF's picture."""
    found: int | tuple[int, ...] = getattr(image, "tag_v2", {}).get(tag, default)
    return found


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if isinstance(found, int) else 1
