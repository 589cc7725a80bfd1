"""Data sets of labelled patches on disk: which files, which classes occur in each, and whether it all fits together.

Two forms are read, both described in docs/data-sets.md:

- labels in file names, the folders of LUAD-HistoSeg and BCSS-WSSS: `train/*[1 0 0 1].png` and, where there are
  any, `val/img` and `val/mask`, `test/img` and `test/mask`, and what copies in the wild call them;
- `labels.csv` beside the images: `file,<class>,<class>,…` with 0, 1 or nothing (unknown), and optionally the columns
  `group` (slide or patient: a group is never torn between training and validation), `split` (train, val or test),
  `mask` (a file below the data set's folder that knows the class of every pixel) and those of `provenance`.

`dataset.json` (or `classes.json`, a list of the classes alone) gives classes, colours, microns per pixel and the value
of excluded mask pixels. The reading here is strict: the first mistake ends it. `dataset_check` collects them all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.choices import SplitName
from wsiseg.classes import ClassTable
from wsiseg.datasets.facts import (
    DATASET_FILE,
    KNOWN_CLASSES,
    classes_of,
    ignored_columns,
    read_about,
    read_classes,
    resolution,
)
from wsiseg.datasets.files import check_files, check_stems
from wsiseg.datasets.folders import LABELS_FILE, Listing, list_folders
from wsiseg.datasets.images import image_size, read_image
from wsiseg.datasets.learnable import learning_findings
from wsiseg.datasets.masks import MaskNumbers, read_mask
from wsiseg.datasets.patch import Patch
from wsiseg.datasets.problems import Report, strict
from wsiseg.datasets.sizes import fits, told_of_sizes
from wsiseg.datasets.split import split_groups
from wsiseg.datasets.table import list_table, table_of
from wsiseg.errors import DatasetError

__all__ = [
    "KNOWN_CLASSES",
    "Patch",
    "PatchDataset",
    "list_patches",
    "read_classes",
    "read_dataset",
    "read_image",
    "read_mask",
    "split_groups",
]


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
        notes: what a person should know of how it was read, one line each.
        is_set_aside: whether `val` was drawn, since the data set does not split itself.
    """

    root: Path
    classes: ClassTable
    mpp: float
    patch_size_px: int
    train: tuple[Patch, ...]
    val: tuple[Patch, ...]
    about: dict[str, str]
    test: tuple[Patch, ...] = ()
    notes: tuple[str, ...] = ()
    is_set_aside: bool = False

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

    def check_for_training(self, strict: bool = False) -> list[str]:
        """Refuse what can be evaluated but not be trained with: batches need images of one size.

        Args:
            strict: refuse as well what is only told otherwise.

        Returns:
            What cannot be learned, one line each; see `wsiseg.datasets.learnable`.

        Raises:
            DatasetError: a validation image is larger than a patch; with `strict`, something cannot be learned.
        """
        found = [finding.message for finding in learning_findings(self.classes.names, self.train, self.val)]
        if strict and found:
            more = f" ({len(found)} things in all, wsiseg dataset check {self.root} lists them)" if found[1:] else ""
            raise DatasetError(f"{self.root}: {found[0]}{more}; mend it, or train without --strict")
        for patch in self.val:
            width, height = image_size(patch.path)
            if not fits((width, height), self.patch_size_px):
                raise DatasetError(
                    f"{patch.path} is {width} x {height} px, but training needs validation images of "
                    f"{self.patch_size_px} px: cut it into patches, or call it test"
                )
        return found

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, labels and file sizes: a run is only resumed on the data set that it began with.

        Of training and validation alone: test patches take no part in a training.
        """
        digest = hashlib.sha256(json.dumps([self.classes.to_json(), self.mpp, self.patch_size_px]).encode())
        for patch in (*self.train, None, *self.val):
            digest.update(f"{patch and (patch.name, patch.label, patch.path.stat().st_size)}\n".encode())
            if patch is not None and patch.corrected:  # its mask teaches
                digest.update(hashlib.sha256(patch.mask.read_bytes() if patch.mask else b"").digest())
        return digest.hexdigest()


def read_dataset(
    root: str | Path,
    mpp: float | None = None,
    classes: ClassTable | None = None,
    val_share: float = 0.1,
    seed: int = 0,
    excluded: int | None = None,
    ignore: Sequence[str] = (),
    needs: SplitName | None = "train",
) -> PatchDataset:
    """Find the patches and labels of a data set and check every file.

    Args:
        root: its folder.
        mpp: microns per pixel; wins over what `dataset.json` says.
        classes: likewise; the public data sets' are in `KNOWN_CLASSES`.
        val_share: share of the groups set aside for validation where the data set does not split itself; 0 for none.
        seed: of that choice.
        excluded: mask value of pixels that no class is known of; wins over `dataset.json`; the number of classes
            by default.
        ignore: columns of the table that are no classes, besides those that `dataset.json` calls `ignore_columns`.
        needs: the split without which the data set is of no use; a set that is only for testing has no train.

    Raises:
        DatasetError: where images and labels do not fit together, an image cannot be read, or the classes or the
            resolution are unknown.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder, expected a data set of labelled patches")
    about = read_about(root)
    numbers = MaskNumbers.from_about(about, excluded)
    ignored = ignored_columns(root, about, ignore)
    listing = list_patches(root, classes or classes_of(root, about), numbers, strict, ignored)
    if listing.classes is None:
        raise DatasetError(without_classes(root))
    if needs == "train" and not listing.splits["train"]:
        raise DatasetError(without_training(root))
    everything = [patch for patches in listing.splits.values() for patch in patches]
    stated = mpp if mpp is not None else about.get("mpp")
    resolved, note = resolution(root, stated, everything)
    check_stems(root, everything, strict)
    splits, facts, size = check_files(listing.splits, len(listing.classes), strict, contents=False)
    train, val = splits["train"], splits["val"]
    is_set_aside = not val
    if is_set_aside:
        train, val = _set_aside(train, val_share, seed)
    text = {key: str(value) for key, value in about.items() if key in ("name", "licence", "citation", "description")}
    sizes = [seen.size_px for seen in (*facts["train"], *facts["val"]) if seen.size_px and fits(seen.size_px, size)]
    notes = [text for text in (note, told_of_sizes(sizes, size)) if text]
    if listing.left_out:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(listing.left_out.items()))
        notes.append(f"rows left out: {counts}")
    return PatchDataset(
        root,
        listing.classes,
        resolved,
        size,
        tuple(train),
        tuple(val),
        text,
        tuple(splits["test"]),
        tuple(notes),
        is_set_aside,
    )


