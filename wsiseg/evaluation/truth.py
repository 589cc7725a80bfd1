"""What is known to be true of images: a mask of their pixels, dots at their cells, or the classes that occur."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from wsiseg.choices import SplitName
from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import Patch, read_dataset
from wsiseg.datasets.dots import (
    BRCA_CLASSES,
    BRCA_LIST,
    BRCA_MPP,
    CELLS_FILE,
    DottedFile,
    read_brca,
    read_cells,
)
from wsiseg.datasets.images import read_image
from wsiseg.datasets.patch import UNKNOWN
from wsiseg.errors import DatasetError
from wsiseg.evaluation.class_match import ClassMatch, Others, match_classes
from wsiseg.geometry import MPP_MAX, MPP_MIN

TruthKind = Literal["pixels", "cells", "labels"]


@dataclass(frozen=True, slots=True)
class Case:
    """An image with what is known of it, in the channels of a `ClassMatch`.

    Attributes:
        name: of the image, for messages.
        group: slide or patient.
        pixels: (H, W, 3) uint8.
        mask: (H, W), a channel, U for excluded; None where pixels are not known.
        dots: (n, 3) x, y (pixels, from corners) and channel; None where there are none of this kind.
        label: (K,) bool, which classes occur; None where mask or dots say it.
    """

    name: str
    group: str
    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None = None
    dots: npt.NDArray[np.float64] | None = None
    label: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The images of one split.

    Attributes:
        name: of the data set.
        kind: of truth.
        mpp: microns per pixel.
        entries: what `case` takes, in order.
        classes: which class of the data set is which of the model's.
        channels: channel of each class value of the masks or labels.
    """

    name: str
    kind: TruthKind
    mpp: float
    entries: tuple[Patch, ...] | tuple[DottedFile, ...]
    classes: ClassMatch
    channels: tuple[int, ...] = ()

    def case(self, entry: Patch | DottedFile) -> Case:
        """One of its images, read."""
        return _dotted_case(entry) if isinstance(entry, DottedFile) else self._patch_case(entry)

    def _patch_case(self, patch: Patch) -> Case:
        pixels = read_image(patch.path)
        if self.kind == "labels":
            label = np.zeros(len(self.classes.names) + 1, np.bool_)
            label[[self.channels[k] for k, value in enumerate(patch.label) if value == 1]] = True
            return Case(patch.name, patch.group, pixels, label=label[: self.classes.known])
        mask = patch.read_truth(len(self.channels))
        if mask.shape != pixels.shape[:2]:
            raise DatasetError(f"{patch.mask} is {mask.shape[1]} x {mask.shape[0]} px, its image {pixels.shape[1]} x "
                               f"{pixels.shape[0]} px; they must be of one size")  # fmt: skip
        table = np.array([*self.channels, len(self.classes.names)], np.uint8)
        return Case(patch.name, patch.group, pixels, mask=table[mask])


def _dotted_case(entry: DottedFile) -> Case:
    return Case(entry.path.name, entry.group, entry.read(), dots=entry.dots)


def open_source(
    root: Path,
    split: SplitName,
    model_classes: ClassTable,
    *,
    mpp: float | None = None,
    classes: ClassTable | None = None,
    excluded: int | None = None,
    cell_classes: Mapping[str, str] | None = None,
    merged: Mapping[str, str] | None = None,
    others: Others = "count",
    ignore: Sequence[str] = (),
) -> Source:
    """Find out which kind of truth a data set has, and list one split of it.

    Args:
        root: its folder: BRCA-M2C's, one with `cells.csv`, or any that `wsiseg train` reads.
        split: "train", "val" or "test".
        model_classes: dots and masks come in their order.
        mpp: microns per pixel; wins over what the data set says. `cells.csv` needs it.
        classes: of the data set, where it does not name them.
        excluded: mask value that is not counted; wins over what the data set says.
        cell_classes: from class values of dots to class names.
        merged: from classes of the data set to those of the model; see `match_classes`.
        others: what becomes of classes that the model does not know.
        ignore: columns of a table that are no classes.

    Raises:
        DatasetError: it cannot be read, or shares no class with the model.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder, expected a data set")
    if (root / BRCA_LIST.format("train")).is_file() or (root / BRCA_LIST.format(split)).is_file():
        names = {**BRCA_CLASSES, **(cell_classes or {})}
        match = match_classes(list(dict.fromkeys(names.values())), model_classes, merged, others)
        found = read_brca(root, split, _dot_channels(names, match))
        return Source("BRCA-M2C", "cells", _plausible(mpp or BRCA_MPP), tuple(found), match)
    if (root / CELLS_FILE).is_file():
        if mpp is None:
            raise DatasetError(f"{root / CELLS_FILE} does not say how large pixels are: state --mpp (um per pixel)")
        named = (*model_classes.names, *(cell_classes or {}).values(), *(merged or {}))
        match = match_classes(list(dict.fromkeys(named)), model_classes, merged, others)
        found = read_cells(root, split, {**match.channels, **_dot_channels(cell_classes or {}, match)})
        return Source(root.name, "cells", _plausible(mpp), tuple(found), match)
    if cell_classes:
        raise DatasetError(
            f"--cell-classes belongs to cell dots, but {root} has neither {CELLS_FILE} nor BRCA-M2C's lists"
        )
    data = read_dataset(root, mpp, classes, excluded=excluded, ignore=ignore, needs=None)
    match = match_classes(data.classes.names, model_classes, merged, others)
    order = tuple(match.channels[name] for name in data.classes.names)
    patches = data.split(split)
    masked = tuple(patch for patch in patches if patch.mask is not None)
    kind: TruthKind = "pixels" if masked else "labels"
    if unknown := sum(UNKNOWN in patch.label for patch in patches if not masked):
        raise DatasetError(f"{unknown} {split} patches of {root} have labels that are not known; evaluate needs all")
    name = data.about.get("name", root.name)
    return Source(name, kind, data.mpp, masked or patches, match, order)


def _dot_channels(names: Mapping[str, str], match: ClassMatch) -> dict[str, int]:
    """Channel of each class value of dots."""
    return {value: match.channels[name] for value, name in names.items()}


def _plausible(mpp: float) -> float:
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise DatasetError(f"mpp must be a number from {MPP_MIN} to {MPP_MAX} um per pixel, got {mpp}")
    return mpp
