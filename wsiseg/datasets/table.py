"""Data sets with a table of labels: `labels.csv`, `file,<class>,<class>,…`; empty labels are unknown ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.classes import ClassTable
from wsiseg.datasets.folders import LABELS_FILE, SPLIT_FOLDERS, Listing
from wsiseg.datasets.masks import MaskCoding, MaskNumbers
from wsiseg.datasets.named_files import NamedFiles
from wsiseg.datasets.patch import UNKNOWN, Patch
from wsiseg.datasets.problems import Report
from wsiseg.datasets.provenance import COLUMNS as PROVENANCE
from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.spreadsheet import MAX_ROWS, SUFFIXES, read_spreadsheet
from wsiseg.errors import DatasetError

__all__ = ["MAX_ROWS", "RESERVED", "LabelTable", "list_table", "read_table", "table_of"]

RESERVED = ("file", "group", "split", "mask")
_LABELS = {"": UNKNOWN, "false": 0, "no": 0, "true": 1, "yes": 1}
_LABEL_NUMBER = re.compile(r"([01])(?:[.,]0*)?")
_SPLITS = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}


@dataclass(frozen=True, slots=True)
class LabelTable:
    """A table of labels as it is written.

    Attributes:
        path: of the file.
        columns: its columns, under their own names where they are known ones, in any case of letters.
        rows: of each its line in the file and its cells, as many as columns, or more where something is wrong.
        short: lines with fewer cells than there are columns; these are filled with empty ones.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    short: frozenset[int]

    def class_names(self, classes: ClassTable | None) -> list[str]:
        """The columns that are classes; one may be called as a column of provenance where classes are stated."""
        own = classes.names if classes else ()
        return [name for name in self.columns if name in own or name not in (*RESERVED, *PROVENANCE)]

    def as_dicts(self) -> list[dict[str, str]]:
        """The rows by column.

        Raises:
            DatasetError: a row has more cells than there are columns.
        """
        for line, row in self.rows:
            if len(row) > len(self.columns):
                raise DatasetError(f"{self.path}, line {line}: more values than columns in the first line")
        return [dict(zip(self.columns, row, strict=True)) for _, row in self.rows]


def table_of(root: Path) -> Path | None:
    """The table of labels of a data set, whatever its form and the case of its name; None where there is none.

    Raises:
        DatasetError: there are several, of which nobody says which counts.
    """
    stem = Path(LABELS_FILE).stem
    names = {stem + suffix for suffix in SUFFIXES}
    found = sorted(path for path in root.iterdir() if path.name.lower() in names and path.is_file())
    if len(found) > 1:
        raise DatasetError(f"{root} has {' and '.join(path.name for path in found)}: keep one table of labels")
    return found[0] if found else None


def read_table(path: Path, classes: ClassTable | None = None, ignore: Sequence[str] = ()) -> LabelTable:
    """A table of labels.

    Args:
        path: of the file.
        classes: that are stated, if any.
        ignore: columns that are left out.

    Raises:
        DatasetError: it cannot be read, has too many rows, or two columns of one name; or lacks one to leave out.
    """
    sheet = read_spreadsheet(path)
    if missing := [name for name in ignore if name not in sheet.header]:
        raise DatasetError(f"{path} has no column {missing[0]!r:.60} to leave out, only {', '.join(sheet.header):.120}")
    places = [place for place, name in enumerate(sheet.header) if name not in ignore]
    names = [_known(sheet.header[place], classes) for place in places]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise DatasetError(f"{path} has two columns {name!r:.60}, remove one")
    width, short, rows = len(sheet.header), set(), []
    for line, row in sheet.rows:
        if len(row) < width:
            short.add(line)
        cells = row + ("",) * (width - len(row))
        rows.append((line, (*(cells[place] for place in places), *cells[width:])))
    return LabelTable(path, tuple(names), tuple(rows), frozenset(short))


def _known(name: str, classes: ClassTable | None) -> str:
    """The name of a column as it is known: that of a class, else one of ours, in any case of letters."""
    own = classes.names if classes else ()
    if name in own:
        return name
    alike = [known for known in own if known.casefold() == name.casefold()]
    if len(alike) == 1:
        return alike[0]
    return next((known for known in (*RESERVED, *PROVENANCE) if known == name.casefold()), name)


