"""What the maps of a cohort are called: found in one pass after the other over the list, which memory need not hold."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from wsiseg.cohort.slide_source import Entry, SlideSource
from wsiseg.errors import OptionError
from wsiseg.prediction.slide_list import name_key, parent_of, plain_part, stem, text_stem
from wsiseg.system.addresses import last_part, without_secrets
from wsiseg.system.files import MAP_SUFFIX

_MAYBE_DICOM = re.compile(r"(\.dcm|\.dicom|\.ima|\.\d+|/[^./]+)$", re.IGNORECASE)
"""Endings of paths that may be DICOM, whose slides have a name of their own; only these are looked into."""


@dataclass(frozen=True, slots=True)
class Named:
    """A slide of a cohort and its map.

    Attributes:
        entry: of the list.
        map: the map's place within the folder, with "/" between folders.
        place: number of the slide in the list, from 0 on.
    """

    entry: Entry
    map: str
    place: int


class Cohort:
    """The slides of a list and the names of their maps.

    Memory holds some 16 bytes for each slide while names are checked.

    Args:
        source: the list.
        keep_folders: put maps into folders like those of the slides; see `wsiseg.prediction.slide_list.map_paths`.
        folds_case: whether the maps' file system takes a.zarr and A.zarr for one.

    Attributes:
        slides: their number, each counted once.

    Raises:
        OptionError: two slides would have one name; both are named. Or there is none.
        DatasetError, RemoteError: see `SlideSource`.
    """

    def __init__(self, source: SlideSource, *, keep_folders: bool = False, folds_case: bool = False) -> None:
        self.source = source
        self._keep_folders, self._folds_case = keep_folders, folds_case
        self._common = 0
        self._doubled: frozenset[int] = frozenset()
        self._repeated: frozenset[int] = frozenset()
        keys = array("Q")
        common: tuple[str, ...] | None = None
        for entry in source:
            parent = parent_of(entry.slide)
            common = parent if common is None else _shared(common, parent)
            keys.append(self._stem_key(entry, parent))
        if common is None:
            raise OptionError(f"{source.text} names no slide; give a list, a folder or a pattern with some")
        self._common = len(common) if keep_folders else 0
        self._doubled = self._of_several_slides(_several(keys))
        for index, entry in enumerate(source):
            keys[index] = _hash(name_key(self._map_of(entry), folds_case))
        self._repeated = _several(keys)
        self.slides = len(keys) - self._check_repeated()

    def __iter__(self) -> Iterator[Named]:
        """Each slide once, in the order of the list."""
        seen: set[int] = set()
        place = 0
        for entry in self.source:
            found = self._map_of(entry)
            if self._repeated:
                key = _hash(name_key(found, self._folds_case))
                if key in seen:
                    continue
                if key in self._repeated:
                    seen.add(key)
            yield Named(entry, found, place)
            place += 1

    def part(self, number: int, parts: int) -> Iterator[Named]:
        """Every `parts`-th slide, from the `number`-th on (from 1): the same ones whenever the list is the same."""
        return (named for named in self if named.place % parts == number - 1)

    def _of_several_slides(self, keys: frozenset[int]) -> frozenset[int]:
        """Of names that several lines have, those that belong to different slides, and not to one that is repeated."""
        first: dict[int, str] = {}
        found: set[int] = set()
        for entry in self.source if keys else ():
            key = self._stem_key(entry, parent_of(entry.slide))
            if key in keys and first.setdefault(key, entry.slide) != entry.slide:
                found.add(key)
        return frozenset(found)

    def _stem_key(self, entry: Entry, parent: tuple[str, ...]) -> int:
        return _hash("\0".join((*parent, name_key(_stem(entry), self._folds_case))))

    def _map_of(self, entry: Entry) -> str:
        if entry.name is not None:
            return "/".join(map(plain_part, entry.name.split("/"))) + MAP_SUFFIX
        parent = parent_of(entry.slide) if self._keep_folders or self._doubled else ()
        doubled = bool(self._doubled) and self._stem_key(entry, parent) in self._doubled
        name = last_part(entry.slide) if doubled else _stem(entry)
        folders = map(plain_part, parent[self._common :]) if self._keep_folders else ()
        return "/".join((*folders, plain_part(name) + MAP_SUFFIX))

    def _check_repeated(self) -> int:
        """How many lines name a slide that is there before; raises where it is another slide of the same name."""
        if not self._repeated:
            return 0
        first: dict[int, Entry] = {}
        again = 0
        for entry in self.source:
            found = self._map_of(entry)
            key = _hash(name_key(found, self._folds_case))
            if key in self._repeated:
                before = first.setdefault(key, entry)
                if before is entry:
                    continue
                if before.slide != entry.slide:
                    raise OptionError(
                        f"{self.source.text}: {without_secrets(before.slide)} and {without_secrets(entry.slide)} would "
                        f"both become {found}; give them names of their own in a column name, or put them into the "
                        "same folders as their slides with --keep-folders"
                    )
                again += 1
        return again


def _stem(entry: Entry) -> str:
    return stem(entry.slide) if _MAYBE_DICOM.search(entry.slide) else text_stem(entry.slide)


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The folders that two ways have in common from the root on."""
    if one == other[: len(one)]:
        return one
    return one[: next(index for index, part in enumerate(one) if other[index : index + 1] != (part,))]


def _several(keys: array[int]) -> frozenset[int]:
    """The numbers that occur more than once."""
    ordered = np.sort(np.frombuffer(keys, np.uint64)) if keys else np.empty(0, np.uint64)
    return frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "little")


def map_path(folder: Path, named: Named) -> Path:
    """Where a map lies in the cohort's folder."""
    return folder.joinpath(*named.map.split("/"))
