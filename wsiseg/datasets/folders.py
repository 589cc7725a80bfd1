"""Data sets whose labels are in file names: the folders of LUAD-HistoSeg and BCSS-WSSS, and what copies call them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from wsiseg.classes import ClassTable
from wsiseg.datasets.masks import MaskCoding, MaskNumbers
from wsiseg.datasets.patch import Patch, group_of, label_of
from wsiseg.datasets.problems import Report

LABELS_FILE = "labels.csv"
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pnm"}
)
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What the folder of each split may be called, in any case."""
_NUMBERED = re.compile(r"^\d{1,2}[._ -]+")
IMAGES, MASKS = ("img", "imgs", "image", "images"), ("mask", "masks")


@dataclass(slots=True)
class Listing:
    """The patches of each split, none of whose files was opened yet; a label is empty where only the mask knows it.

    Attributes:
        splits: patches of train, val and test.
        classes: the class table, as far as it is known.
        left_out: rows by status (unsure, excluded) that are not among the patches.
    """

    splits: dict[str, list[Patch]] = field(default_factory=lambda: {name: [] for name in SPLIT_FOLDERS})
    classes: ClassTable | None = None
    left_out: Counter[str] = field(default_factory=Counter)


def list_folders(root: Path, classes: ClassTable | None, numbers: MaskNumbers, report: Report) -> Listing:
    """The patches of folders; every image has a label in its name or a mask."""
    listing = Listing(classes=classes)
    coding = MaskCoding.from_classes(classes, numbers) if classes else None
    for split, names in SPLIT_FOLDERS.items():
        folder = subfolder(root, names, report)
        if folder is None:
            continue
        listing.splits[split] = list_split(root, folder, split, coding, report)
    if not any(subfolder(root, names, lambda *_: None) for names in SPLIT_FOLDERS.values()):
        report("layout", root.name, _without_folders(root))
    train = listing.splits["train"]
    first = next((patch for patch in train if patch.label), None)
    for patch in train if first and classes is None else ():
        if patch.label and first and len(patch.label) != len(first.label):
            message = f"{patch.path}: {len(patch.label)} labels, but {first.path.name} has {len(first.label)}"
            report("label", patch.name, message)
    return listing


def _without_folders(root: Path) -> str:
    inner = [p for p in _entries(root) if p.is_dir() and subfolder(p, SPLIT_FOLDERS["train"], lambda *_: None)]
    hint = f"; did you mean {inner[0]}?" if inner else ""
    return (
        f"{root} has neither {LABELS_FILE} nor a folder train/ (or val/, test/), so no labelled image was found{hint}"
    )


def list_split(root: Path, folder: Path, split: str, coding: MaskCoding | None, report: Report) -> list[Patch]:
    """The patches of one folder: images with labels in their names, or below `img`, with masks below `mask`."""
    images = subfolder(folder, IMAGES, report)
    mask_folder = subfolder(folder, MASKS, report) if images else None
    masks: dict[str, Path] = {}
    for file in images_in(mask_folder) if mask_folder else ():
        if masks.setdefault(file.stem, file) != file:
            report("twice", file.stem, f"{mask_folder} has two masks named {file.stem} but for their ending; keep one")
    patches = []
    for image in images_in(images or folder):
        mask: Path | None = masks.pop(image.stem, None)
        name = image.relative_to(root).as_posix()
        label = label_of(image.stem)
        if not all(inside(root, file, report) for file in (image, mask) if file):
            continue
        if mask is None and label is None:
            _report_unlabelled(image, name, split != "train" and images is not None, report)
            continue
        if label is not None and coding is not None and len(label) != coding.num_classes:
            message = f"{image}: unknown class: {len(label)} labels in the name, but {coding.num_classes} classes"
            report("label", name, message)
            continue
        resolved = mask.resolve() if mask else None
        if mask is not None and split != "train":
            label = None  # what is held back is measured by pixels, so that these tell its label
        patches.append(Patch(image.resolve(), name, label or (), group_of(image.stem), resolved, coding))
    for mask in masks.values():
        report("no mask", mask.relative_to(root).as_posix(), f"{mask} has no image in {images}")
    return patches


def _report_unlabelled(image: Path, name: str, wants_mask: bool, report: Report) -> None:
    if wants_mask:
        expected = image.parents[1] / "mask" / f"{image.stem}.png"
        report("no mask", name, f"{image} has no mask: expected {expected}, or a label in its name")
    else:
        report("no label", name, f"{image} has no label: its name must end in one such as [1 0 0 1]")


def inside(root: Path, path: Path, report: Report) -> bool:
    """Whether a path, its links followed, stays inside the data set's folder."""
    try:
        if path.resolve().is_relative_to(root.resolve()):
            return True
    except (OSError, RuntimeError):  # a loop of links: as good as outside
        pass
    name = path.relative_to(root).as_posix()
    report("outside", name, f"{path} is a link that leads outside the data set's folder: copy the file into it")
    return False


def subfolder(root: Path, names: Iterable[str], report: Report) -> Path | None:
    """The folder of one of these names, in any case, also numbered: `1.training`."""
    found = [p for p in _entries(root) if _plain(p.name) in names and p.is_dir()]
    if len(found) > 1:
        report("layout", found[1].name, f"{root} has both {found[0].name}/ and {found[1].name}/: keep one of the two")
    return found[0] if found else None


def _plain(name: str) -> str:
    return _NUMBERED.sub("", name.lower())


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name."""
    return [p for p in _entries(folder) if is_image(p.name)]


def is_image(name: str) -> bool:
    """Whether a file is called as an image is; what a Mac puts beside files (`._p.png`) is none."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())