def list_table(
    path: Path, classes: ClassTable | None, numbers: MaskNumbers, report: Report, ignore: Sequence[str] = ()
) -> Listing:
    """The patches of a table of labels; the columns name the classes where `classes` is None.

    Raises:
        DatasetError: it is no table, or its first line does not fit the classes, so that no row can be understood.
    """
    table, root = read_table(path, classes, ignore), path.parent
    classes = _classes(table, classes)
    listing = Listing(classes=classes)
    reader = _Rows(table, classes, MaskCoding.from_classes(classes, numbers), NamedFiles(root), report)
    seen: set[Path] = set()
    for line, row in table.rows:
        found = reader.patch(line, row)
        if found is None:
            continue
        split, patch = found
        if patch.provenance is not None and not patch.provenance.teaches:
            listing.left_out[patch.provenance.status] += 1
            report("left out", patch.name, f"{patch.name} is {patch.provenance.status}")
            continue
        if patch.path in seen:
            report("twice", patch.name, f"{path} has two rows for {patch.name}")
            continue
        seen.add(patch.path)
        listing.splits[split].append(patch)
    for image in reader.files.unnamed():
        name = image.relative_to(reader.files.root).as_posix()
        report("no label", name, f"{image} has no label: add a row to {path} or remove the image")
    return listing


def _classes(table: LabelTable, stated: ClassTable | None) -> ClassTable:
    """The classes of a table; every column is one of them or known otherwise."""
    path, names = table.path, table.class_names(stated)
    if "file" not in table.columns or not names:
        raise DatasetError(f"{path} must begin with file,<class>,<class>,…, got {','.join(table.columns)!r:.80}")
    if stated is None:
        for name in names:
            place = table.columns.index(name)
            values = [row[place] for _, row in table.rows if row[place]]
            if values and all(_label_value(value) is None for value in values):
                raise DatasetError(
                    f"{path}: the column {name!r:.60} holds {values[0]!r:.40}, which is no label: leave it out with "
                    f"--ignore-columns {name:.60}, or state the classes in dataset.json"
                )
        return ClassTable.from_names(names)
    for name in names:
        if name not in stated.names:
            raise DatasetError(
                f"{path}: unknown class {name!r:.60}, expected {', '.join(stated.names)}; a column that is no class is "
                f"left out with --ignore-columns {name:.60}"
            )
    if missing := [name for name in stated.names if name not in names]:
        raise DatasetError(f"{path} lacks a column for the class {missing[0]!r}")
    return stated


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows become patches; what is wrong with one is reported."""

    table: LabelTable
    classes: ClassTable
    coding: MaskCoding
    files: NamedFiles
    report: Report

    def patch(self, line: int, cells: tuple[str, ...]) -> tuple[str, Patch] | None:
        """The split and patch of a row; None where something is wrong with it."""
        row, where = dict(zip(self.table.columns, cells, strict=False)), f"{self.table.path}, line {line}"
        file, mask_file = row["file"], row.get("mask", "")
        split = _SPLITS.get((row.get("split") or "train").casefold())
        try:
            self._check_cells(line, cells, row, split)
            provenance = Provenance.from_row({n: row.get(n) for n in PROVENANCE if n not in self.classes.names})
        except DatasetError as error:
            self.report("table", file, f"{where}: {error}")
            return None
        label = self._label(row, where, provenance.stated, bool(mask_file) or not provenance.teaches)
        if isinstance(label, str):
            self.report("label", file, label)
            return None
        image = self.files.find(file, "image", where, self.report)
        mask = self.files.find(mask_file, "mask", where, self.report) if mask_file else None
        if split is None or image is None or (mask_file and mask is None):
            return None
        group = row.get("group") or Path(image.name).stem
        known = None if provenance == Provenance() else provenance
        return split, Patch(image.path, image.name, label, group, mask.path if mask else None, self.coding, known)

    def _check_cells(self, line: int, cells: tuple[str, ...], row: dict[str, str], split: str | None) -> None:
        """Raise `DatasetError` for a row of more or fewer cells than columns, or of no split that is known."""
        for wrong, how in ((len(cells) > len(self.table.columns), "more"), (line in self.table.short, "fewer")):
            if wrong:
                raise DatasetError(f"{how} values than columns in the first line")
        if split is None:
            raise DatasetError(f"split must be train, val or test, got {row['split']!r:.40}")

    def _label(self, row: dict[str, str], where: str, stated: bool, enough: bool) -> tuple[int, ...] | str:
        """The label of a row, or what is wrong with it.

        Args:
            row: of the table.
            where: in the file.
            stated: the row says all that is known of it; else a mask tells the label where none is given.
            enough: whether a row without any label is of use.
        """
        label = []
        for name in self.classes.names:
            value = _label_value(row[name])
            if value is None:
                return (
                    f"{where}: the label of {name} must be 0 or 1, or empty where it is unknown, got {row[name]!r:.40}"
                )
            label.append(value)
        if all(value == UNKNOWN for value in label):
            if not enough:
                return f"{where}: no class is known to be there or not; state one, or status unsure, or remove the row"
            return tuple(label) if stated else ()
        return tuple(label)


def _label_value(text: str) -> int | None:
    """What a cell says of a class: 1, 0, or -1 for unknown; None where it is no label."""
    number = _LABEL_NUMBER.fullmatch(text)
    return int(number.group(1)) if number else _LABELS.get(text.casefold())
