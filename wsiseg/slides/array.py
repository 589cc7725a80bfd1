"""Plain pictures and arrays: one level, held in memory."""

from __future__ import annotations

import hashlib
import struct
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from wsiseg.errors import SlideError
from wsiseg.geometry import Box, Level, Mpp, Size
from wsiseg.slides.base import WHITE, Region, SlideReader
from wsiseg.slides.causes import plain
from wsiseg.slides.damage import DamageMap
from wsiseg.slides.recorded import associated_rgb

MAX_PX = 2**27
"""Largest plain picture, 134 megapixels: 0.9 GB while it is read, 0.4 GB from then on."""

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
"""What is read as a plain picture. TIFFs are not: they may be larger than memory, and have readers of their own."""


_GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_PNG_DEPTH, _HALF = 24, 128
_ORIENTATION = 0x0112
"""The EXIF tag."""


class ArrayReader(SlideReader):
    """A picture in memory. Its resolution is never taken from the file: 72 dpi is a habit, not a measurement.

    Args:
        pixels: (height, width, 3) uint8.
        path: where they came from.
        stated_mpp: microns per pixel as the user states them.
        vendor: the format.

    Raises:
        SlideError: the array has another shape or type.
    """

    reader = "Pillow"

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        *,
        path: str = "array",
        stated_mpp: Mpp | None = None,
        vendor: str = "array",
    ) -> None:
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
            raise SlideError(f"{path}: expected pixels (height, width, 3) of uint8, got {pixels.shape} {pixels.dtype}")
        self._pixels: npt.NDArray[np.uint8] | None = pixels
        self.path = path
        self.vendor = vendor
        size = Size(pixels.shape[1], pixels.shape[0])
        self.levels = (Level(size, 1.0, 1.0),)
        self.recorded_mpp = None
        self.mpp_source = "stated" if stated_mpp else ""
        self.stated_mpp = stated_mpp
        self.objective = None
        self.bounds = None
        self.properties = {}
        self.associated = {}
        self.damage = DamageMap(self.levels, [size])

    @classmethod
    def open(cls, path: Path, stated_mpp: Mpp | None = None) -> ArrayReader | None:
        """The picture in a file; None if it is not in one of `FORMATS`.

        Raises:
            SlideError: it is one, but cut off, damaged, or too large to be held in memory.
        """
        try:
            # Pillow warns above 89 megapixels, and refuses twice as many; it takes 4 bytes a pixel, and we 3.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path, formats=FORMATS) as image:
                    _require_smaller(image.width, image.height)
                    _require_colour(path.name, image)
                    kind = "jpeg" if image.format == "MPO" else str(image.format).lower()
                    pixels = associated_rgb(image)
                    _require_full_range(path, pixels)
                    opened = cls(pixels, path=str(path), stated_mpp=stated_mpp, vendor=kind)
                    opened.notes = _notes(image)
                    return opened
        except UnidentifiedImageError:
            return None
        except Image.DecompressionBombError as error:
            raise SlideError(
                f"{path.name} is too large for a plain picture, which is held in memory; "
                f"convert it to a tiled pyramidal TIFF ({plain(error)})"
            ) from error
        except SlideError:
            raise
        except (OSError, ValueError, SyntaxError, EOFError, MemoryError, struct.error) as error:
            raise SlideError(
                f"{path.name} cannot be read, it may be cut off or damaged ({plain(error)}); copy it again"
            ) from error

    def read_level(self, level: int, box: Box) -> Region:
        """See `SlideReader.read_level`."""
        self.require_open(self._pixels is not None)
        assert self._pixels is not None
        if level != 0:
            raise IndexError(f"{self.name} has one level, not level {level}")
        pixels = np.full((*box.size.shape, 3), WHITE, np.uint8)
        inside = box.intersect(Box.from_size(self.size))
        if not inside.is_empty:
            pixels[inside.slices(box)] = self._pixels[inside.slices()]
        return Region(pixels)

    def read_associated(self, name: str) -> npt.NDArray[np.uint8]:
        """See `SlideReader.read_associated`; there are none."""
        raise KeyError(name)

    def quick_hash(self) -> str:
        """SHA-256 of the size and the pixels."""
        self.require_open(self._pixels is not None)
        assert self._pixels is not None
        digest = hashlib.sha256(str(self._pixels.shape).encode())
        digest.update(np.ascontiguousarray(self._pixels).data)
        return digest.hexdigest()

    def close(self) -> None:
        """See `SlideReader.close`."""
        self._pixels = None


def _require_colour(name: str, image: Image.Image) -> None:
    """Raise `SlideError` on anything but a single picture in colour: grey ones, animations."""
    if image.mode in _GREY:
        raise SlideError(f"{name} is a grey picture, expected one in colour (RGB): tissue is told by its stain")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a telephone's JPEG that keeps a second, smaller picture
        raise SlideError(f"{name} is an animation of {frames} pictures, expected one; save the one that is meant")


def _require_full_range(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Refuse a PNG of 16 bits of which the upper are not made use of: 12 bits in 16, as cameras write them."""
    with path.open("rb") as file:
        head = file.read(_PNG_DEPTH + 1)
    if head.startswith(b"\x89PNG") and head[_PNG_DEPTH:] == b"\x10" and pixels.size and pixels.max() < _HALF:
        raise SlideError(
            f"{path.name} has 16-bit pixels none of which is above {int(pixels.max()) * 256 + 255}, expected 8 bits "
            "or 16 that are made use of; convert it to 8-bit RGB, scaled to 0 to 255"
        )


def _notes(image: Image.Image) -> tuple[str, ...]:
    turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    return ("the picture says that it is to be shown turned; the map lies as its pixels are stored",) if turned else ()


def _require_smaller(width: int, height: int) -> None:
    if width * height > MAX_PX:
        raise Image.DecompressionBombError(f"{width} x {height} px, at most {MAX_PX} in all")
