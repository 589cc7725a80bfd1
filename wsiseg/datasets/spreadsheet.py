"""Tables as spreadsheets write them: CSV of any separator and encoding, and Excel's own files."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from wsiseg.datasets.text import bytes_below, decoded
from wsiseg.errors import DatasetError

MAX_ROWS = 1_000_000
MAX_TABLE_BYTES = 128 * 2**20
"""Of one table: some hundred bytes for each of a million patches."""

SUFFIXES = (".csv", ".tsv", ".xlsx")
_SEPARATORS = ",;\t"
_SEP_LINE = re.compile(r"sep=([,;\t])\r?\n?", re.IGNORECASE)
"""What Excel may write before the first line."""
_DECIMAL = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


@dataclass(frozen=True, slots=True)
class Spreadsheet:
    """The cells of a table.

    Attributes:
        path: of the file.
        header: names of the columns, without blanks around; empty columns are left out.
        rows: the others that are not empty, each with its line in the file and as many cells as it has.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def read_spreadsheet(path: Path) -> Spreadsheet:
    """The cells of a CSV file (separated by comma, semicolon or tab; UTF-8, UTF-16 or Latin-1) or of an Excel file.

    Raises:
        DatasetError: it cannot be read, is too large, or may be read in several ways.
    """
    lines = _excel(path) if path.suffix.lower() == ".xlsx" else _csv(path)
    try:
        found = [(n, tuple(cell.strip() for cell in row)) for n, row in islice(lines, MAX_ROWS + 2)]
    except csv.Error as error:
        raise DatasetError(f"{path} cannot be read as CSV ({error!s:.80})") from error
    if len(found) > MAX_ROWS + 1:
        raise DatasetError(f"{path} has more than {MAX_ROWS} rows, split the data set")
    full = [(n, row) for n, row in found if any(row)]
    header = full[0][1] if full else ()
    rows = full[1:]
    width = len(header)
    while width and not header[width - 1] and not any(len(row) >= width and row[width - 1] for _, row in rows):
        width -= 1
    header = header[:width]
    if "" in header:
        raise DatasetError(f"{path}: column {header.index('') + 1} has no name in the first line; name or remove it")
    return Spreadsheet(path, header, tuple((n, _without_end(row, width)) for n, row in rows))


def _without_end(row: tuple[str, ...], width: int) -> tuple[str, ...]:
    """A row without the empty cells behind the last column."""
    return row[:width] if not any(row[width:]) else row


def _csv(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    text = decoded(path, bytes_below(path.parent, path, MAX_TABLE_BYTES))
    separator, start = separator_of(text, ("file",))
    reader = csv.reader(io.StringIO(text[start:], newline=""), delimiter=separator, skipinitialspace=True)
    line = 2 if start else 1
    for row in reader:
        yield line, row
        line = reader.line_num + (2 if start else 1)


def separator_of(text: str, names: Collection[str]) -> tuple[str, int]:
    """What stands between cells, and where the table begins.

    That separator is taken by which the first line has a column of one of these names (in lower case), among others;
    nothing goes by how often one occurs.
    """
    if stated := _SEP_LINE.match(text):
        return stated.group(1), stated.end()
    for separator in _SEPARATORS:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        first = next((row for row in lines if any(cell.strip() for cell in row)), [])
        if len(first) > 1 and not {cell.strip().casefold() for cell in first}.isdisjoint(names):
            return separator, 0
    return ",", 0


def _excel(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    try:
        import openpyxl  # noqa: PLC0415  (few have tables in Excel's form)
    except ImportError as error:
        raise DatasetError(
            f"{path} is an Excel file, which needs the package openpyxl: install it, or save the table as CSV"
        ) from error
    data = bytes_below(path.parent, path, MAX_TABLE_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked <= 8 * MAX_TABLE_BYTES:
            shown = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            written = openpyxl.load_workbook(io.BytesIO(data), read_only=True)
            rows = {name: list(_sheet_rows(shown[name], written[name])) for name in shown.sheetnames}
    except (OSError, ValueError, TypeError, LookupError, SyntaxError, AttributeError, EOFError, RuntimeError,
            MemoryError, zipfile.BadZipFile) as error:  # fmt: skip
        raise DatasetError(
            f"{path} cannot be read as an Excel file, it may be damaged; save the table as CSV"
        ) from error
    if unpacked > 8 * MAX_TABLE_BYTES:
        raise DatasetError(f"{path} is larger than any table of labels; is it the right file?")
    filled = [name for name, found in rows.items() if any(any(row) for row in found)]
    if len(filled) > 1:
        raise DatasetError(f"{path} has several sheets with content ({', '.join(filled)!s:.80}): keep one")
    for number, row in enumerate(rows[filled[0]] if filled else (), start=1):
        if None in row:
            raise DatasetError(f"{path}, line {number}: a formula has no value yet: save the table in Excel, or as CSV")
        yield number, [cell or "" for cell in row]


def _sheet_rows(shown: Any, written: Any) -> Iterator[list[str | None]]:
    """The cells of a sheet as text; None for a formula whose value was never stored.

    Args:
        shown: the sheet, its formulas read as their values.
        written: the same, its formulas read as they are written.
    """
    both = zip_longest(shown.iter_rows(values_only=True), written.iter_rows(values_only=True), fillvalue=())
    for values, formulas in islice(both, MAX_ROWS + 2):
        unknown = [v is None and isinstance(f, str) and f.startswith("=") for v, f in zip_longest(values, formulas)]
        yield [None if odd else _text(v) for v, odd in zip(values, unknown, strict=False)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():  # neither of infinity nor of what is no number
        return str(int(value))
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def number_of(text: str) -> float | None:
    """A number, with a decimal point or comma; None where it is none, or 1,234 may be either."""
    if _DECIMAL.fullmatch(text) and not _THOUSANDS.fullmatch(text):
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None
