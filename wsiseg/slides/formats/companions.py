"""Slides of several files: whether all are there, which they are, and which slide a part belongs to."""

from __future__ import annotations

from pathlib import Path

from wsiseg.errors import SlideError
from wsiseg.slides.causes import plain
from wsiseg.slides.formats.hamamatsu import ndpis_names, part_names, require_whole_vms
from wsiseg.slides.formats.mirax import ENDING, require_whole_mirax
from wsiseg.slides.formats.vendors import MIRAX, NDPIS, VMS, VMU, VSI, Vendor, vendor_by_content, vendor_by_name

_MIRAX_PARTS = (".dat", ".ini")
_VSI_PARTS = (".ets",)
_MOST_LISTS = 1000
_HEAD_BYTES = 4096


def require_companions(path: Path, vendor: Vendor) -> Path:
    """The path to open: where `path` is a link, and its companions lie beside the target, the target.

    Raises:
        SlideError: a part of the slide is missing, cut off or renamed.
    """
    return _whole(path, vendor)[0]


def companion_files(path: Path) -> list[Path]:
    """The files that hold a slide's pixels beside the one that is opened, in a fixed order; none for most formats.

    Raises:
        SlideError: one of them is missing or cut off.
    """
    vendor = vendor_by_name(path)
    if vendor is None:
        with path.open("rb") as file:
            vendor = vendor_by_content(file.read(_HEAD_BYTES))
    return [] if vendor is None else _whole(path, vendor)[1]


def _whole(path: Path, vendor: Vendor) -> tuple[Path, list[Path]]:
    """The path to open, and the slide's other files."""
    try:
        if vendor == MIRAX:
            return require_whole_mirax(path)
        if vendor in (VMS, VMU):
            return require_whole_vms(path)
    except SlideError:
        raise
    except OSError as error:  # no right to read a part, a disk that fails, a part that vanishes
        part = Path(str(error.filename or "a part of it")).name
        raise SlideError(f"{path.name}: {part} cannot be read ({plain(error)}); copy all of the slide again") from error
    return path, []


def owner(path: Path) -> Path | None:
    """The slide that a file or folder is a part of, None where it stands alone; a slide itself is no part.

    A MIRAX folder and what is in it belong to NAME.mrxs, JPEGs to the .vms that names them, `_NAME_` and its .ets files
    to NAME.vsi. That slide need not be there.
    """
    if path.is_dir():
        return _owner_of_folder(path if path.name else path.resolve())
    if path.suffix.lower() in _MIRAX_PARTS and (path.parent / "Slidedat.ini").is_file():
        return path.parent.with_name(path.parent.name + ENDING)
    if path.suffix.lower() in _VSI_PARTS:
        folder = next((one for one in path.parents if one.name.startswith("_") and one.name.endswith("_")), None)
        return None if folder is None else _vsi_of(folder)
    if path.suffix.lower() in (".jpg", ".jpeg", ".opt", ".ngr"):
        lists = [one for ending in (*VMS.endings, *VMU.endings) for one in sorted(path.parent.glob(f"*{ending}"))]
        return next((one for one in lists[:_MOST_LISTS] if one.is_file() and path.name in _parts(one)), None)
    return None


def _parts(path: Path) -> list[str]:
    """The parts that a VMS or VMU slide names, none where it cannot be read."""
    try:
        return part_names(path)
    except OSError:
        return []


def _owner_of_folder(folder: Path) -> Path | None:
    if (folder / "Slidedat.ini").is_file() or folder.with_name(folder.name + ENDING).is_file():
        return folder.with_name(folder.name + ENDING)
    if len(folder.name) > 2 and folder.name.startswith("_") and folder.name.endswith("_"):
        vsi = _vsi_of(folder)
        return vsi if vsi.is_file() or any(folder.glob("stack*")) else None
    return None


def _vsi_of(folder: Path) -> Path:
    return folder.with_name(folder.name[1:-1] + VSI.endings[0])


def parts_left_out(path: Path, vendor: Vendor) -> str:
    """What to add to the refusal of a format that is not read: what of its parts is or is not there."""
    if vendor == VSI:
        folder = path.with_name(f"_{path.stem}_")
        return "" if folder.is_dir() else f"; its pixels, in a folder {folder.name} beside it, are missing as well"
    if vendor == NDPIS:
        try:
            names = ndpis_names(path)
        except OSError:
            return ""
        gone = [name for name in names if not (path.parent / name).is_file()]
        listed = ", ".join(names[:5])
        return f" ({listed})" + (f", of which {', '.join(gone[:5])} is not there" if gone else "") if names else ""
    return ""


def require_no_part(path: Path) -> None:
    """Raise `SlideError` on a part of a slide of several files, which would be read as something else or not at all."""
    slide = owner(path)
    if slide is not None and slide != path:
        state = "" if slide.is_file() else ", which is missing (OpenSlide needs a file of that name, be it empty)"
        raise SlideError(f"{path.name} is a part of the slide {slide.name}; give that{state}")
