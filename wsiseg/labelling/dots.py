"""Images with a dot on each cell, as BRCA-M2C has them, cut into patches whose labels can be looked at again.

A folder `images` of pictures and a folder `labels` of `NAME_gt_class_coords.txt`, a line `y x class` a cell. A patch
has a class where at least two of its cells lie in it: fewer a person would hardly see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from wsiseg.arrays import Float64Array, UInt8Array
from wsiseg.classes import ClassTable
from wsiseg.datasets.patch import group_of
from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.write import DatasetWriter, PatchRow
from wsiseg.errors import DatasetError

SUFFIX = "_gt_class_coords.txt"
NAMES = ("Lymphocytes", "Tumour", "Stroma")
"""What the numbers 1, 2, 3 of BRCA-M2C are."""

MPP = 0.5
"""Of its images."""

LEAST_CELLS = 2
_SPLITS = ("train", "val", "test")


def has_dots(folder: Path) -> bool:
    """Whether a folder is of this form."""
    return (folder / "images").is_dir() and any((folder / "labels").glob(f"*{SUFFIX}"))


def cut_dots(folder: Path, out: Path, classes: ClassTable, mpp: float, patch_px: int) -> int:
    """Write the images as a data set of patches that lie side by side; how many patches.

    Images are of `MPP` and are resampled where another is asked for.

    Args:
        folder: with dots.
        out: the data set.
        classes: what the numbers 1, 2, … are.
        mpp: of the patches.
        patch_px: their side.

    Raises:
        DatasetError: an image or its dots cannot be read, or a dot has a number without a class.
    """
    count = 0
    with DatasetWriter(out, classes, mpp, patch_px) as writer:
        for image, split in _images(folder):
            pixels, dots = _read(folder, image, mpp, len(classes))
            for y in range(0, pixels.shape[0] - patch_px + 1, patch_px):
                for x in range(0, pixels.shape[1] - patch_px + 1, patch_px):
                    labels = dict(zip(classes.names, _present(dots, x, y, patch_px, len(classes)), strict=True))
                    where = Provenance(slide=image.name, size_px=patch_px, mpp=mpp, status="labelled")
                    name = f"{re.sub(r'[^A-Za-z0-9_-]', '-', image.stem)}_{x}_{y}"
                    row = PatchRow(labels, group_of(image.stem), split, where, name)
                    writer.add(pixels[y : y + patch_px, x : x + patch_px], row)
                    count += 1
        if not count:
            raise DatasetError(
                f"no image of {folder} has room for a patch of {patch_px} px; choose a smaller --patch-px"
            )
        writer.finish()
    return count


def _images(folder: Path) -> Iterator[tuple[Path, str]]:
    """The images that have dots, with the split that the folder's lists give them."""
    split = {}
    for name in _SPLITS:
        for path in sorted(folder.glob(f"*_{name}.txt")):
            split |= dict.fromkeys(path.read_text(encoding="utf-8", errors="replace").split(), name)
    for dots in sorted((folder / "labels").glob(f"*{SUFFIX}")):
        stem = dots.name.removesuffix(SUFFIX)
        found = sorted(path for path in (folder / "images").glob(f"{_glob_safe(stem)}.*") if path.stem == stem)
        if not found:
            raise DatasetError(f"{dots} has no image {stem}.png in {folder / 'images'}")
        yield found[0], split.get(found[0].name, "train")


def _glob_safe(name: str) -> str:
    """A name in which no sign stands for others."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _read(folder: Path, path: Path, mpp: float, num_classes: int) -> tuple[UInt8Array, Float64Array]:
    """Pixels (H, W, 3) at an mpp, and dots (n, 3): x, y in pixels, class from 0."""
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise DatasetError(f"{path} cannot be read as an image; it may be damaged") from error
    size = (max(1, round(picture.width * MPP / mpp)), max(1, round(picture.height * MPP / mpp)))
    scale = (size[0] / picture.width, size[1] / picture.height)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BOX if mpp > MPP else Image.Resampling.BILINEAR)
    file = folder / "labels" / f"{path.stem}{SUFFIX}"
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 3 or not all(part.isdecimal() for part in parts) or not 1 <= int(parts[2]) <= num_classes:
            raise DatasetError(
                f"{file} line {number}: expected y x class, a class of 1 to {num_classes}, got {line!r:.40}"
            )
        y, x, name = map(int, parts)
        rows.append(((x + 0.5) * scale[0], (y + 0.5) * scale[1], name - 1.0))
    return np.asarray(picture), np.array(rows, np.float64).reshape(-1, 3)


def _present(dots: Float64Array, x: int, y: int, patch_px: int, num_classes: int) -> list[int]:
    inside = (dots[:, 0] >= x) & (dots[:, 0] < x + patch_px) & (dots[:, 1] >= y) & (dots[:, 1] < y + patch_px)
    counts = np.bincount(dots[inside, 2].astype(int), minlength=num_classes)
    return [int(count >= LEAST_CELLS) for count in counts]
