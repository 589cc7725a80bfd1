"""Data sets with a table of labels, written: begun, or appended to; what labels, corrections and annotations become."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.datasets.facts import DATASET_FILE, MPP_TOLERANCE, classes_of, read_about
from wsiseg.datasets.folders import LABELS_FILE
from wsiseg.datasets.images import image_size
from wsiseg.datasets.masks import ALWAYS_EXCLUDED
from wsiseg.datasets.provenance import COLUMNS as PROVENANCE
from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.sizes import PATCH_SIDE_MAX, PATCH_SIDE_MIN
from wsiseg.datasets.table import RESERVED, read_table
from wsiseg.errors import DatasetError, OptionError
from wsiseg.geometry import MPP_MAX, MPP_MIN
from wsiseg.system.files import cannot_write, refuse_address, sync_path, whole_file, write_csv
from wsiseg.system.json_values import JsonObject
from wsiseg.system.locks import locked
from wsiseg.system.printable import table_cell

IMAGES, MASKS = "images", "masks"
BESIDE = ("labelling",)
"""Folders that may be there before the first patch: what `wsiseg label` keeps of itself."""

NAME_MAX = 120


@dataclass(frozen=True, slots=True)
class PatchRow:
    """What is known of a patch that is to be written.

    Attributes:
        labels: 1 (occurs) or 0 (does not) by the class's name; a class that is not here is unknown.
        group: slide or patient.
        split: "train", "val", "test", or empty for no choice.
        provenance: slide, place, person, source.
        name: of the file, without ending; made of slide and place where it is empty. A patch of the same name and place
            replaces the one that is there.
    """

    labels: Mapping[str, int]
    group: str
    split: str = ""
    provenance: Provenance = field(default_factory=Provenance)
    name: str = ""


class DatasetWriter:
    """Writes patches below a folder: images, masks, `labels.csv` and `dataset.json`.

    Images and masks wait in a hidden folder until `finish`, which puts them in their places and then renames a new
    table over the old one. Used as a context, it leaves the folder as it was where anything fails before that.

    Args:
        root: the data set's folder; made where it is missing, appended to where it is one with a table of labels.
        classes: names and colours. A folder that is there must have the same names, in any order: its own order and
            colours are kept, as masks and models depend on them.
        mpp: microns per pixel of the patches.
        patch_size_px: their side.

    Raises:
        DatasetError: the folder holds something else, or other classes, resolution or patch size.
        OptionError: a size or resolution out of range, a class called as a column of the table.
        OutputError: the folder cannot be made, or another process writes to it.
    """

    def __init__(self, root: str | Path, classes: ClassTable, mpp: float, patch_size_px: int) -> None:
        refuse_address(root)
        self.root = Path(root)
        _check_values(classes, mpp, patch_size_px)
        self.mpp, self.patch_size_px = float(mpp), patch_size_px
        self.given = classes
        self.about: JsonObject = {}
        self.rows: dict[str, dict[str, str]] = {}
        self.classes = classes
        self._held = ExitStack()
        with self._held:
            if self.root.parent.is_dir():  # rows of two that append at once would be lost
                self._held.enter_context(locked(self.root))
            if self.root.exists():
                self._open(classes)
            self._begin()
            self._held = self._held.pop_all()

    def _begin(self) -> None:
        self._new = not self.root.exists()
        self._staging = self.root / f".writing-{os.getpid()}-{secrets.token_hex(4)}"
        self._staged: dict[str, None] = {}  # in order
        self._discarded: set[str] = set()
        with cannot_write(self.root):
            self._staging.mkdir(parents=True)

    def _open(self, classes: ClassTable) -> None:
        table = self.root / LABELS_FILE
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is not a folder; name a folder for the data set")
        if not table.is_file():
            if any(not entry.name.startswith(".") and entry.name not in BESIDE for entry in self.root.iterdir()):
                raise DatasetError(
                    f"{self.root} holds files, but no {LABELS_FILE} to append to; name a new folder, or one with a "
                    "table of labels"
                )
            return
        self.about = read_about(self.root)
        stated = classes_of(self.root, self.about)
        there_are = read_table(table, stated)
        self.classes = stated or ClassTable.from_names(there_are.class_names(None))
        _check_same_classes(self.root, self.classes, classes)
        there = self.about.get("mpp")
        if not isinstance(there, int | float) or abs(there / self.mpp - 1) > MPP_TOLERANCE:
            raise DatasetError(
                f"{self.root} has patches at {there} um per pixel, these are at {self.mpp:g}; name another folder"
            )
        rows = there_are.as_dicts()
        if any(not row.get("file") for row in rows):
            raise DatasetError(f"{table} has rows that cannot be read; see wsiseg dataset check {self.root}")
        self.rows = {row["file"]: row for row in rows}
        if (side := self._side(self.rows)) and side != self.patch_size_px:
            raise DatasetError(
                f"{self.root} has patches of {side} px, these are of {self.patch_size_px}; name another folder"
            )

    def _side(self, rows: Mapping[str, Mapping[str, str]]) -> int | None:
        """The side of the patches that are there, from the first that can be read."""
        for file in rows:
            path = self.root / file
            if path.is_file():
                return image_size(path)[0]
        return None

    def add(
        self, pixels: npt.NDArray[np.uint8] | None, row: PatchRow, mask: npt.NDArray[np.uint8] | None = None
    ) -> str:
        """Add a patch, or say something else of one.

        Args:
            pixels: RGB uint8 (P, P, 3); None where the image is there already.
            row: what is known of it.
            mask: uint8 (P, P), channels 0 to K - 1 of the classes that the writer was given, 255 where nothing is
                known; None for none.

        Returns:
            The path of its image below the folder.

        Raises:
            DatasetError: an array of another shape, a class or value that does not exist.
            OutputError: it cannot be written.
        """
        if pixels is not None:
            _check_pixels(pixels, self.patch_size_px)
        for name, value in row.labels.items():
            if name not in self.given.names:
                raise DatasetError(f"unknown class {name!r:.60}, expected {', '.join(self.given.names)}")
            if value not in (0, 1):
                raise DatasetError(f"the label of {name!r:.60} must be 0 or 1, got {value!r:.40}")
        own = self._own_mask(mask) if mask is not None else None
        file = self._file(row)
        if pixels is not None:
            self._save(Image.fromarray(pixels), file)
        elif file not in self._staged and not (self.root / file).is_file():
            raise DatasetError(f"{self.root} has no image {file} to label; add its pixels")
        mask_file = ""
        if own is not None:
            mask_file = f"{MASKS}/{Path(file).name}"
            picture = Image.fromarray(own, mode="P")
            colors = [v for entry in self.classes for v in entry.color]
            # All 256: with fewer, Pillow stores fewer bits a pixel and cuts 255 off.
            picture.putpalette(colors + [255] * (3 * 256 - len(colors)))
            self._save(picture, mask_file)
        labels = {n: str(int(row.labels[n])) if n in row.labels else "" for n in self.classes.names}
        found = {"file": file, **labels, "group": row.group, "split": row.split, "mask": mask_file}
        self.rows[file] = {k: table_cell(v) for k, v in (found | row.provenance.to_row()).items()}
        return file

    def discard(self, file: str) -> None:
        """Take a patch out, its image and mask as well; nothing where there is none of this name."""
        row = self.rows.pop(file, None)
        self._discarded |= {file, *([row["mask"]] if row and row.get("mask") else [])} if row else set()

    def _own_mask(self, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A mask with the channels of the folder's own order of classes."""
        side, count = self.patch_size_px, len(self.classes)
        if mask.shape != (side, side) or mask.dtype != np.uint8:
            raise DatasetError(f"a mask must be of {side} x {side} px in 8 bits, got {mask.dtype} {mask.shape}")
        if ((mask >= count) & (mask != ALWAYS_EXCLUDED)).any():
            raise DatasetError(f"a mask must hold 0 to {count - 1}, or 255 for unknown, got {int(mask.max())}")
        table = np.full(256, ALWAYS_EXCLUDED, np.uint8)
        table[:count] = [self.classes.names.index(name) for name in self.given.names]
        return table[mask]

    def _file(self, row: PatchRow) -> str:
        """Where a patch goes: the same place of the same slide always to the same file, another never to one taken."""
        where = row.provenance
        plain = row.name or f"{where.slide or row.group}_x{_text(where.x)}_y{_text(where.y)}"
        plain = re.sub(r"[^\w.-]+", "_", plain).strip("._") or "patch"
        stem = plain[:NAME_MAX]
        number = 1
        while True:
            file = f"{IMAGES}/{stem}.png" if number == 1 else f"{IMAGES}/{stem}-{number}.png"
            there = self.rows.get(file)  # a file that no row names was left by a writing that was cut off
            if there is None or _place(there) == _place({k: table_cell(v) for k, v in where.to_row().items()}):
                return file
            number += 1

    def _save(self, picture: Image.Image, file: str) -> None:
        path = self._staging / file
        with cannot_write(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, format="PNG")
        self._discarded.discard(file)
        self._staged[file] = None

    def finish(self) -> Path:
        """Put everything in its place; the folder. More patches may be added after it.

        Raises:
            OutputError: it cannot be written.
        """
        with cannot_write(self.root):
            for file in self._staged:
                if file in self._discarded:
                    continue
                target = self.root / file
                target.parent.mkdir(parents=True, exist_ok=True)
                sync_path(self._staging / file)
                (self._staging / file).replace(target)
        self._staged.clear()
        about = {**self.about, "mpp": self.mpp}
        about.setdefault("classes", [{"name": c.name, "color": list(c.color)} for c in self.classes])
        if about != self.about:
            with whole_file(self.root / DATASET_FILE) as temporary:
                temporary.write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
            self.about = about
        columns = ["file", *self.classes.names, "group", "split", "mask", *PROVENANCE]
        columns += [c for c in dict.fromkeys(k for row in self.rows.values() for k in row) if c not in columns]
        with whole_file(self.root / LABELS_FILE) as temporary:
            write_csv(temporary, columns, ([row.get(c, "") for c in columns] for row in self.rows.values()))
            sync_path(temporary)
        with cannot_write(self.root):
            for file in self._discarded:
                if (self.root / file).resolve().is_relative_to(self.root.resolve()):
                    (self.root / file).unlink(missing_ok=True)
        self._discarded.clear()
        return self.root

    def close(self) -> None:
        """Remove what was not finished."""
        shutil.rmtree(self._staging, ignore_errors=True)
        if self._new and not any(self.root.iterdir()):
            self.root.rmdir()
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def change_classes(root: Path, renamed: Sequence[tuple[str, str]], classes: ClassTable) -> None:
    """Have a data set call its classes as they are called now; classes that it did not have are unknown in its rows.

    Args:
        root: the data set; nothing is done where it has no table of labels yet.
        renamed: (old name, new name), in order; those that the table does not have are left out.
        classes: as they are now: its own under their new names, and others behind them.

    Raises:
        DatasetError: the data set has a class that is not among them.
        OutputError: it cannot be written; it is then as it was before.
    """
    table = root / LABELS_FILE
    if not table.is_file():
        return
    about = read_about(root)
    there = classes_of(root, about)
    if there is None or there.to_json() == classes.to_json():
        return
    names = list(there.names)
    for old, new in renamed:
        names = [new if name == old else name for name in names]
    if tuple(names) != classes.names[: len(names)]:
        raise DatasetError(
            f"{root} has the classes {', '.join(names)}, now they were to be {', '.join(classes.names)}; "
            "name another folder"
        )
    found = read_table(table, there)
    now = dict(zip(there.names, names, strict=True))
    columns = ["file", *classes.names, *(name for name in found.columns if name != "file" and name not in there.names)]
    changed = [{now.get(key, key): value for key, value in row.items()} for row in found.as_dicts()]
    with locked(root):
        with whole_file(table) as temporary:
            write_csv(temporary, columns, ([row.get(name, "") for name in columns] for row in changed))
            sync_path(temporary)
        about = {**about, "classes": [{"name": c.name, "color": list(c.color)} for c in classes]}
        with whole_file(root / DATASET_FILE) as temporary:
            temporary.write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")