def _set_aside(patches: Sequence[Patch], share: float, seed: int) -> tuple[list[Patch], list[Patch]]:
    """As `split_groups`; slides that were corrected stay in training, so that validation is what it was before."""
    corrected = {patch.group for patch in patches if patch.corrected}
    _, val = split_groups([patch for patch in patches if patch.group not in corrected], share, seed)
    chosen = {patch.group for patch in val}
    return [p for p in patches if p.group not in chosen], val


def list_patches(
    root: Path, classes: ClassTable | None, numbers: MaskNumbers, report: Report, ignore: Sequence[str] = ()
) -> Listing:
    """The patches of a data set of either form, none of whose files was opened yet; `ignore` are columns of a table."""
    table = table_of(root)
    if table is not None:
        return list_table(table, classes, numbers, report, ignore)
    if ignore:
        raise DatasetError(f"{root} has no table of labels, so that there are no columns to leave out")
    return list_folders(root, classes, numbers, report)


def without_classes(root: Path) -> str:
    """The error message for a data set that does not name its classes."""
    return (
        f"{root} does not name its classes: add {DATASET_FILE} with mpp and classes, "
        f"or state --classes ({', '.join(KNOWN_CLASSES)}, or a JSON file)"
    )


def without_training(root: Path) -> str:
    """The error message for a data set that has nothing to learn from."""
    return f"{root} has no training image, expected train/*[1 0 1].png or {LABELS_FILE} with rows"
