"""The forms that images with knowledge come in, each as a list of files that are read one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.choices import SPLITS
from wsiseg.classes import ClassTable
from wsiseg.datasets.cut.image import KnownImage
from wsiseg.datasets.dataset import list_patches, without_classes
from wsiseg.datasets.dots import (
    BRCA_CLASSES,
    BRCA_LIST,
    BRCA_MPP,
    CELLS_FILE,
    DottedFile,
    cell_values,
    read_brca,
    read_cells,
    states_split,
)
from wsiseg.datasets.facts import classes_of, ignored_columns, read_about
from wsiseg.datasets.folders import SPLIT_FOLDERS, Listing, list_split, subfolder
from wsiseg.datasets.images import read_image
from wsiseg.datasets.masks import MaskCoding, MaskNumbers
from wsiseg.datasets.patch import Patch, group_of
from wsiseg.datasets.problems import strict
from wsiseg.datasets.table import table_of
from wsiseg.errors import DatasetError


@dataclass(frozen=True, slots=True)
class CutSource:
    """Images to cut.

    Attributes:
        classes: their class table.
        mpp: microns per pixel, where the source says so.
        images: of each, its name and what reads it.
    """

    classes: ClassTable
    mpp: float | None
    images: list[tuple[str, Callable[[], KnownImage]]]


def find_source(
    root: Path, classes: ClassTable | None, excluded: int | None, cell_classes: Mapping[str, str] | None
) -> CutSource:
    """The images of a folder, whichever form it has.

    Cell dots (BRCA-M2C's lists, `cells.csv`), a table of labels, folders of splits, images with masks (`img` and
    `mask`), or images with labels in their names.

    Args:
        root: the folder.
        classes: class table; wins over `dataset.json`.
        excluded: mask value of excluded pixels; likewise.
        cell_classes: from class values of dots to class names.

    Raises:
        DatasetError: it holds none of these, its files do not fit together, or its classes are not known.
    """
    brca = any((root / BRCA_LIST.format(split)).is_file() for split in SPLITS)
    if brca or (root / CELLS_FILE).is_file():
        return _dotted(root, brca, classes, cell_classes or {})
    if cell_classes:
        raise DatasetError(
            f"--cell-classes belongs to cell dots, but {root} has neither {CELLS_FILE} nor BRCA-M2C's lists"
        )
    about = read_about(root)
    numbers = MaskNumbers.from_about(about, excluded)
    listing = _listing(root, classes or classes_of(root, about), numbers, ignored_columns(root, about))
    if listing.classes is None:
        raise DatasetError(without_classes(root))
    chosen = any(listing.splits[split] for split in ("val", "test"))
    images = [
        (patch.name, _reader(patch, split if chosen else "", len(listing.classes)))
        for split, patches in listing.splits.items()
        for patch in patches
    ]
    if not images:
        raise DatasetError(f"{root} has no image with a label, a mask or cell dots; see docs/data-sets.md")
    mpp = about.get("mpp")
    return CutSource(listing.classes, mpp if isinstance(mpp, int | float) else None, images)


def _listing(root: Path, classes: ClassTable | None, numbers: MaskNumbers, ignore: Sequence[str]) -> Listing:
    if table_of(root) or subfolder(root, SPLIT_FOLDERS["train"], strict):
        return list_patches(root, classes, numbers, strict, ignore)
    coding = MaskCoding.from_classes(classes, numbers) if classes else None
    listing = Listing(classes=classes)
    listing.splits["train"] = list_split(root, root, "train", coding, strict)
    return listing


def _reader(patch: Patch, split: str, num_classes: int) -> Callable[[], KnownImage]:
    def read() -> KnownImage:
        pixels = read_image(patch.path)
        mask = None if patch.mask is None else patch.read_truth(num_classes)
        if mask is not None and mask.shape != pixels.shape[:2]:
            raise DatasetError(
                f"{patch.mask} is {mask.shape[1]} x {mask.shape[0]} px, its image {pixels.shape[1]} x "
                f"{pixels.shape[0]} px; they must be of one size"
            )
        return KnownImage(patch.name, patch.group, split, pixels, mask, label=() if mask is not None else patch.label)

    return read


def _dotted(root: Path, brca: bool, classes: ClassTable | None, cell_classes: Mapping[str, str]) -> CutSource:
    names = {**BRCA_CLASSES, **cell_classes} if brca else dict(cell_classes)
    if not brca:
        names |= {value: value for value in cell_values(root) if value not in names}
    classes = classes or ClassTable.from_names(list(dict.fromkeys(names.values())))
    for value, name in names.items():
        if name not in classes.names:
            raise DatasetError(
                f"cell class {value!r:.40} is {name!r:.60}, expected one of {', '.join(classes.names)}; "
                f"name it with --cell-classes {value:.20}=NAME"
            )
    channels = {value: classes.names.index(name) for value, name in names.items()}
    chosen = brca or states_split(root)
    images = [
        (file.path.name, _dotted_reader(file, _group(file, brca), split if chosen else ""))
        for split in SPLITS
        for file in _files(root, brca, split, channels)
    ]
    return CutSource(classes, BRCA_MPP if brca else None, images)


def _files(root: Path, brca: bool, split: str, channels: Mapping[str, int]) -> list[DottedFile]:
    if brca:
        return list(read_brca(root, split, channels)) if (root / BRCA_LIST.format(split)).is_file() else []
    return list(read_cells(root, split, channels, needed=False))


def _group(file: DottedFile, brca: bool) -> str:
    """The patient where the name tells it: slides of one must not be on both sides."""
    return group_of(file.path.stem) if brca else file.group


def _dotted_reader(file: DottedFile, group: str, split: str) -> Callable[[], KnownImage]:
    return lambda: KnownImage(file.path.name, group, split, file.read(), dots=file.dots)
