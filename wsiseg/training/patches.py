"""Data sets of labelled patches on disk: which files, which classes occur in each, and whether it all fits together.

Two forms are read, both described in the documentation of `wsiseg train`:

- labels in file names, the folders of LUAD-HistoSeg and BCSS-WSSS: `train/*[1 0 0 1].png` and, where there are
  any, `val/img` and `val/mask`, and what copies in the wild call them;
- `labels.csv` beside the images: `file,<class>,<class>,…` with 0 or 1, and optionally the columns `group` (slide or
  patient: a group is never torn between training and validation) and `split` (train or val).

`dataset.json` (or `classes.json`, a list of the classes alone) gives classes, colours and microns per pixel.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.errors import DatasetError, OptionError
from wsiseg.geometry import MPP_MAX, MPP_MIN

LABELS_FILE, DATASET_FILE, CLASSES_FILE = "labels.csv", "dataset.json", "classes.json"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
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

_TRAIN, _VAL = ("train", "training"), ("val", "valid", "validation")
_NAME_LABEL = re.compile(r"\[([01](?:[ ,_]*[01])*)\]$")
_RESERVED = ("file", "group", "split")


@dataclass(frozen=True, slots=True)
class Patch:
    """One labelled patch.

    Attributes:
        path: of the image.
        name: path below the data set's folder, with forward slashes; what pseudo masks and messages are called by.
        label: 0 or 1 for each class; empty where only a mask is known.
        group: slide or patient it comes from.
        mask: of a validation patch, where its pixels are known: class channels, K or 255 for excluded.
    """

    path: Path
    name: str
    label: tuple[int, ...]
    group: str
    mask: Path | None = None


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
    """

    root: Path
    classes: ClassTable
    mpp: float
    patch_size_px: int
    train: tuple[Patch, ...]
    val: tuple[Patch, ...]
    about: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, labels and file sizes: a run is only resumed on the data set that it began with."""
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
        train, val, classes = _read_csv(root, classes)
    else:
        train, val = _read_folders(root, classes)
        if classes is None:
            raise DatasetError(
                f"{root} does not name its classes: add {DATASET_FILE} with mpp and classes, "
                f"or state --classes ({', '.join(KNOWN_CLASSES)}, or a JSON file)"
            )
    if not train:
        raise DatasetError(f"{root} has no training image, expected train/*[1 0 1].png or {LABELS_FILE} with rows")
    if not val:
        train, val = split_groups(train, val_share, seed)
    stems = Counter(Path(patch.name).with_suffix("") for patch in [*train, *val])
    if doubled := next((stem for stem, count in stems.items() if count > 1), None):
        raise DatasetError(f"{root} has two images named {doubled} but for their ending; rename one")
    size = _check_images([*train, *val])
    text = {key: str(value) for key, value in about.items() if key in ("name", "licence", "citation", "description")}
    return PatchDataset(root, classes, mpp, size, tuple(train), tuple(val), text)


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


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image as RGB uint8 (H, W, 3)."""
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path} cannot be read as an image ({reason:.100}), replace or remove it") from error
    if mode.startswith(("I", "F")):  # Pillow would cut it off at white
        raise DatasetError(f"{path} has more than 8 bits a channel (mode {mode}), convert it to 8 bits first")
    return pixels


def read_mask(path: Path, num_classes: int) -> npt.NDArray[np.uint8]:
    """A mask of class channels as uint8 (H, W); K stands for excluded pixels."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise DatasetError(f"{path} must be a single-channel or palette image, got mode {image.mode}")
            mask = np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} cannot be read as a mask, replace or remove it") from error
    mask = mask.astype(np.uint8)
    mask[mask == 255] = num_classes
    if mask.max(initial=0) > num_classes:
        raise DatasetError(
            f"{path}: unknown class {mask.max()}, expected 0 to {num_classes - 1}, or {num_classes} for excluded"
        )
    return mask


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


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def _read_csv(root: Path, classes: ClassTable | None) -> tuple[list[Patch], list[Patch], ClassTable]:
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
    patches: dict[str, list[Patch]] = {"train": [], "val": []}
    for number, row in enumerate(rows, start=2):
        split, patch = _csv_patch(root, classes, row, f"{path}, line {number}")
        patches[split].append(patch)
    listed = Counter(p.path for group in patches.values() for p in group)
    if doubled := next((p for p, count in listed.items() if count > 1), None):
        raise DatasetError(f"{path} has two rows for {doubled.relative_to(root.resolve())}")
    for image in _beside(root.resolve(), listed):
        if image.resolve() not in listed:
            raise DatasetError(f"{image} has no label: add a row to {path} or remove the image")
    return patches["train"], patches["val"], classes


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
    path = (root / file).resolve()
    # The name becomes a path below other folders too, so that it must be a plain one here.
    if Path(file).is_absolute() or ".." in Path(file).parts or not path.is_relative_to(root.resolve()):
        raise DatasetError(f"{where}: {file!r:.80} lies outside the data set's folder")
    if not path.is_file():
        raise DatasetError(f"{where}: there is no image {file!r:.120}, add it or remove the row")
    split = (row.get("split") or "train").strip()
    if split not in ("train", "val"):
        raise DatasetError(f"{where}: split must be train or val, got {split!r:.40}")
    label = tuple(int(str(value)) for value in values)
    return split, Patch(path, Path(file).as_posix(), label, (row.get("group") or "").strip() or Path(file).stem)


def _read_folders(root: Path, classes: ClassTable | None) -> tuple[list[Patch], list[Patch]]:
    train_folder = _first(root, _TRAIN)
    if train_folder is None:
        raise DatasetError(f"{root} has neither {LABELS_FILE} nor a folder train/, so no labelled image was found")
    inner = train_folder / "img"
    train = [_named_patch(root, image, classes) for image in _images(inner if inner.is_dir() else train_folder)]
    lengths = {len(patch.label) for patch in train}
    if len(lengths) > 1:
        odd = next(p for p in train if len(p.label) != len(train[0].label))
        raise DatasetError(f"{odd.path}: {len(odd.label)} labels, but {train[0].path.name} has {len(train[0].label)}")
    val_folder = _first(root, _VAL)
    if val_folder is None or classes is None:
        return train, []
    if not (val_folder / "img").is_dir():
        return train, [_named_patch(root, image, classes) for image in _images(val_folder)]
    return train, _masked_patches(root, val_folder, classes)


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
    stem = image.stem[: found.start()]
    tcga = re.match(r"TCGA-\w{2}-\w{4}", stem)
    group = tcga.group() if tcga else stem.split("-")[0] or image.stem
    return Patch(image.resolve(), image.relative_to(root).as_posix(), label, group)


def _masked_patches(root: Path, folder: Path, classes: ClassTable) -> list[Patch]:
    masks = {mask.stem: mask for mask in _images(folder / "mask")} if (folder / "mask").is_dir() else {}
    patches = []
    for image in _images(folder / "img"):
        if image.stem not in masks:
            raise DatasetError(f"{image} has no mask: expected {folder / 'mask' / image.stem}.png")
        mask = masks.pop(image.stem)
        values = np.unique(read_mask(mask, len(classes)))
        label = tuple(int(k in values) for k in range(len(classes)))
        patch = Patch(image.resolve(), image.relative_to(root).as_posix(), label, image.stem.split("-")[0])
        patches.append(replace(patch, mask=mask))
    if masks:
        raise DatasetError(f"{next(iter(masks.values()))} has no image in {folder / 'img'}")
    return patches


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
