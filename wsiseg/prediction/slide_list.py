"""What was given as slides: which of the names are slides, and what their maps are called."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from urllib.parse import urlsplit

from wsiseg.errors import OptionError
from wsiseg.slides.arguments import slide_name
from wsiseg.slides.formats.companions import owner
from wsiseg.system.addresses import is_address, last_part, local_path, without_secrets
from wsiseg.system.files import MAP_SUFFIX, is_tissue_map

SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
"""What desktops put into folders, besides hidden files."""

SIDE_FILES = (
    *(
        ".geojson",
        ".geojson.gz",
        ".json",
        ".jsonl",
        ".csv",
        ".tsv",
        ".txt",
        ".log",
        ".md",
        ".xml",
        ".qpproj",
        ".qpdata",
    ),
    *(".xlsx", ".pdf", ".md5", ".sha256"),
)
"""Endings of what lies beside slides and is none."""

_WITH_PARTS = (".mrxs", ".vms", ".vmu", ".vsi")
"""Endings of slides of several files, the others of which a pattern matches as well."""

_DOUBLE_ENDINGS = (".ome.tiff", ".ome.tif", ".ome.btf", ".ome.tf8", ".ome.tf2")


def slides_among(names: Sequence[str | Path]) -> tuple[list[str], list[tuple[str, str]]]:
    """The names that may be slides, in order, and those that are none, each with the reason in words.

    None are hidden and system files, tables, texts and polygons, tissue maps, parts of another slide that is given as
    well (a MIRAX slide's folder), and what was given before. Anything else is left to the readers, who refuse by name.
    """
    given = {_same(str(name)) for name in names if str(name).lower().endswith(_WITH_PARTS)}
    seen: set[str] = set()
    slides: list[str] = []
    others: list[tuple[str, str]] = []
    for name in map(str, names):
        place = _same(name)
        reason = "it was given before" if place in seen else _no_slide(name, given)
        seen.add(place)
        if reason is None:
            slides.append(name)
        else:
            others.append((name, reason))
    return slides, others


def _no_slide(name: str, given: set[str]) -> str | None:
    """Why a name is no slide, None where it may be one; `given` are slides that may have parts."""
    short = last_part(name)
    if short.startswith("."):
        return "a hidden file"
    if short.lower() in SYSTEM_FILES:
        return "a file of the system"
    if is_address(name) and not name.lower().startswith("file://"):
        return None
    path = Path(local_path(name))
    if short.lower().endswith(SIDE_FILES) and not path.is_dir():
        return "a table, a text or polygons, no slide"
    if is_tissue_map(path):
        return "a tissue map, no slide"
    return _part_of(path, given) if given else None


def _part_of(path: Path, given: set[str]) -> str | None:
    """Of which of the given slides a file or folder is a part."""
    try:
        slide = owner(path)
    except OSError:  # what cannot be looked into is told by the reader
        return None
    return f"a part of {slide.name}" if slide is not None and _same(str(slide)) in given else None


def _same(name: str) -> str:
    """One text for all ways to write a path."""
    return name if is_address(name) else os.path.abspath(name)  # noqa: PTH100  (links stay as they are)


def map_paths(
    slides: Sequence[str | Path], folder: Path, *, keep_folders: bool = False, folds_case: bool = False
) -> list[Path]:
    """The map of each slide in a folder, named after it: NAME.zarr.

    Slides of one folder whose names differ in the ending alone keep it: a.svs.zarr and a.tif.zarr.

    Args:
        slides: paths and addresses, no two the same.
        folder: of the maps.
        keep_folders: put maps into folders like those of the slides, from the one on that all of them have in common.
        folds_case: whether the folder's file system takes a.zarr and A.zarr for one.

    Raises:
        OptionError: two slides would have one name.
    """
    texts = [str(slide) for slide in slides]
    parents, stems = [parent_of(text) for text in texts], [stem(text) for text in texts]
    keys = [(parent, name_key(name, folds_case)) for parent, name in zip(parents, stems, strict=True)]
    counts = Counter(keys)
    common = _common(parents) if keep_folders else 0
    paths: list[Path] = []
    for text, parent, name, key in zip(texts, parents, stems, keys, strict=True):
        place = map(plain_part, parent[common:]) if keep_folders else ()
        paths.append(folder.joinpath(*place, plain_part(last_part(text) if counts[key] > 1 else name) + MAP_SUFFIX))
    clashes = _clashes(paths, folds_case)
    if clashes:
        raise _clash_error(texts, paths, clashes, parents if not keep_folders else None)
    return paths


def stem(slide: str) -> str:
    """A slide's name without its ending; of an address without its query; a DICOM slide's own name."""
    return text_stem(slide) if (dicom := slide_name(slide)) is None else dicom


def text_stem(slide: str) -> str:
    """As `stem`, by the text alone: no file is opened."""
    name = last_part(slide)
    for ending in _DOUBLE_ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name.rsplit(".", 1)[0] or name


def name_key(name: str, folds_case: bool) -> str:
    """One spelling for all names that look alike or that a file system takes for one."""
    key = unicodedata.normalize("NFC", name)
    return key.casefold() if folds_case else key


def _clashes(paths: Sequence[Path], folds_case: bool) -> list[tuple[int, int]]:
    """Places of paths that others before them have."""
    first: dict[str, int] = {}
    befores = [first.setdefault(name_key(str(path), folds_case), index) for index, path in enumerate(paths)]
    return [(before, index) for index, before in enumerate(befores) if before != index]


def _clash_error(
    texts: Sequence[str],
    paths: Sequence[Path],
    clashes: Sequence[tuple[int, int]],
    parents: Sequence[tuple[str, ...]] | None,
) -> OptionError:
    """What to do about names that clash; `parents` where folders could tell slides apart."""
    before, index = clashes[0]
    advice = "rename one of them, or predict them into another folder"
    if parents is not None and parents[before] != parents[index]:
        advice = "--keep-folders puts the maps of each folder into a folder of their own"
    more = f" (and {len(clashes) - 1} more like that)" if len(clashes) > 1 else ""
    pair = f"{without_secrets(texts[before])} and {without_secrets(texts[index])}"
    return OptionError(f"{pair} would both become {paths[index].name}{more}; {advice}")


def _common(parents: Sequence[tuple[str, ...]]) -> int:
    """How many folders, from the root on, all have in common."""
    if not parents:
        return 0
    first, last = min(parents), max(parents)  # what these two share all share
    same = (one == other for one, other in zip(first, last, strict=False))
    return sum(1 for _ in takewhile(bool, same))


def parent_of(slide: str) -> tuple[str, ...]:
    """The folders that lead to a slide, from the root or the server on."""
    if is_address(slide) and not slide.lower().startswith("file://"):
        parts = urlsplit(without_secrets(slide))
        return (parts.netloc, *(part for part in parts.path.split("/")[:-1] if part))
    return _parts(os.path.dirname(os.path.abspath(local_path(slide))))  # noqa: PTH100, PTH120  (links stay as they are)


@lru_cache(maxsize=2**12)
def _parts(folder: str) -> tuple[str, ...]:
    """The folders of an absolute path; many slides share one."""
    return Path(folder).parts


def plain_part(part: str) -> str:
    """A name that leads nowhere else as part of a path, whatever an address says."""
    if part.isprintable() and "/" not in part and "\\" not in part and part[:1] != "." and part[-1:] not in ("", "."):
        return part
    clean = "".join(
        letter if (letter.isprintable() and letter not in "/\\") or _is_byte(letter) else "_" for letter in part
    )
    return f"_{clean.strip('.')}" if clean in ("", ".", "..") else clean


def _is_byte(letter: str) -> bool:
    """Whether it stands for a byte of a file's name that is not UTF-8, as Python reads such names."""
    return "\udc80" <= letter <= "\udcff"
