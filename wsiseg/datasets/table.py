"""Data sets with a table of labels: `labels.csv`, `file,<class>,<class>,…`; empty labels are unknown ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from wsiseg.classes import ClassTable
from wsiseg.datasets.facts import text_below
from wsiseg.datasets.folders import IMAGE_SUFFIXES, LABELS_FILE, SPLIT_FOLDERS, Listing, images_in
from wsiseg.datasets.masks import MaskCoding, MaskNumbers
from wsiseg.datasets.patch import UNKNOWN, Patch
from wsiseg.datasets.problems import Report
from wsiseg.datasets.provenance import COLUMNS as PROVENANCE
from wsiseg.datasets.provenance import Provenance
from wsiseg.errors import DatasetError

MAX_ROWS = 1_000_000
RESERVED = ("file", "group", "split", "mask")
_LABELS = {"0": 0, "1": 1, "": UNKNOWN}


def list_table(root: Path, classes: ClassTable | None, numbers: MaskNumbers, report: Report) -> Listing:
    """The patches of `labels.csv`; the columns name the classes where `classes` is None.

    Raises:
        DatasetError: it is no table, or its first line does not fit the classes, so that no row can be understood.
    """
    path = root / LABELS_FILE
    rows, header = read_rows(path)
    own = classes.names if classes else ()  # a class may be called as a column of provenance, where classes are stated
    names = [name for name in header if name in own or name not in (*RESERVED, *PROVENANCE)]
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise DatasetError(f"{path} has two columns {twice!r:.60}, remove one")
    if "file" not in header or not names:
        raise DatasetError(f"{path} must begin with file,<class>,<class>,…, got {','.join(header)!r:.80}")
    classes = classes or ClassTable.from_names(names)
    for name in names:
        if name not in classes.names:
            raise DatasetError(f"{path}: unknown class {name!r:.60}, expected {', '.join(classes.names)}")
    if missing := [name for name in classes.names if name not in names]:
        raise DatasetError(f"{path} lacks a column for the class {missing[0]!r}")
    listing, seen = Listing(classes=classes), set()
    coding = MaskCoding.from_classes(classes, numbers)
    for number, row in enumerate(rows, start=2):
        found = _patch(root, classes, coding, row, f"{path}, line {number}", report)
        if found is None:
            continue
        split, patch = found
        if patch.provenance is not None and not patch.provenance.teaches:
            listing.left_out[patch.provenance.status] += 1
            message = f"{patch.name} is {patch.provenance.status}"
            report("left out", patch.name, message)
            continue
        if patch.path in seen:
            report("twice", patch.name, f"{path} has two rows for {patch.path.relative_to(root.resolve())}")
            continue
        seen.add(patch.path)
        listing.splits[split].append(patch)
    masks = {patch.mask for patches in listing.splits.values() for patch in patches}
    named = {_followed(root, row.get("file") or "") for row in rows}
    for image in _beside(root.resolve(), seen):
        if _followed(root, image.as_posix()) not in seen | masks | named:
            name = image.relative_to(root.resolve()).as_posix()
            report("no label", name, f"{image} has no label: add a row to {path} or remove the image")
    return listing


def read_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a table by column, and its first line.

    Raises:
        DatasetError: it cannot be read, or has too many.
    """
    text = text_below(path.parent, path)
    try:
        rows = list(islice(csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True), MAX_ROWS + 1))
        if len(rows) > MAX_ROWS:
            raise DatasetError(f"{path} has more than {MAX_ROWS} rows, split the data set")
        return rows, next(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True), [])
    except csv.Error as error:
        raise DatasetError(f"{path} cannot be read as CSV ({error!s:.80})") from error


def _beside(root: Path, listed: Iterable[Path]) -> Iterator[Path]:
    """All images in the folders directly below `root`, however deep, that hold a listed one; and in `root` itself."""
    tops = {path.relative_to(root).parts[0] for path in listed if path.parent != root}
    for top in sorted(tops):
        yield from (p for p in sorted((root / top).rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES)
    yield from images_in(root)


def _patch(
    root: Path, classes: ClassTable, coding: MaskCoding, row: dict[str, str], where: str, report: Report
) -> tuple[str, Patch] | None:
    file = row.get("file") or ""
    if None in row:
        report("table", file, f"{where}: more values than columns in the first line")
        return None
    try:
        provenance = Provenance.from_row({name: row.get(name) for name in PROVENANCE if name not in classes.names})
    except DatasetError as error:
        report("table", file, f"{where}: {error}")
        return None
    mask_file = (row.get("mask") or "").strip()
    label = _label(classes, row, where, stated=provenance.stated, enough=bool(mask_file) or not provenance.teaches)
    if isinstance(label, str):
        report("label", file, label)
        return None
    path = _below(root, file, "image", where, report)
    mask = _below(root, mask_file, "mask", where, report) if mask_file else None
    split = (row.get("split") or "train").strip()
    if split not in SPLIT_FOLDERS:
        report("table", file, f"{where}: split must be train, val or test, got {split!r:.40}")
        return None
    if path is None or (mask_file and mask is None):
        return None
    group = (row.get("group") or "").strip() or Path(file).stem
    known = None if provenance == Provenance() else provenance
    return split, Patch(path, Path(file).as_posix(), label, group, mask, coding, known)


def _label(
    classes: ClassTable, row: dict[str, str], where: str, *, stated: bool, enough: bool
) -> tuple[int, ...] | str:
    """The label of a row, or what is wrong with it.

    Args:
        classes: in order.
        row: of the table.
        where: in the file.
        stated: the row says all that is known of it; else a mask tells the label where none is given.
        enough: whether a row without any label is of use.
    """
    values = [(row.get(name) or "").strip() for name in classes.names]
    for name, value in zip(classes.names, values, strict=True):
        if value not in _LABELS:
            return f"{where}: the label of {name} must be 0 or 1, or empty where it is unknown, got {value!r:.40}"
    if not any(values) and not enough:
        return f"{where}: no class is known to be there or not; state one, or status unsure, or remove the row"
    return tuple(_LABELS[value] for value in values) if any(values) or stated else ()


def _followed(root: Path, file: str) -> Path | None:
    """A path below `root`, its links followed; None for a null byte, a loop of links, a name too long."""
    try:
        return (root / file).resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _below(root: Path, file: str, kind: str, where: str, report: Report) -> Path | None:
    path = _followed(root, file)
    there = path is not None and _is_file(path)
    path = path or root
    # The name becomes a path below other folders too, so that it must be a plain one here.
    if Path(file).is_absolute() or ".." in Path(file).parts or not path.is_relative_to(root.resolve()):
        report("outside", file, f"{where}: {file!r:.80} lies outside the data set's folder")
        return None
    if not there:
        report("missing", file, f"{where}: there is no {kind} {file!r:.120}, add it or remove the row")
        return None
    return path
