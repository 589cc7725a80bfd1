"""Images with dots at their cells: BRCA-M2C's files, and `cells.csv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.datasets.facts import text_below
from wsiseg.datasets.images import read_image
from wsiseg.datasets.spreadsheet import number_of, read_spreadsheet
from wsiseg.errors import DatasetError

CELLS_FILE = "cells.csv"
BRCA_LIST = "brca_ds_{}.txt"
BRCA_MPP = 0.5
BRCA_CLASSES = {"1": "Lymphocytes", "2": "Tumour", "3": "Stroma"}
BRCA_SLIDE_LETTERS = 23
"""TCGA's name of a slide, `TCGA-A7-A0DB-01Z-00-DX1`, at the beginning of BRCA-M2C's file names."""


@dataclass(frozen=True, slots=True)
class DottedFile:
    """An image file and its dots (n, 3): x, y, channel."""

    path: Path
    group: str
    dots: npt.NDArray[np.float64]

    def read(self) -> npt.NDArray[np.uint8]:
        """Its pixels (H, W, 3).

        Raises:
            DatasetError: it cannot be read, or has dots outside of it.
        """
        pixels = read_image(self.path)
        height, width = pixels.shape[:2]
        x, y = self.dots[:, 0], self.dots[:, 1]
        if ((x < 0) | (y < 0) | (x > width) | (y > height)).any():
            raise DatasetError(f"{self.path} is {width} x {height} px, but has dots outside of it; correct its rows")
        return pixels


def has_dots(root: Path) -> bool:
    """Whether a folder is of one of these two forms."""
    lists = [root / BRCA_LIST.format(split) for split in ("train", "val", "test")]
    return any(path.is_file() for path in (*lists, root / CELLS_FILE))


def read_brca(root: Path, split: str, channels: Mapping[str, int]) -> Iterator[DottedFile]:
    """BRCA-M2C's images of a split, with the channel of each class value.

    Rows of the label files are y, x, class; whole numbers are pixels, so half a pixel is added for their centre.
    """
    listed = root / BRCA_LIST.format(split)
    for name in text_below(root, listed).split():
        image = _below(root, f"images/{name}", listed)
        labels = _below(root, f"labels/{Path(name).stem}_gt_class_coords.txt", listed)
        rows = [line.split() for line in text_below(root, labels).splitlines() if line.strip()]
        dots = [_dot(row[1], row[0], row[2], channels, labels, 0.5) for row in rows if _three(row, labels)]
        yield DottedFile(image, name[:BRCA_SLIDE_LETTERS], np.array(dots, np.float64).reshape(-1, 3))


def _three(row: Sequence[str], path: Path) -> bool:
    if len(row) != 3:
        raise DatasetError(f"{path}: expected rows of y, x and class, got {' '.join(row)!r:.60}")
    return True


def cell_values(root: Path) -> list[str]:
    """The class values in `cells.csv`, in the order in which they come."""
    return list(dict.fromkeys(value for row in _rows(root / CELLS_FILE) if (value := (row["class"] or "").strip())))


def states_split(root: Path) -> bool:
    """Whether `cells.csv` says which split its images belong to."""
    return any((row.get("split") or "").strip() for row in _rows(root / CELLS_FILE))


def read_cells(root: Path, split: str, channels: Mapping[str, int], needed: bool = True) -> Iterator[DottedFile]:
    """Images of `cells.csv`, `file,x,y,class[,group,split]`: x and y in pixels from the image's corner.

    Args:
        root: the data set's folder.
        split: whose rows are read; without that column all is test.
        channels: of each class value.
        needed: refuse a table that has no row of this split.
    """
    path = root / CELLS_FILE
    files: dict[str, tuple[str, list[tuple[float, float, float]]]] = {}
    for row in _rows(path):
        if (row.get("split") or "test").strip() == split:
            file = row["file"] or ""
            group, dots = files.setdefault(file, ((row.get("group") or "").strip() or Path(file).stem, []))
            dots.append(_dot(row["x"], row["y"], row["class"], channels, path, 0.0))
    if not files and needed:
        raise DatasetError(f"{path} has no row of split {split}; choose another --split")
    for file, (group, dots) in files.items():
        yield DottedFile(_below(root, file, path), group, np.array(dots, np.float64))


def _rows(path: Path) -> list[dict[str, str]]:
    sheet = read_spreadsheet(path)
    header = [name.casefold() for name in sheet.header]
    if odd := next((line for line, row in sheet.rows if len(row) > len(header)), None):
        raise DatasetError(f"{path}, line {odd}: more values than columns in the first line")
    rows = [dict(zip_longest(header, row, fillvalue="")) for _, row in sheet.rows]
    if not rows or not {"file", "x", "y", "class"} <= rows[0].keys():
        raise DatasetError(f"{path} must begin with file,x,y,class (and optionally group and split) and have rows")
    return rows


def _dot(
    x: str, y: str, value: str, channels: Mapping[str, int], path: Path, shift: float
) -> tuple[float, float, float]:
    value = (value or "").strip()
    if value not in channels:
        raise DatasetError(
            f"{path}: cell class {value!r:.40} is not known; name it with --cell-classes {value:.20}=NAME"
        )
    left, top = number_of(x), number_of(y)
    if left is None or top is None:
        raise DatasetError(f"{path}: x and y must be numbers, got {x!r:.20} and {y!r:.20}")
    return left + shift, top + shift, float(channels[value])


def _below(root: Path, name: str, where: Path) -> Path:
    try:
        path: Path | None = (root / name).resolve()
        there = path is not None and path.is_relative_to(root.resolve()) and path.is_file()
    except (OSError, RuntimeError, ValueError):  # a null byte, a loop of links, a name too long
        path, there = None, False
    if path is None or not there:
        raise DatasetError(
            f"{where}: there is no file {name!r:.120} in the data set's folder; add it or remove its rows"
        )
    return path
