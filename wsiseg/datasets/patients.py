"""Whose slides they are: a table of one's own, a row a slide, its further columns carried along."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import OptionError
from wsiseg.system.printable import printable

MAX_BYTES = 64 * 2**20
NEEDED = ("slide", "patient")
EXPECTED = "expected CSV with the columns slide and patient"


@dataclass(frozen=True, slots=True)
class Patients:
    """A table of slides and patients.

    Attributes:
        columns: names of the further columns, in order.
        rows: by slide: the patient and the further cells.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[str, tuple[str, ...]]]

    def of(self, names: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
        """The patient and further cells of the first of some names that the table has, else None."""
        return next((self.rows[name] for name in names if name in self.rows), None)


NOBODY = Patients((), {})


def read_patients(path: Path, taken: Sequence[str] = (), beginnings: tuple[str, ...] = ()) -> Patients:
    """Read a table in CSV (separated by commas, semicolons or tabs), UTF-8, with the columns slide and patient.

    Args:
        path: the file.
        taken: names of columns that further ones must not have.
        beginnings: what names of further columns must not begin with.

    Raises:
        OptionError: it cannot be read, lacks a column, or gives a slide two patients.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise OptionError(
                f"{path} is larger than any table of slides; expected CSV with the columns slide, patient"
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OptionError(
            f"cannot read {path}: {error.strerror}; expected CSV with the columns slide, patient"
        ) from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not text in UTF-8; save the table as CSV in UTF-8") from error
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise OptionError(f"{path} is not CSV ({error}); save the table as CSV in UTF-8") from error
    names = [name.strip() for name in rows[0]] if rows else []
    lower = [name.lower() for name in names]
    for name in NEEDED:
        if lower.count(name) != 1:
            shown = ", ".join(printable(n, 30) for n in names[:8]) or "nothing"
            raise OptionError(f"{path} needs one column {name!r}, its first line has {shown}")
    places = [place for place, name in enumerate(lower) if name not in NEEDED]
    _check_further(path, [names[place] for place in places], taken, beginnings)
    return _table(path, names, lower, rows[1:])


def _check_further(path: Path, columns: Sequence[str], taken: Sequence[str], beginnings: tuple[str, ...]) -> None:
    for name in columns:
        if not name or columns.count(name) > 1 or name in taken or name.startswith(beginnings):
            raise OptionError(
                f"{path}: the column {printable(name, 40)!r} has no name, that of another, or that of a column of the "
                "report; rename it"
            )


def _table(path: Path, names: list[str], lower: list[str], rows: list[list[str]]) -> Patients:
    slide, patient = (lower.index(name) for name in NEEDED)
    further = [place for place in range(len(names)) if place not in (slide, patient)]
    columns = tuple(names[place] for place in further)
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for number, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(names) or not row[slide].strip() or not row[patient].strip():
            raise OptionError(
                f"{path}, line {number}: expected {len(names)} cells, of which slide and patient are filled in"
            )
        name, who = row[slide].strip(), row[patient].strip()
        entry = who, tuple(row[place].strip() for place in further)
        if found.setdefault(name, entry) != entry:
            raise OptionError(
                f"{path}, line {number}: the slide {printable(name, 60)!r} stands there twice, differently"
            )
    return Patients(columns, found)
