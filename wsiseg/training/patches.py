"""Data sets of labelled patches on disk: which files, which classes occur in each, and whether it all fits together.

Two forms are read, both described in the documentation of `wsiseg train`:

- labels in file names, the folders of LUAD-HistoSeg and BCSS-WSSS: `train/*[1 0 0 1].png` and, where there are
  any, `val/img` and `val/mask`, and what copies in the wild call them;
- `labels.csv` beside the images: `file,<class>,<class>,…` with 0 or 1, and optionally the columns `group` (slide or
  patient: a group is never torn between training and validation), `split` (train, val or test) and `mask` (a file
  below the data set's folder that knows the class of every pixel).

`dataset.json` (or `classes.json`, a list of the classes alone) gives classes, colours and microns per pixel.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsiseg.classes import ClassTable
from wsiseg.errors import DatasetError, OptionError
from wsiseg.geometry import MPP_MAX, MPP_MIN
from wsiseg.training.images import read_image, read_mask
from wsiseg.training.patch_labels import LABELS_FILE, Patch, read_csv, read_folders

__all__ = [
    "KNOWN_CLASSES",
    "Patch",
    "PatchDataset",
    "SplitName",
    "read_classes",
    "read_dataset",
    "read_image",
    "read_mask",
    "split_groups",
]

SplitName = Literal["train", "val", "test"]
DATASET_FILE, CLASSES_FILE = "dataset.json", "classes.json"
PATCH_SIDE_MIN, PATCH_SIDE_MAX = 32, 4096

KNOWN_CLASSES: dict[str, ClassTable] = {
    "luad-histoseg": ClassTable.of(
        ["Tumour epithelium", "Necrosis", "Lymphocyte", "Tumour-associated stroma"],
        [(205, 51, 51), (0, 255, 0), (65, 105, 225), (255, 165, 0)],
    ),
    "bcss-wsss": ClassTable.of(
        ["Tumour", "Stroma", "Lymphocyte", "Necrosis"], [(255, 0, 0), (0, 255, 0), (0, 0, 255), (153, 0, 255)]
    ),
}
"""Class tables of the public data sets whose folders say nothing of their classes, in label order."""


@dataclass(frozen=True, slots=True)
class PatchDataset:
    """A data set whose files were all seen to be there, readable and of one size.

    Attributes:
        root: its folder.
        classes: in label order.
        mpp: microns per pixel of the patches.
        patch_size_px: side of every patch.
        train: what is learned from.
        val: what thresholds and the best epoch are chosen on; may be empty.
        about: what `dataset.json` says of it (name, licence, citation, description).
        test: what a finished model is measured on, and nothing else; may be empty. Images with masks may be larger
            than a patch, here and in `val`.
    """

    root: Path
    classes: ClassTable
    mpp: float
    patch_size_px: int
    train: tuple[Patch, ...]
    val: tuple[Patch, ...]
    about: dict[str, str]
    test: tuple[Patch, ...] = ()

    def split(self, name: SplitName) -> tuple[Patch, ...]:
        """The patches of one split.

        Raises:
            DatasetError: it has none.
        """
        patches: dict[SplitName, tuple[Patch, ...]] = {"train": self.train, "val": self.val, "test": self.test}
        if not patches[name]:
            there = ", ".join(f"{split} ({len(found)})" for split, found in patches.items() if found)
            raise DatasetError(
                f"{self.root} has no {name} patches, only {there}: choose one of these, add {name}/img and "
                f"{name}/mask, or rows with split {name} to {LABELS_FILE}"
            )
        return patches[name]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, labels and file sizes: a run is only resumed on the data set that it began with.

        Of training and validation alone: test patches take no part in a training.
        """
        digest = hashlib.sha256(json.dumps([self.classes.to_json(), self.mpp, self.patch_size_px]).encode())
        for patch in (*self.train, None, *self.val):
            digest.update(f"{patch and (patch.name, patch.label, patch.path.stat().st_size)}\n".encode())
        return digest.hexdigest()


