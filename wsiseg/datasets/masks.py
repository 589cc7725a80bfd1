"""Masks from image files: which numbers or colours in them mean which class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.images import bits_of, opened, tiff_tag
from wsiseg.errors import DatasetError
from wsiseg.system.json_values import JsonObject

ALWAYS_EXCLUDED = 255

_LOSSY = ("JPEG", "MPO")
_TIFF_COMPRESSION, _TIFF_JPEG = 259, (6, 7)
_TIFF_PHOTOMETRIC, _MIN_IS_WHITE = 262, 0


@dataclass(frozen=True, slots=True)
class MaskNumbers:
    """How a data set's masks number what they hold, as far as it is stated.

    Attributes:
        excluded: value of pixels of which no class is known; None for the value behind the last class.
        offset: value of the first class; None for 1 where 0 is excluded, else 0.
    """

    excluded: int | None = None
    offset: int | None = None

    @classmethod
    def from_about(cls, about: JsonObject, excluded: int | None = None) -> MaskNumbers:
        """What `dataset.json` says, and an option, which wins."""
        return cls(about.get("excluded") if excluded is None else excluded, about.get("offset"))


@dataclass(frozen=True, slots=True)
class MaskCoding:
    """What the pixels of a mask mean.

    Attributes:
        num_classes: K; values `offset` to `offset` + K - 1 are class channels.
        excluded: value of excluded pixels, no class; `offset` + K where it is None. 255 always means excluded as well.
        colors: of the classes, for masks in colour; white and black, unless a class has them, mean excluded.
        offset: value of the first class.
    """

    num_classes: int
    excluded: int | None = None
    colors: tuple[tuple[int, int, int], ...] = ()
    offset: int = 0

    def __post_init__(self) -> None:
        first, value = self.offset, self.excluded
        most = ALWAYS_EXCLUDED - self.num_classes
        if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first <= most:
            raise DatasetError(
                f"the offset (the value of the first class in masks) must be a whole number from 0 to {most}, "
                f"got {first!r:.40}"
            )
        if value is None:
            return
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 0 <= value <= ALWAYS_EXCLUDED or first <= value < first + self.num_classes:
            below = f"0 to {first - 1} or " if first else ""
            raise DatasetError(
                f"the excluded value must be a whole number, {below}from {first + self.num_classes} to "
                f"{ALWAYS_EXCLUDED} (the classes are {first} to {first + self.num_classes - 1}), got {value!r:.40}"
            )

    @classmethod
    def from_classes(cls, classes: ClassTable, numbers: MaskNumbers | None = None) -> MaskCoding:
        """The coding of masks of a class table."""
        numbers = numbers or MaskNumbers()
        excluded, offset = numbers.excluded, numbers.offset
        if offset is None:  # 0 for what is unlabelled leaves 1 for the first class
            offset = 1 if excluded == 0 and isinstance(excluded, int) and not isinstance(excluded, bool) else 0
        return cls(len(classes), excluded, tuple(c.color for c in classes), offset)

    def read(self, path: Path) -> npt.NDArray[np.uint8]:
        """A mask of class channels as uint8 (H, W); K stands for excluded pixels.

        Raises:
            DatasetError: it cannot be read, or holds values or colours that are none of these.
        """
        with opened(path, "a mask") as image:
            _require_lossless(path, image)
            if image.mode in ("RGB", "RGBA"):
                if bits_of(path, image) > 8:
                    raise DatasetError(f"{path} has more than 8 bits a channel, convert it to 8 bits first")
                return self._from_colors(np.array(image), path)
            values = _numbers(path, image)
        return self._from_numbers(values, path)

    def _from_numbers(self, values: npt.NDArray[np.int64], path: Path) -> npt.NDArray[np.uint8]:
        last = self.offset + self.num_classes - 1
        excluded = last + 1 if self.excluded is None else self.excluded
        free = (values == excluded) | (values == ALWAYS_EXCLUDED)
        wrong = ((values < self.offset) | (values > last)) & ~free
        if wrong.any():
            raise DatasetError(
                f"{path}: unknown class {values[wrong].max()}, expected {self.offset} to {last}, or {excluded} for "
                "excluded (another value is named by excluded in dataset.json, that of the first class by offset)"
            )
        return np.where(free, self.num_classes, values - self.offset).astype(np.uint8)

    def _from_colors(self, pixels: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
        if not self.colors:
            raise DatasetError(f"{path} must be a single-channel or palette image, got mode RGB without class colours")
        codes = _codes(pixels)
        mask = np.full(codes.shape, ALWAYS_EXCLUDED, np.uint8)
        mask[(codes == 0) | (codes == 0xFFFFFF)] = self.num_classes
        for channel, color in enumerate(self.colors):
            mask[codes == int(_codes(np.array(color, np.uint8)))] = channel
        if pixels.shape[2] == 4:
            mask[pixels[..., 3] == 0] = self.num_classes  # nothing is drawn there
        if (mask == ALWAYS_EXCLUDED).any():
            odd = pixels[mask == ALWAYS_EXCLUDED][0, :3].tolist()
            raise DatasetError(
                f"{path}: unknown class of colour {tuple(odd)}, expected the classes' own colours, white or black, "
                "or a single-channel or palette image"
            )
        return mask


def read_mask(path: Path, num_classes: int) -> npt.NDArray[np.uint8]:
    """A mask of class channels as uint8 (H, W) in the default coding; K stands for excluded pixels."""
    return MaskCoding(num_classes).read(path)


def _require_lossless(path: Path, image: Image.Image) -> None:
    """Refuse what changes numbers when it is written, or when it is read."""
    if image.format in _LOSSY or tiff_tag(image, _TIFF_COMPRESSION, 1) in _TIFF_JPEG:
        raise DatasetError(f"{path} is a mask in JPEG, which changes its values: save it as PNG from the original")
    if image.format == "TIFF" and tiff_tag(image, _TIFF_PHOTOMETRIC, 1) == _MIN_IS_WHITE:
        raise DatasetError(
            f"{path} is a TIFF whose 0 is white, so that its numbers may be meant the other way round: save it as PNG"
        )


def _numbers(path: Path, image: Image.Image) -> npt.NDArray[np.int64]:
    """The numbers of a mask (H, W) as they are stored."""
    bits, mode = bits_of(path, image), image.mode
    if mode not in ("P", "L", "1") and not (mode.startswith("I") and bits > 8):
        raise DatasetError(f"{path} must be a single-channel or palette image of whole numbers, got mode {mode}")
    values = np.array(image).astype(np.int64)
    if mode == "L" and bits < 8:  # 2 or 4 bits of grey, which Pillow spreads over 0 to 255
        values //= 255 // (2**bits - 1)
    return values


def _codes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    channels = pixels.astype(np.int64)
    return channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]
