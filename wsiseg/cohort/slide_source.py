"""Lists of slides: text, tables, patterns and folders, here or behind an address, read line by line."""

from __future__ import annotations

import csv
import glob
import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from wsiseg.datasets.spreadsheet import number_of, read_spreadsheet, separator_of
from wsiseg.datasets.text import encoding_of
from wsiseg.errors import DatasetError, OptionError, WsisegError
from wsiseg.geometry import MPP_MAX, MPP_MIN
from wsiseg.prediction.slide_list import SIDE_FILES, SYSTEM_FILES, slides_among
from wsiseg.slides.arguments import slides_of
from wsiseg.slides.sources.listing import addresses_matching, has_wildcards
from wsiseg.slides.sources.remote import open_source
from wsiseg.system.addresses import is_address, last_part, local_path, without_secrets

PATH_COLUMNS = ("path", "file", "slide", "wsi", "slide_path", "file_path", "filename", "address")
"""Names of the column with the slides, in any case of letters; the first that a table has counts."""

_GROUP_COLUMNS = ("group", "patient", "case")
_TABLES = (".csv", ".tsv", ".xlsx")
_HEAD = 2**16
_LONGEST_LINE = 2**16


@dataclass(frozen=True, slots=True)
class Entry:
    """A slide of a list.

    Attributes:
        slide: path or address.
        name: of its map, where the list states one.
        mpp: microns per level-0 pixel, where the list states it.
        group: patient, case or whatever groups slides; empty where the list does not say.
    """

    slide: str
    name: str | None = None
    mpp: float | None = None
    group: str = ""


