"""Whether a Hamamatsu VMS or VMU slide is whole: a text that names the files of its pixels beside it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from wsiseg.errors import SlideError
from wsiseg.slides.formats.key_file import missing, read_key_file

_SECTIONS = ("Virtual Microscope Specimen", "Uncompressed Virtual Microscope Specimen")
_NDPIS_SECTION = "NanoZoomer Digital Pathology Image Set"
_JPEG = b"\xff\xd8"
_ROW_BYTES = 40
"""Of a record in the optimisation file."""

_ROWS = 9
"""Records that are looked at."""


def require_whole_vms(path: Path) -> tuple[Path, list[Path]]:
    """The path to open, which is the link's target where the parts lie beside that, and the slide's parts.

    Raises:
        SlideError: a part is missing or cut off.
    """
    names = part_names(path)
    if not names:
        raise SlideError(f"{path.name} names no files of pixels; copy the slide and all of its parts again")
    if any(Path(name).name != name for name in names):
        raise SlideError(f"{path.name} names files outside of its folder; it is damaged")
    folder = next((one for one in (path, path.resolve()) if (one.parent / names[0]).is_file()), path).parent
    for name in names:
        fault = missing(folder, name)
        if fault:
            raise SlideError(f"{path.name} is incomplete: {fault}; copy all files that it names beside it")
        if _is_cut_off(folder / name):
            raise SlideError(f"{path.name} is incomplete: {name} is cut off; copy it again")
    _require_own_optimisation(path, folder, names)
    return folder / (path.name if folder == path.parent else path.resolve().name), [folder / name for name in names]


def part_names(path: Path) -> list[str]:
    """The files that a VMS or VMU slide cannot be opened without.

    The optimisation file is none of them: it makes reading faster, and changes no pixel.
    """
    sections = read_key_file(path)
    keys = next((sections[name] for name in _SECTIONS if name in sections), {})
    named = [value for key, value in keys.items() if key.startswith("ImageFile") and _layer(key) == 0]
    named += [keys[key] for key in ("MapFile", "MacroImage") if keys.get(key)]
    return [name for name in dict.fromkeys(named) if name]


def ndpis_names(path: Path) -> list[str]:
    """The .ndpi slides that an NDPIS set lists."""
    keys = read_key_file(path).get(_NDPIS_SECTION, {})
    return [value for key, value in keys.items() if key.startswith("Image") and value.lower().endswith(".ndpi")]


def _require_own_optimisation(path: Path, folder: Path, names: list[str]) -> None:
    """Raise `SlideError` where the optimisation file is of other JPEGs: OpenSlide would find no tile by it."""
    sections = read_key_file(path)
    keys = next((sections[name] for name in _SECTIONS if name in sections), {})
    name = keys.get("OptimisationFile", "")
    if not name or Path(name).name != name or not (folder / name).is_file():
        return
    with (folder / name).open("rb") as file:
        table = file.read(_ROW_BYTES * _ROWS)
    # One record a row of tiles; the first row's place is known without it.
    places = [struct.unpack_from("<q", table, start)[0] for start in range(_ROW_BYTES, len(table) - 7, _ROW_BYTES)]
    if places and not any(_is_restart(folder / one, place) for one in names[:_ROWS] for place in places):
        raise SlideError(
            f"{path.name}: its optimisation file {name} is of another slide or damaged; copy it again, or remove it: "
            "it only makes reading faster"
        )


def _is_restart(path: Path, place: int) -> bool:
    """Whether a JPEG's coded data begin anew at a place."""
    if not 2 <= place < path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(place - 2)
        marker = file.read(2)
    return marker[0] == 0xFF and 0xD0 <= marker[1] <= 0xD7


def _layer(key: str) -> int:
    """The focal layer of `ImageFile`, `ImageFile(z)`, `ImageFile(x,y)`, `ImageFile(z,x,y)`; OpenSlide reads 0."""
    numbers = key.removeprefix("ImageFile").strip("()").split(",")
    try:
        return int(numbers[0]) if len(numbers) in (1, 3) and numbers[0] else 0
    except ValueError:
        return 0


def _is_cut_off(path: Path) -> bool:
    """Whether a JPEG ends otherwise than with a marker, without which its last rows are lost."""
    with path.open("rb") as file:
        if file.read(2) != _JPEG:
            return path.stat().st_size == 0
        file.seek(-2, os.SEEK_END)
        return file.read(1) != b"\xff"
