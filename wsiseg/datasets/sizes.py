"""Patches of any size and shape in one set: the side of a square that they become, and how.

A set's patch is a square. Its side is that of most training patches, where more than half have one square size; else
the longest side of a training or validation patch, up to the next multiple of `STEP_PX`. A patch that is smaller, down
to half of it, is mirrored at its right and lower border until it is as large, so that nothing of it is lost and nothing
foreign comes in: its label stays true. One that is larger cannot always keep its label when it is cut, and is refused;
`wsiseg dataset cut` cuts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import UInt8Array
from wsiseg.datasets.images import read_image
from wsiseg.datasets.patch import Patch
from wsiseg.datasets.problems import Report

PATCH_SIDE_MIN, PATCH_SIDE_MAX = 32, 4096
STEP_PX = 32
"""What encoders divide a patch by."""

SMALLEST = 0.5
"""Part of a patch's side from which on an image can be mirrored to it; of a smaller one it would be the most part."""

Size = tuple[int, int]
Sized = Sequence[tuple[Patch, Size | None]]


def square_side(train: Iterable[Size], others: Iterable[Size] = ()) -> int:
    """The side in px of a set's patches.

    Args:
        train: (width, height) of training patches, at least one.
        others: of validation patches that are to be of this size as well.
    """
    sizes = Counter(train)
    (width, height), count = sizes.most_common(1)[0]
    if width == height and 2 * count > sizes.total():
        return width
    longest = max(side for size in (*sizes, *others) for side in size)
    return -(-longest // STEP_PX) * STEP_PX


def fits(size: Size, side: int) -> bool:
    """Whether an image is of this side, or is mirrored to it."""
    return max(size) <= side and min(size) >= SMALLEST * side


def check_sizes(splits: Mapping[str, Sized], report: Report) -> int:
    """See that patches can be made squares of one side; that side in px, 0 where no training patch can be read.

    Validation and test images with a mask may be larger, test images with a label up to twice as large.
    """
    train = [size for _, size in splits["train"] if size]
    if not train:
        return 0
    side = square_side(train, [size for patch, size in splits["val"] if size and patch.mask is None])
    if not PATCH_SIDE_MIN <= side <= PATCH_SIDE_MAX:
        first = next(patch for patch, size in splits["train"] if size)
        expected = f"expected squares of {PATCH_SIDE_MIN} to {PATCH_SIDE_MAX} px"
        report("size", first.name, f"{first.path} is {_px(train[0])}, {expected}")
    for split, patches in splits.items():
        for patch, size in patches:
            if size is not None and size != (side, side):
                _check(split, patch, size, side, report)
    return side


def _check(split: str, patch: Patch, size: Size, side: int, report: Report) -> None:
    whole = _px((side, side))
    if fits(size, side):
        report("mirrored", patch.name, f"{patch.name} is {_px(size)}, a patch {whole}")
    elif min(size) < SMALLEST * side:
        report("size", patch.name, f"{patch.path} is {_px(size)}, less than half of a patch of {whole}")
    elif split == "val":
        report("val size", patch.name, f"{patch.path} is {_px(size)}, a patch {whole}")
    elif split == "train" or (patch.mask is None and max(size) > 2 * side):
        report("size", patch.name, f"{patch.path} is {_px(size)}, larger than a patch of {whole}")


def told_of_sizes(sizes: Iterable[Size], side: int) -> str | None:
    """One line on images that are mirrored to a side, for people; None where there are none."""
    smaller = sorted({size for size in sizes if size != (side, side)}, key=lambda size: (size[0] * size[1], size))
    if not smaller:
        return None
    seen = _px(smaller[0]) + (f" to {_px(smaller[-1])}" if smaller[1:] else "")
    return f"patches of {seen} are mirrored at their borders to squares of {side} px; labels stay as they are"


def read_square(patch: Patch) -> UInt8Array:
    """A patch's pixels (S, S, 3), mirrored to its square."""
    return squared(read_image(patch.path), patch.square_px)


def read_square_truth(patch: Patch, num_classes: int) -> UInt8Array:
    """The class channel of every pixel of a patch's square (S, S), K for excluded ones and those that are mirrored."""
    truth = patch.read_truth(num_classes)
    height, width = truth.shape
    side = max(patch.square_px, height, width) if patch.square_px else 0
    if not side:
        return truth
    return np.pad(truth, ((0, side - height), (0, side - width)), constant_values=num_classes)


def squared(pixels: npt.NDArray[np.uint8], side: int) -> UInt8Array:
    """Pixels (H, W, 3) mirrored at the right and lower border to (side, side, 3); as they are where side is 0."""
    height, width = pixels.shape[:2]
    if not side or (height, width) == (side, side):
        return pixels
    return np.pad(pixels, ((0, side - height), (0, side - width), (0, 0)), mode="symmetric")


def _px(size: Size) -> str:
    return f"{size[0]} x {size[1]} px"
