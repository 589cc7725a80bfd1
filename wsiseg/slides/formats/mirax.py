"""Whether a MIRAX slide is whole: a small picture NAME.mrxs, and its pixels in the folder NAME beside it.

OpenSlide does not know a slide whose folder is missing, so that its preview would pass for it.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from wsiseg.errors import SlideError
from wsiseg.slides.formats.key_file import missing, read_key_file

ENDING = ".mrxs"
_SLIDEDAT = "Slidedat.ini"
_VERSION_BYTES = 5
_MAX_PAGES = 10**6
_MAX_INDEX_BYTES = 2**30
_COPY = "copy the slide and all of its folder again"


def require_whole_mirax(path: Path) -> tuple[Path, list[Path]]:
    """The path to open, and the files of its folder.

    The path is that of the link's target where `path` is a link and has no folder beside it.

    Raises:
        SlideError: a part is missing, cut off, or named otherwise than the slide.
    """
    path = _beside_its_folder(path)
    folder = path.with_suffix("")
    _require(path, missing(folder, _SLIDEDAT))
    slidedat = read_key_file(folder / _SLIDEDAT)
    names = _names(path, slidedat)
    for name in names:
        _require(path, missing(folder, name))
    index, *data = [folder / name for name in names]
    needed = _needed(path, index, slidedat, len(data))
    for file, length in zip(data, needed, strict=True):
        found = file.stat().st_size
        if found < length:
            raise SlideError(
                f"{path.name} is incomplete: {folder.name}/{file.name} is cut off, it has {found:,} bytes of "
                f"{length:,}; {_COPY}"
            )
    return path, [folder / _SLIDEDAT, index, *data]


def _beside_its_folder(path: Path) -> Path:
    """`path` or the file that it links to, whichever has its folder beside it.

    Raises:
        SlideError: neither has.
    """
    for one in (path, path.resolve()):
        if one.suffix == ENDING and one.with_suffix("").is_dir():
            return one
    target = path.resolve()
    if target.suffix.lower() == ENDING and target.suffix != ENDING:
        raise SlideError(f"{target.name} is read only under a name that ends in {ENDING}: rename it")
    folder = path.with_suffix("")
    raise SlideError(
        f"{path.name} is the preview of a MIRAX slide, whose pixels belong in a folder {folder.name} beside it; "
        f"{_other_folder(path)}"
    )


def _other_folder(path: Path) -> str:
    """The advice for a missing folder."""
    folder = path.with_suffix("")
    if folder.is_symlink():
        return "that is a link that leads nowhere"
    try:
        beside = sorted(one for one in path.parent.iterdir() if (one / _SLIDEDAT).is_file())
    except OSError:
        beside = []
    same = [one.name for one in beside if one.name.lower() == folder.name.lower()]
    if same:
        return f"there is {same[0]}: give both the same name, in the same case"
    orphans = [one.name for one in beside if not one.with_name(one.name + ENDING).exists()]
    if len(orphans) == 1:
        return f"copy it there; or if {orphans[0]} is its folder, give both the same name again"
    return "copy it there"


def _require(path: Path, fault: str | None) -> None:
    if fault:
        raise SlideError(f"{path.name} is incomplete: in its folder {path.with_suffix('').name} {fault}; {_COPY}")


def _names(path: Path, slidedat: dict[str, dict[str, str]]) -> list[str]:
    """The files that Slidedat.ini names: the index, then those of the pixels."""
    try:
        index = slidedat["HIERARCHICAL"]["INDEXFILE"]
        data = slidedat["DATAFILE"]
        names = [index, *(data[f"FILE_{number}"] for number in range(int(data["FILE_COUNT"])))]
    except (KeyError, ValueError) as error:
        raise SlideError(f"{path.name}: its {_SLIDEDAT} names no index and no data files; {_COPY}") from error
    if any(Path(name).name != name or name in ("", ".", "..") for name in names):
        raise SlideError(f"{path.name}: its {_SLIDEDAT} names files outside of the slide's folder; it is damaged")
    return names


def _needed(path: Path, index: Path, slidedat: dict[str, dict[str, str]], files: int) -> list[int]:
    """How many bytes each data file has at least, by what the index says of tiles.

    Raises:
        SlideError: the index is cut off, or of another slide.
    """
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise SlideError(f"{path.name}: its {index.name} is larger than any index is; {_COPY}")
    content = index.read_bytes()
    general, levels = slidedat.get("GENERAL", {}), slidedat.get("HIERARCHICAL", {})
    slide_id = general.get("SLIDE_ID", "").encode()
    if not content[_VERSION_BYTES:].startswith(slide_id):
        raise SlideError(f"{path.name}: its {index.name} belongs to another slide than its {_SLIDEDAT}; {_COPY}")
    needed = np.zeros(files, np.int64)
    try:
        root = _number(content, _VERSION_BYTES + len(slide_id))
        for level in range(int(levels["HIER_0_COUNT"])):
            for entries in _pages(content, _number(content, root + 4 * level)):
                # Rows of image number, start, length, number of the file.
                starts, lengths, numbers = (entries[:, column].astype(np.int64) for column in (1, 2, 3))
                np.maximum.at(needed, numbers, starts + lengths)
    except (struct.error, ValueError, LookupError) as error:
        raise SlideError(f"{path.name}: its {index.name} is cut off or damaged; {_COPY}") from error
    return [int(length) for length in needed]


def _pages(content: bytes, place: int) -> list[np.ndarray[tuple[int, int], np.dtype[np.int32]]]:
    """The tables of a level's tiles: (n, 4) int32 each."""
    place = _number(content, place + 4)
    pages = []
    seen: set[int] = set()
    while place:
        if place in seen or len(seen) > _MAX_PAGES:  # OpenSlide would go round and round
            raise ValueError
        seen.add(place)
        count, following = _number(content, place), _number(content, place + 4)
        start, end = place + 8, place + 8 + 16 * count
        if count < 0 or end > len(content):
            raise ValueError
        page = np.frombuffer(content[start:end], "<i4").reshape(-1, 4)
        if page.min(initial=0) < 0:
            raise ValueError
        pages.append(page)
        place = following
    return pages


def _number(content: bytes, place: int) -> int:
    if place < 0:
        raise ValueError
    return int(struct.unpack_from("<i", content, place)[0])
