"""An image of any size with what is known of it, and the squares that it is cut into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsiseg.arrays import BoolArray, Float64Array, UInt8Array
from wsiseg.datasets.area_labels import area_label
from wsiseg.datasets.masks import ALWAYS_EXCLUDED
from wsiseg.datasets.patch import UNKNOWN
from wsiseg.datasets.sizes import SMALLEST, squared

LEFT_PART = 0.25
"""Of a patch's side: so much of an image's side, half of it at each border, may be left out rather than cut twice."""

SAME_AREA = 0.5
"""Part of an image's area from which on a patch of it keeps the whole label."""

WHITE_FROM = 210
"""Value of the darkest channel from which on an excluded pixel is glass, where no class is."""


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image with one of three kinds of knowledge.

    Attributes:
        name: for messages, and what its patches are called by.
        group: slide or patient.
        split: "train", "val", "test", or empty for no choice.
        pixels: (H, W, 3).
        mask: class channels (H, W), K for excluded pixels; None where pixels are not known.
        dots: x, y (pixels, from corners) and channel of every cell (n, 3); None where cells are not known.
        label: for each class 1, 0 or -1 (unknown), (K,); empty where mask or dots say it.
    """

    name: str
    group: str
    split: str
    pixels: UInt8Array
    mask: UInt8Array | None = None
    dots: Float64Array | None = None
    label: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Square:
    """A patch of an image.

    Attributes:
        x: left edge in pixels of the image.
        y: upper edge.
        pixels: (P, P, 3); where the image is smaller, mirrored at its right and lower border.
        mask: class channels (P, P), 255 where nothing is known; None without a mask.
        label: for each class 1, 0 or -1 (unknown), (K,).
    """

    x: int
    y: int
    pixels: UInt8Array
    mask: UInt8Array | None
    label: tuple[int, ...]


def starts(length: int, side: int) -> list[int]:
    """Where the squares along one side of an image begin.

    As many as are needed to cover all but a quarter of a square: side by side in the middle where they fit, else spread
    evenly over all of it, so that neighbours overlap.

    Args:
        length: of the image's side, px.
        side: of a square, px.
    """
    if length <= side:
        return [0]
    count = int(np.ceil((length - LEFT_PART * side) / side))
    rest = length - count * side
    if rest >= 0:
        return [rest // 2 + number * side for number in range(count)]
    return [round(number * (length - side) / (count - 1)) for number in range(count)]


def squares_of(image: KnownImage, side: int, num_classes: int) -> list[Square]:
    """The squares of an image, row by row; none where one side of it is less than half of a square's.

    Args:
        image: what is cut.
        side: of a square, px.
        num_classes: K.
    """
    height, width = image.pixels.shape[:2]
    if min(height, width) < SMALLEST * side:
        return []
    found = []
    for y in starts(height, side):
        for x in starts(width, side):
            rows, columns = slice(y, min(y + side, height)), slice(x, min(x + side, width))
            pixels = image.pixels[rows, columns]
            mask = None if image.mask is None else image.mask[rows, columns]
            label = _label(image, pixels, mask, (x, y), num_classes)
            own = None if mask is None else _own_mask(mask, side, num_classes)
            found.append(Square(x, y, np.ascontiguousarray(squared(pixels, side)), own, label))
    return found


def _label(
    image: KnownImage, pixels: UInt8Array, mask: UInt8Array | None, at: tuple[int, int], num_classes: int
) -> tuple[int, ...]:
    if mask is not None:
        return label_of_mask(mask, pixels.min(axis=2) >= WHITE_FROM, num_classes)
    height, width = pixels.shape[:2]
    if image.dots is not None:
        x, y = image.dots[:, 0] - at[0], image.dots[:, 1] - at[1]
        inside = image.dots[(x >= 0) & (x < width) & (y >= 0) & (y < height), 2].astype(np.int64)
        return tuple(int(count > 0) for count in np.bincount(inside, minlength=num_classes))
    whole = image.pixels.shape[0] * image.pixels.shape[1]
    return label_of_part(image.label, height * width / whole)


def label_of_mask(mask: UInt8Array, white: BoolArray, num_classes: int) -> tuple[int, ...]:
    """The label of a patch from its mask, (K,); see `area_label`.

    Args:
        mask: class channels (H, W), K for excluded pixels, of which nothing is known unless they are white.
        white: where the image is as white as glass, (H, W).
        num_classes: K.
    """
    counts = np.bincount(mask.ravel(), minlength=num_classes + 1)
    known = int(counts[:num_classes].sum()) + int(((mask >= num_classes) & white).sum())
    labels = [area_label(int(count), known - int(count), mask.size) for count in counts[:num_classes]]
    return tuple(UNKNOWN if label is None else label for label in labels)


def label_of_part(label: tuple[int, ...], part: float) -> tuple[int, ...]:
    """The label of a patch that is a part of a labelled image, (K,).

    What the whole lacks, the part lacks. What the whole has, the part has for certain only where it is the one class
    there is, or where the part is half of the whole or more (a weak label, as any); else nobody knows.

    Args:
        label: of the whole.
        part: of its area, 0 to 1.
    """
    present = label.count(1)
    if part >= SAME_AREA or (present == 1 and UNKNOWN not in label):
        return label
    return tuple(UNKNOWN if value == 1 else value for value in label)


def _own_mask(mask: UInt8Array, side: int, num_classes: int) -> UInt8Array:
    own = np.full((side, side), ALWAYS_EXCLUDED, np.uint8)
    height, width = mask.shape
    own[:height, :width] = np.where(mask < num_classes, mask, ALWAYS_EXCLUDED)
    return own
