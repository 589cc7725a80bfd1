"""Which DICOM files are one slide, and what it is called.

A slide is the whole-slide images of one series (of one pyramid in it, where it holds several), with the label and
overview that belong to them. Its files lie in one folder. It is called after the folder where the folder holds no
other, so that any of its files, and the folder itself, open the same slide under the same name. Several in a folder
are called after their glass slides' identifiers, their descriptions, or their UIDs: the first that tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import SlideError
from wsiseg.slides.dicom.files import DICOMDIR, dicom_files, is_dicom_slide
from wsiseg.slides.dicom.header import SLIDE_CLASS, Key, read_key

_NAMES_LISTED = 5


@dataclass(frozen=True)
class DicomSlide:
    """The files of a slide.

    Attributes:
        name: its folder's, or what tells several slides of one folder apart.
        folder: where they lie.
        instances: in the order of their UIDs, each once.
        alone: whether the folder holds no other slide.
        unreadable: DICOM files of the folder that cannot be read, so that it is not known what they belong to.
    """

    name: str
    folder: Path
    instances: tuple[Key, ...]
    alone: bool
    unreadable: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The path that opens it: the folder, or a file if the folder holds several."""
        levels = [key.path for key in self.instances if key.flavor == "VOLUME"]
        return self.folder if self.alone else min(levels)

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the files, in the order of `instances`."""
        return tuple(key.path for key in self.instances)


def slides_in(folder: Path) -> tuple[DicomSlide, ...]:
    """The slides whose files lie in a folder, not those in folders within it."""
    keys: dict[str, Key] = {}
    unreadable = []
    for path in dicom_files(folder):
        try:
            key = read_key(path)
        except (SlideError, OSError):
            unreadable.append(path.name)
            continue
        if key.sop_class == SLIDE_CLASS:
            keys.setdefault(key.sop_uid or str(path), key)
    groups: dict[tuple[str, ...], list[Key]] = {}
    for key in keys.values():
        if key.flavor == "VOLUME":
            groups.setdefault((key.study, key.series, key.pyramid), []).append(key)
    for key in keys.values():
        if key.flavor != "VOLUME":
            for group in _owners(key, list(groups.values())):
                group.append(key)
    ordered = [tuple(sorted(group, key=lambda key: key.sop_uid)) for _, group in sorted(groups.items())]
    names = _names(folder, ordered)
    return tuple(
        DicomSlide(name, folder, group, len(ordered) == 1, tuple(unreadable))
        for name, group in zip(names, ordered, strict=True)
    )


def slide_of(path: Path) -> DicomSlide:
    """The slide that a DICOM file, or a folder with one slide, belongs to.

    Raises:
        SlideError: it belongs to none, or the folder holds none or several.
    """
    if path.is_dir():
        found = slides_in(path)
        if len(found) == 1:
            return found[0]
        raise SlideError(
            _several(path, found)
            if found
            else f"{path} holds DICOM, but no levels of a slide; copy all files of its series"
        )
    if path.name.upper() == DICOMDIR:
        raise SlideError(f"{path.name} lists the DICOM files of a disk; give a file of the slide, or its folder")
    own = read_key(path)
    for slide in slides_in(path.parent):
        if any(key.sop_uid == own.sop_uid and key.sop_class == own.sop_class for key in slide.instances):
            return slide
    if own.sop_class != SLIDE_CLASS:
        raise SlideError(f"{path.name} is DICOM, but no whole-slide image; give a file of the slide's series")
    raise SlideError(
        f"{path.name} is the {own.flavor.lower() or 'unnamed'} picture of a DICOM slide whose levels are missing; "
        "copy all files of its series into the folder"
    )


def name_of(path: Path) -> str | None:
    """The name of the slide at a path; None if there is none."""
    try:
        return slide_of(path).name
    except (SlideError, OSError):
        return None


def each_once(arguments: Sequence[str]) -> list[str]:
    """See `wsiseg.slides.arguments.slides_of`."""
    found: dict[str, None] = {}
    strays: list[tuple[str, Path]] = []
    folders: set[Path] = set()
    for argument in arguments:
        if not is_dicom_slide(argument):
            found[argument] = None
            continue
        local = Path(argument)
        folder = local if local.is_dir() else local.parent
        try:
            slides = slides_in(folder) if local.is_dir() else (slide_of(local),)
        except (SlideError, OSError):
            strays.append((argument, folder))
            found[argument] = None
            continue
        if not slides:  # a folder with DICOM of other kinds
            found[argument] = None
            continue
        folders.add(folder)
        found |= dict.fromkeys(str(slide.path) for slide in slides)
    for argument, folder in strays:
        if folder in folders:
            del found[argument]
    return list(found)


def _owners(key: Key, groups: list[list[Key]]) -> list[list[Key]]:
    """The slides that a label or overview belongs to: by series, else by frame of reference, else by glass slide."""
    ways: list[Callable[[Key], object]] = [
        lambda other: (other.study, other.series),
        lambda other: (other.study, other.frame_of_reference) if other.frame_of_reference else other,
        lambda other: (other.study, other.container) if other.container else other,
    ]
    for way in ways:
        owners = [group for group in groups if way(group[0]) == way(key)]
        if owners:
            return owners
    return []


def _names(folder: Path, groups: Sequence[Sequence[Key]]) -> list[str]:
    own = folder.resolve().name
    if len(groups) == 1 and own:
        return [own]
    levels = [next(key for key in group if key.flavor == "VOLUME") for group in groups]
    for way in (
        lambda key: key.container,
        lambda key: key.description,
        lambda key: key.series.rsplit(".", 1)[-1],
        lambda key: f"{key.series}-{key.pyramid}",
    ):
        names = [re.sub(r"[^\w-]+", "-", way(key)).strip("-")[:80] for key in levels]
        if all(names) and len({name.lower() for name in names}) == len(names):
            return names
    return [re.sub(r"[^\w-]+", "-", key.sop_uid) for key in levels]


def _several(folder: Path, found: Sequence[DicomSlide]) -> str:
    listed = ", ".join(f"{slide.name} ({slide.path.name})" for slide in found[:_NAMES_LISTED])
    more = f" and {len(found) - _NAMES_LISTED} more" if len(found) > _NAMES_LISTED else ""
    return f"{folder} holds {len(found)} DICOM slides: {listed}{more}; give the file of one"
