"""Readers of slides. `open_slide` chooses one; libraries are imported only when it needs them."""

from __future__ import annotations

import stat
from pathlib import Path

from wsiseg.errors import OptionError, SlideError
from wsiseg.geometry import MPP_MAX, MPP_MIN, Mpp
from wsiseg.slides.base import Region, SlideReader
from wsiseg.slides.truncation import require_whole_tiff

__all__ = ["Region", "SlideReader", "open_slide"]

READERS = ("openslide", "image", "tiffslide")
"""In the order in which they are tried; "dicom" comes before them, for files that begin as DICOM."""


def open_slide(path: str | Path, *, mpp: float | None = None, reader: str | None = None) -> SlideReader:
    """Open a slide for reading.

    DICOM, by any file of a slide or its folder, has a reader of its own. OpenSlide reads what it knows; then plain
    pictures (PNG, JPEG) are tried, then TiffSlide, which also reads URLs that fsspec knows (`s3://`, `https://`,
    `memory://`).

    Args:
        path: a path or a URL.
        mpp: microns per level-0 pixel; wins over what the file records.
        reader: "openslide", "image", "tiffslide" or "dicom", to try no other.

    Raises:
        SlideError: it is missing, of no known format, cut off or damaged.
        OptionError: `mpp` is implausible, or the reader unknown.
    """
    if reader is not None and reader not in (*READERS, "dicom"):
        raise OptionError(f"expected a reader among {', '.join(READERS)}, dicom, got {reader!r}")
    stated = _stated(mpp)
    if "://" in str(path):
        if reader not in (None, "tiffslide"):
            raise OptionError(f"only the reader tiffslide opens URLs, not {reader}")
        return _tiffslide(str(path), stated)
    local = Path(path)
    if reader in (None, "dicom") and (found := _dicom(local, stated)) is not None:
        return found
    _require_file(local)
    require_whole_tiff(local)
    if reader is not None:
        opened = _open(reader, local, stated)
        if opened is None:
            raise SlideError(f"{local.name} is no format that {reader} reads; leave the reader out, or name another")
        return opened
    return _first_that_reads(local, stated)


def _first_that_reads(path: Path, stated: Mpp | None) -> SlideReader:
    """The slide; where all fail, the error of the first that knew the format."""
    first: SlideError | None = None
    for name in READERS:
        try:
            opened = _open(name, path, stated)
        except SlideError as error:
            # OpenSlide gives up on a TIFF some of whose coarsest tiles are missing; TiffSlide does not.
            first = first or error
        else:
            if opened is not None:
                return opened
    assert first is not None  # TiffSlide, the last, either reads or raises
    raise first


def _dicom(path: Path, stated: Mpp | None) -> SlideReader | None:
    """The DICOM slide that a file or folder is part of, None where it is no DICOM."""
    from wsiseg.slides.dicom_series import is_part  # noqa: PLC0415

    if not is_part(path):
        return None
    from wsiseg.slides.dicom import DicomReader  # noqa: PLC0415

    return DicomReader(path, stated)


def _open(name: str, path: Path, stated: Mpp | None) -> SlideReader | None:
    """The slide, None where the reader does not know its format."""
    if name == "openslide":
        from wsiseg.slides.openslide import OpenSlideReader, detects  # noqa: PLC0415

        return OpenSlideReader(path, stated) if detects(path) else None
    if name == "dicom":
        return None
    if name == "image":
        from wsiseg.slides.array import ArrayReader  # noqa: PLC0415

        return ArrayReader.open(path, stated)
    return _tiffslide(str(path), stated)


def _tiffslide(path: str, stated: Mpp | None) -> SlideReader:
    from wsiseg.slides.tiffslide import TiffSlideReader  # noqa: PLC0415

    return TiffSlideReader(path, stated)


def _stated(mpp: float | None) -> Mpp | None:
    if mpp is None:
        return None
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise OptionError(f"expected {MPP_MIN} to {MPP_MAX} um per pixel (--mpp), got {mpp}")
    return Mpp(mpp, mpp)


def _require_file(path: Path) -> None:
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            path.open("rb").close()
    except FileNotFoundError as error:
        raise SlideError(f"{path} does not exist; give the path of a slide") from error
    except (OSError, ValueError) as error:  # no right, a loop of links, a name too long, a null byte
        reason = getattr(error, "strerror", None) or error
        raise SlideError(f"{str(path)!r:.300} cannot be read ({reason})") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise SlideError(f"{path} is {kind}; give the path of a slide")
    if found.st_size == 0:
        raise SlideError(f"{path.name} is empty (0 bytes); copy it again")