def _check_values(classes: ClassTable, mpp: float, patch_size_px: int) -> None:
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise OptionError(f"mpp must be a number from {MPP_MIN} to {MPP_MAX} um per pixel, got {mpp!r:.40}")
    if not PATCH_SIDE_MIN <= patch_size_px <= PATCH_SIDE_MAX:
        raise OptionError(
            f"a patch must have {PATCH_SIDE_MIN} to {PATCH_SIDE_MAX} px a side, got {patch_size_px!r:.40}"
        )
    for name in classes.names:
        if name in (*RESERVED, *PROVENANCE):
            raise OptionError(
                f"a class cannot be called {name!r}, as a column of {LABELS_FILE} is; give it another name"
            )
        if table_cell(name) != name or name != name.strip():
            raise OptionError(f"a class name must not begin with =, +, - or @, nor with a space, got {name!r:.60}")


def _check_pixels(pixels: npt.NDArray[np.uint8], side: int) -> None:
    if pixels.shape != (side, side, 3) or pixels.dtype != np.uint8:
        raise DatasetError(f"a patch must be RGB of {side} x {side} px in 8 bits, got {pixels.dtype} {pixels.shape}")


def _check_same_classes(root: Path, there: ClassTable, given: ClassTable) -> None:
    """Labels go by name: another order is fine, another name is not."""
    for name in given.names:
        if name not in there.names:
            raise DatasetError(
                f"{root} has no class {name!r:.60}, only {', '.join(there.names)}; rename it, or name another folder"
            )
    for name in there.names:
        if name not in given.names:
            raise DatasetError(
                f"{root} has the class {name!r:.60} as well, which is not among {', '.join(given.names)}; "
                "name another folder"
            )


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _place(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row.get(name) or "" for name in ("slide", "x", "y", "size_px"))