def read_dataset(
    root: str | Path,
    mpp: float | None = None,
    classes: ClassTable | None = None,
    val_share: float = 0.1,
    seed: int = 0,
) -> PatchDataset:
    """Find the patches and labels of a data set and check every file.

    Args:
        root: its folder.
        mpp: microns per pixel; wins over what `dataset.json` says.
        classes: likewise; the public data sets' are in `KNOWN_CLASSES`.
        val_share: share of the groups set aside for validation where the data set does not split itself; 0 for none.
        seed: of that choice.

    Raises:
        DatasetError: where images and labels do not fit together, an image cannot be read, or the classes or the
            resolution are unknown.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder, expected a data set of labelled patches")
    about = _read_about(root)
    classes = classes or _classes_of(root, about)
    mpp = _checked_mpp(root, mpp if mpp is not None else about.get("mpp"))
    if (root / LABELS_FILE).is_file():
        train, val, test, classes = read_csv(root, classes)
    else:
        train, val, test = read_folders(root, classes)
        if classes is None:
            raise DatasetError(
                f"{root} does not name its classes: add {DATASET_FILE} with mpp and classes, "
                f"or state --classes ({', '.join(KNOWN_CLASSES)}, or a JSON file)"
            )
    if not train:
        raise DatasetError(f"{root} has no training image, expected train/*[1 0 1].png or {LABELS_FILE} with rows")
    if not val:
        train, val = split_groups(train, val_share, seed)
    stems = Counter(Path(patch.name).with_suffix("") for patch in [*train, *val, *test])
    if doubled := next((stem for stem, count in stems.items() if count > 1), None):
        raise DatasetError(f"{root} has two images named {doubled} but for their ending; rename one")
    size = _check_images([*train, *val])
    text = {key: str(value) for key, value in about.items() if key in ("name", "licence", "citation", "description")}
    return PatchDataset(root, classes, mpp, size, tuple(train), tuple(val), text, tuple(test))


def read_classes(value: str) -> ClassTable:
    """A class table from a name in `KNOWN_CLASSES` or from a JSON file."""
    if value in KNOWN_CLASSES:
        return KNOWN_CLASSES[value]
    path = Path(value)
    if not path.is_file():
        raise DatasetError(f"{value!r} is neither a file nor one of {', '.join(KNOWN_CLASSES)}")
    content = _read_json(path)
    return _class_table(path, content.get("classes") if isinstance(content, dict) else content)


def split_groups(patches: Sequence[Patch], share: float, seed: int) -> tuple[list[Patch], list[Patch]]:
    """(training, validation): about `share` of the patches, whole groups, chosen by `seed`; never all groups."""
    groups = sorted({patch.group for patch in patches})
    if not 0 <= share < 1:
        raise OptionError(f"the share for validation must be 0 up to (not with) 1, got {share}")
    if len(groups) < 2 or share == 0:
        return list(patches), []
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen: set[str] = set()
    for index in order[:-1]:
        if sum(patch.group in chosen for patch in patches) >= share * len(patches):
            break
        chosen.add(groups[index])
    return [p for p in patches if p.group not in chosen], [p for p in patches if p.group in chosen]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON ({error!s:.80})") from error


def _read_about(root: Path) -> dict[str, Any]:
    for name in (DATASET_FILE, CLASSES_FILE):
        if (root / name).is_file():
            content = _read_json(root / name)
            if isinstance(content, list):
                content = {"classes": content}
            if not isinstance(content, dict):
                raise DatasetError(f"{root / name} must hold one JSON object with mpp and classes")
            return content
    return {}


def _classes_of(root: Path, about: dict[str, Any]) -> ClassTable | None:
    return _class_table(root / DATASET_FILE, about["classes"]) if "classes" in about else None


def _class_table(path: Path, rows: Any) -> ClassTable:
    """Classes from `[{"name": …, "color": […]}, …]` or `["Tumour", …]`."""
    try:
        names = [row if isinstance(row, str) else row["name"] for row in rows]
        colors = (
            [row["color"] for row in rows] if all(isinstance(row, dict) and "color" in row for row in rows) else None
        )
        return ClassTable.of([str(name) for name in names], colors)
    except (TypeError, KeyError, ValueError, IndexError, OptionError) as error:
        raise DatasetError(f"{path}: classes must be a list of name and color ({error!s:.80})") from error


def _checked_mpp(root: Path, mpp: Any) -> float:
    if mpp is None:
        raise DatasetError(
            f"{root} does not say how large its pixels are: add {DATASET_FILE} with mpp, or state --mpp (um per pixel)"
        )
    if isinstance(mpp, bool) or not isinstance(mpp, int | float) or not MPP_MIN <= mpp <= MPP_MAX:
        raise DatasetError(f"mpp must be a number from {MPP_MIN} to {MPP_MAX} um per pixel, got {mpp!r:.40}")
    return float(mpp)


def _check_images(patches: Sequence[Patch]) -> int:
    """Decode every image; the side in px that they share."""
    with ThreadPoolExecutor(4) as pool:
        shapes = list(pool.map(lambda patch: read_image(patch.path).shape[:2], patches))
    height, width = shapes[0]
    if height != width or not PATCH_SIDE_MIN <= height <= PATCH_SIDE_MAX:
        raise DatasetError(
            f"{patches[0].path} is {width} x {height} px, expected squares of {PATCH_SIDE_MIN} to {PATCH_SIDE_MAX} px"
        )
    for patch, shape in zip(patches, shapes, strict=True):
        if shape != shapes[0]:
            raise DatasetError(f"{patch.path} is {shape[1]} x {shape[0]} px, the others are {width} x {height} px")
    return int(height)