class SlideSource:
    """A list of slides that can be read again and again, each time line by line.

    Args:
        place: of a text file (a slide a line), of a table (CSV or Excel), of a folder, or a pattern; a path or an
            address.

    Raises:
        OptionError: there is nothing of that kind.
    """

    def __init__(self, place: str) -> None:
        self.place = local_path(place)
        self.text = without_secrets(place)
        path = Path(self.place)
        self._is_remote = is_address(self.place)
        is_there = not self._is_remote and path.exists()
        if not is_there and has_wildcards(self.place.partition("?")[0] if self._is_remote else self.place):
            self._names: list[str] | None = None if self._is_remote else _matching(self.place)
            self._kind = "pattern"
        elif is_there and path.is_dir():
            self._names, self._kind = _matching(str(Path(glob.escape(self.place)) / "*")), "pattern"
        elif is_there or self._is_remote:
            self._kind = "table" if last_part(self.place).lower().endswith(_TABLES) else "text"
        else:
            raise OptionError(f"{self.text} does not exist; give a list of slides (text or CSV), a folder or a pattern")
        self._base: str | None = None

    def __iter__(self) -> Iterator[Entry]:
        """The slides, in the order of the list.

        Raises:
            DatasetError: a line is none of a list.
            RemoteError: it cannot be had from its server.
        """
        if self._kind == "pattern":
            found = addresses_matching(self.place) if self._names is None else iter(self._names)
            return (Entry(name) for name in found if self._names is not None or not _is_beside(name))
        return self._table() if self._kind == "table" else self._lines()

    def _lines(self) -> Iterator[Entry]:
        with self._open() as file:
            for number, line in enumerate(file, start=1):
                text = line.strip().strip("\ufeff")
                if "\0" in text or len(text) > _LONGEST_LINE:
                    raise DatasetError(f"{self.text}, line {number}: expected a path or an address, got no text")
                if text and not text.startswith("#"):
                    yield Entry(self._placed(_unquoted(text)))

    def _table(self) -> Iterator[Entry]:
        rows = self._rows()
        _, header = next(rows, (0, ()))
        columns = [cell.strip().casefold() for cell in header]
        place = next((columns.index(name) for name in PATH_COLUMNS if name in columns), None)
        if place is None:
            raise DatasetError(
                f"{self.text} has no column for the slides: expected path (or {', '.join(PATH_COLUMNS[1:4])}) in its "
                f"first line, and if you like name, mpp and group; got {', '.join(columns)!r:.80}"
            )
        for name in {*PATH_COLUMNS, *_GROUP_COLUMNS, "name", "mpp"}:
            if columns.count(name) > 1:
                raise DatasetError(f"{self.text} has two columns {name!r}, remove one")
        named = {name: columns.index(name) for name in ("name", "mpp") if name in columns}
        group = next((columns.index(name) for name in _GROUP_COLUMNS if name in columns), None)
        for line, row in rows:
            cells = [cell.strip() for cell in row]
            cells += [""] * (len(columns) - len(cells))
            if not any(cells) or cells[0].startswith("#"):
                continue
            if any(cells[len(columns) :]):
                raise DatasetError(f"{self.text}, line {line}: more values than columns in the first line")
            if not cells[place]:
                raise DatasetError(f"{self.text}, line {line}: no path of a slide; fill it in, or remove the line")
            yield Entry(
                self._placed(cells[place]),
                self._name(line, cells[named["name"]]) if "name" in named else None,
                self._mpp(line, cells[named["mpp"]]) if "mpp" in named else None,
                cells[group] if group is not None else "",
            )

    def _rows(self) -> Iterator[tuple[int, Sequence[str]]]:
        if self.place.lower().endswith(".xlsx"):
            if self._is_remote:
                raise OptionError(f"{self.text}: Excel files are read from folders of this machine; save it as CSV")
            sheet = read_spreadsheet(Path(self.place))
            yield 1, sheet.header
            yield from sheet.rows
            return
        with self._open() as file:
            head = file.read(_HEAD)
            separator, start = separator_of(head, PATH_COLUMNS)
            file.seek(0)
            for _ in range(1 if start else 0):
                file.readline()
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
            line, began = (2, False) if start else (1, False)
            try:
                for row in reader:
                    began = began or any(row)
                    if began:
                        yield line, row
                    line = reader.line_num + (2 if start else 1)
            except csv.Error as error:
                raise DatasetError(f"{self.text} cannot be read as CSV ({error!s:.80})") from error

    @contextmanager
    def _open(self) -> Iterator[io.TextIOWrapper]:
        try:
            with self._bytes() as file:
                encoding = encoding_of(self.text, file)
            with self._bytes() as file, io.TextIOWrapper(file, encoding, newline=None) as text:
                yield text
        except (OSError, UnicodeError) as error:
            if isinstance(error, WsisegError):
                raise
            reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8, UTF-16 or Latin-1"
            raise OptionError(f"{self.text} cannot be read ({reason}); give a list of slides, text or CSV") from error

    @contextmanager
    def _bytes(self) -> Iterator[BinaryIO]:
        if not self._is_remote:
            with Path(self.place).open("rb") as file:
                yield file
            return
        source = open_source(self.place)
        try:
            yield cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", source.file()), 2**20))
        finally:
            source.close()

    def _placed(self, slide: str) -> str:
        """A slide's place; relative ones lie beside the list or, if the first of them does not, are seen from here."""
        if is_address(slide):
            return slide
        if self._is_remote:
            return slide if slide.startswith("/") else self.place.rpartition("/")[0] + "/" + slide.replace("\\", "/")
        if os.path.isabs(slide):  # noqa: PTH117  (a million of them)
            return slide
        if self._base is None:
            beside = os.path.dirname(self.place) or "."  # noqa: PTH120
            self._base = beside if os.path.exists(os.path.join(beside, slide)) or not os.path.exists(slide) else ""  # noqa: PTH110, PTH118
        return os.path.normpath(os.path.join(self._base, slide))  # noqa: PTH118

    def _name(self, line: int, text: str) -> str | None:
        if not text:
            return None
        name = text[: -len(".zarr")] if text.lower().endswith(".zarr") else text
        if name != name.strip("./ ") or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise DatasetError(
                f"{self.text}, line {line}: expected a name for the map as case-1 or folder/case-1, got {text!r:.60}"
            )
        return name

    def _mpp(self, line: int, text: str) -> float | None:
        if not text:
            return None
        mpp = number_of(text)
        if mpp is None or not math.isfinite(mpp) or not MPP_MIN <= mpp <= MPP_MAX:
            raise DatasetError(
                f"{self.text}, line {line}: expected {MPP_MIN} to {MPP_MAX} um per pixel as mpp, or nothing, got "
                f"{text!r:.40}"
            )
        return mpp


def _matching(pattern: str) -> list[str]:
    """The slides that a pattern of this machine matches, in order of their names, without what is none."""
    return slides_among(slides_of(sorted(glob.glob(pattern, recursive=True))))[0]  # noqa: PTH207


def _is_beside(address: str) -> bool:
    """Whether an object's name says that it is no slide: hidden files, those of systems, tables, texts, folders."""
    name = last_part(address).lower()
    return address.endswith("/") or name.startswith(".") or name in SYSTEM_FILES or name.endswith(SIDE_FILES)


def _unquoted(text: str) -> str:
    """A line without the quotes that some programs put around paths."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
