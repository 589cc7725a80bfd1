"""Patches and masks from image files."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.errors import DatasetError

ALWAYS_EXCLUDED = 255
MAX_PX = 2**26
"""Pixels of an image or mask: 8192 a side, 200 MB in memory. A few bytes can claim any size."""

_FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "GIF", "WEBP", "PPM")
"""What is opened, whatever a file is called. Pillow knows more, and would start other programs for some."""

_BAD_FILE = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, MemoryError, EOFError,
             struct.error, NotImplementedError, Image.DecompressionBombError)  # fmt: skip
"""What Pillow's decoders raise on damaged files."""


@dataclass(frozen=True, slots=True)
class MaskCoding:
    """What the pixels of a mask mean.

    Attributes:
        num_classes: K; values 0 to K - 1 are class channels.
        excluded: value of excluded pixels, K to 255; K where it is None. 255 always means excluded as well.
        colors: of the classes, for masks in colour; white and black, unless a class has them, mean excluded.
    """

    num_classes: int
    excluded: int | None = None
    colors: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        value = self.excluded
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not self.num_classes <= value <= ALWAYS_EXCLUDED:
            raise DatasetError(
                f"the excluded value must be a whole number from {self.num_classes} (the classes are 0 to "
                f"{self.num_classes - 1}) to {ALWAYS_EXCLUDED}, got {value!r:.40}"
            )

    @classmethod
    def from_classes(cls, classes: ClassTable, excluded: int | None = None) -> MaskCoding:
        """The coding of masks of a class table."""
        return cls(len(classes), excluded, tuple(c.color for c in classes))

    def read(self, path: Path) -> npt.NDArray[np.uint8]:
        """A mask of class channels as uint8 (H, W); K stands for excluded pixels.

        Raises:
            DatasetError: it cannot be read, or holds values or colours that are none of these.
        """
        try:
            with _open(path) as image:
                if image.mode in ("RGB", "RGBA"):
                    return self._from_colors(np.array(image.convert("RGB")), path)
                mode, stored = image.mode, np.array(image)
        except DatasetError:
            raise
        except _BAD_FILE as error:
            raise DatasetError(f"{path} cannot be read as a mask, replace or remove it") from error
        if mode not in ("P", "L", "1"):
            raise DatasetError(f"{path} must be a single-channel or palette image, got mode {mode}")
        mask: npt.NDArray[np.uint8] = stored.astype(np.uint8)
        excluded = self.num_classes if self.excluded is None else self.excluded
        wrong = (mask >= self.num_classes) & (mask != excluded) & (mask != ALWAYS_EXCLUDED)
        if wrong.any():
            raise DatasetError(
                f"{path}: unknown class {mask[wrong].max()}, expected 0 to {self.num_classes - 1}, or {excluded} for "
                "excluded (another value is named by excluded in dataset.json)"
            )
        mask[mask >= self.num_classes] = self.num_classes
        return mask

    def _from_colors(self, pixels: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
        if not self.colors:
            raise DatasetError(f"{path} must be a single-channel or palette image, got mode RGB without class colours")
        codes = _codes(pixels)
        mask = np.full(codes.shape, ALWAYS_EXCLUDED, np.uint8)
        mask[(codes == 0) | (codes == 0xFFFFFF)] = self.num_classes
        for channel, color in enumerate(self.colors):
            mask[codes == int(_codes(np.array(color, np.uint8)))] = channel
        if (mask == ALWAYS_EXCLUDED).any():
            odd = pixels[mask == ALWAYS_EXCLUDED][0].tolist()
            raise DatasetError(
                f"{path}: unknown class of colour {tuple(odd)}, expected the classes' own colours, white or black, "
                "or a single-channel or palette image"
            )
        return mask


def _codes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    channels = pixels.astype(np.int64)
    return channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]


def _open(path: Path) -> Image.Image:
    """An image that is not decoded yet.

    Raises:
        DatasetError: it is too large, or no file.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise DatasetError(f"{path} is not a file, replace or remove it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path, formats=_FORMATS)
    if image.width * image.height > MAX_PX:
        image.close()
        raise DatasetError(
            f"{path} is {image.width} x {image.height} px, more than {MAX_PX} in all; cut it into patches"
        )
    return image


def _require_8_bits(path: Path, mode: str) -> None:
    if mode.startswith(("I", "F")):  # Pillow would cut it off at white
        raise DatasetError(f"{path} has more than 8 bits a channel (mode {mode}), convert it to 8 bits first")


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image as RGB uint8 (H, W, 3).

    Raises:
        DatasetError: it cannot be read, is too large, or has more than 8 bits a channel.
    """
    try:
        with _open(path) as image:
            _require_8_bits(path, image.mode)
            return np.array(image.convert("RGB"))
    except DatasetError:
        raise
    except _BAD_FILE as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path} cannot be read as an image ({reason:.100}), replace or remove it") from error


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in px, from the head of the file. Raises `DatasetError` where it cannot be read."""
    try:
        with _open(path) as image:
            return image.size
    except DatasetError:
        raise
    except _BAD_FILE as error:
        raise DatasetError(f"{path} cannot be read as an image, replace or remove it") from error


def read_mask(path: Path, num_classes: int) -> npt.NDArray[np.uint8]:
    """A mask of class channels as uint8 (H, W) in the default coding; K stands for excluded pixels."""
    return MaskCoding(num_classes).read(path)
