"""Which images a data set has and how each is labelled: a table, or labels in file names."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.classes import ClassTable
from wsiseg.errors import DatasetError
from wsiseg.training.images import read_mask

LABELS_FILE = "labels.csv"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
_TRAIN, _VAL, _TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")
_NAME_LABEL = re.compile(r"\[([01](?:[ ,_]*[01])*)\]$")
_RESERVED = ("file", "group", "split", "mask")


@dataclass(frozen=True, slots=True)
class Patch:
    """One labelled patch.

    Attributes:
        path: of the image.
        name: path below the data set's folder, with forward slashes; what pseudo masks and messages are called by.
        label: 0 or 1 for each class; empty where only a mask is known.
        group: slide or patient it comes from.
        mask: where its pixels are known, in any split: class channels, K or 255 for excluded.
    """

    path: Path
    name: str
    label: tuple[int, ...]
    group: str
    mask: Path | None = None

    def read_truth(self, num_classes: int) -> npt.NDArray[np.uint8]:
        """The class channel of every pixel (H, W), K for excluded ones; a patch without mask has none to read.

        Raises:
            DatasetError: the mask cannot be read, or holds other classes.
        """
        if self.mask is None:
            raise DatasetError(f"{self.path} has no mask, so that the classes of its pixels are not known; add one")
        return read_mask(self.mask, num_classes)


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def read_csv(root: Path, classes: ClassTable | None) -> tuple[list[Patch], list[Patch], list[Patch], ClassTable]:
    """(training, validation, test, classes) of `labels.csv`; the columns name the classes where `classes` is None."""
    path = root / LABELS_FILE
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
            file.seek(0)
            header = next(csv.reader(file, skipinitialspace=True), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as CSV ({error!s:.80})") from error
    names = [name for name in header if name not in _RESERVED]
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise DatasetError(f"{path} has two columns {twice!r:.60}, remove one")
    if "file" not in header or not names:
        raise DatasetError(f"{path} must begin with file,<class>,<class>,…, got {','.join(header)!r:.80}")
    classes = classes or ClassTable.of(names)
    for name in names:
        if name not in classes.names:
            raise DatasetError(f"{path}: unknown class {name!r:.60}, expected {', '.join(classes.names)}")
    if missing := [name for name in classes.names if name not in names]:
        raise DatasetError(f"{path} lacks a column for the class {missing[0]!r}")
    patches: dict[str, list[Patch]] = {"train": [], "val": [], "test": []}
    for number, row in enumerate(rows, start=2):
        split, patch = _csv_patch(root, classes, row, f"{path}, line {number}")
        patches[split].append(patch)
    listed = Counter(p.path for group in patches.values() for p in group)
    masks = {p.mask for group in patches.values() for p in group}
    if doubled := next((p for p, count in listed.items() if count > 1), None):
        raise DatasetError(f"{path} has two rows for {doubled.relative_to(root.resolve())}")
    for image in _beside(root.resolve(), listed):
        if image.resolve() not in listed and image.resolve() not in masks:
            raise DatasetError(f"{image} has no label: add a row to {path} or remove the image")
    return patches["train"], patches["val"], patches["test"], classes


def _beside(root: Path, listed: Iterable[Path]) -> Iterator[Path]:
    """All images in the folders directly below `root`, however deep, that hold a listed one; and in `root` itself."""
    tops = {path.relative_to(root).parts[0] for path in listed if path.parent != root}
    for top in sorted(tops):
        yield from (p for p in sorted((root / top).rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES)
    yield from _images(root)


def _csv_patch(root: Path, classes: ClassTable, row: dict[str, str], where: str) -> tuple[str, Patch]:
    if None in row:
        raise DatasetError(f"{where}: more values than columns in the first line")
    file, values = row.get("file") or "", [row.get(name) for name in classes.names]
    for name, value in zip(classes.names, values, strict=True):
        if value is None or value.strip() not in ("0", "1"):
            raise DatasetError(f"{where}: the label of {name} must be 0 or 1, got {value!r:.40}")
    path = _below(root, file, "image", where)
    mask = _below(root, name, "mask", where) if (name := (row.get("mask") or "").strip()) else None
    split = (row.get("split") or "train").strip()
    if split not in ("train", "val", "test"):
        raise DatasetError(f"{where}: split must be train, val or test, got {split!r:.40}")
    label = tuple(int(str(value)) for value in values)
    group = (row.get("group") or "").strip() or Path(file).stem
    return split, Patch(path, Path(file).as_posix(), label, group, mask)


def _below(root: Path, file: str, kind: str, where: str) -> Path:
    path = (root / file).resolve()
    # The name becomes a path below other folders too, so that it must be a plain one here.
    if Path(file).is_absolute() or ".." in Path(file).parts or not path.is_relative_to(root.resolve()):
        raise DatasetError(f"{where}: {file!r:.80} lies outside the data set's folder")
    if not path.is_file():
        raise DatasetError(f"{where}: there is no {kind} {file!r:.120}, add it or remove the row")
    return path


def read_folders(root: Path, classes: ClassTable | None) -> tuple[list[Patch], list[Patch], list[Patch]]:
    """(training, validation, test) of folders whose file names hold the labels."""
    train_folder = _first(root, _TRAIN)
    if train_folder is None:
        raise DatasetError(f"{root} has neither {LABELS_FILE} nor a folder train/, so no labelled image was found")
    inner = train_folder / "img"
    train = [_named_patch(root, image, classes) for image in _images(inner if inner.is_dir() else train_folder)]
    lengths = {len(patch.label) for patch in train}
    if len(lengths) > 1:
        odd = next(p for p in train if len(p.label) != len(train[0].label))
        raise DatasetError(f"{odd.path}: {len(odd.label)} labels, but {train[0].path.name} has {len(train[0].label)}")
    return train, _held_back(root, _VAL, classes), _held_back(root, _TEST, classes)


def _held_back(root: Path, names: Iterable[str], classes: ClassTable | None) -> list[Patch]:
    """Patches that are not for training: with masks where the folder has img/ and mask/, else with labels in names."""
    folder = _first(root, names)
    if folder is None or classes is None:
        return []
    if not (folder / "img").is_dir():
        return [_named_patch(root, image, classes) for image in _images(folder)]
    return _masked_patches(root, folder, classes)


def _first(root: Path, names: Iterable[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _named_patch(root: Path, image: Path, classes: ClassTable | None) -> Patch:
    """A patch from a name such as `1031280-2300-27920-[1 0 0 1].png`; its group is what stands before the first -."""
    found = _NAME_LABEL.search(image.stem)
    if found is None:
        raise DatasetError(f"{image} has no label: its name must end in one such as [1 0 0 1]")
    label = tuple(int(digit) for digit in re.findall("[01]", found.group(1)))
    if classes is not None and len(label) != len(classes):
        raise DatasetError(
            f"{image}: unknown class: {len(label)} labels in the name, but {len(classes)} classes "
            f"({', '.join(classes.names)})"
        )
    return Patch(image.resolve(), image.relative_to(root).as_posix(), label, group_of(image.stem[: found.start()]))


def group_of(stem: str) -> str:
    """The patient of a name from TCGA, else what stands before the first hyphen: the slide of LUAD-HistoSeg's names."""
    tcga = re.match(r"TCGA-\w{2}-\w{4}", stem)
    return tcga.group() if tcga else stem.split("-", maxsplit=1)[0] or stem


def _masked_patches(root: Path, folder: Path, classes: ClassTable) -> list[Patch]:
    masks = {mask.stem: mask for mask in _images(folder / "mask")} if (folder / "mask").is_dir() else {}
    patches = []
    for image in _images(folder / "img"):
        if image.stem not in masks:
            raise DatasetError(f"{image} has no mask: expected {folder / 'mask' / image.stem}.png")
        mask = masks.pop(image.stem)
        values = np.unique(read_mask(mask, len(classes)))
        label = tuple(int(k in values) for k in range(len(classes)))
        patch = Patch(image.resolve(), image.relative_to(root).as_posix(), label, group_of(image.stem))
        patches.append(replace(patch, mask=mask))
    if masks:
        raise DatasetError(f"{next(iter(masks.values()))} has no image in {folder / 'img'}")
    return patches
