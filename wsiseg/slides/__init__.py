"""Readers of slides. `open_slide` chooses one; libraries are imported only when it needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsiseg.choices import DEFAULT_RETRY_S, READERS, check_choice
from wsiseg.errors import OptionError, SlideError
from wsiseg.geometry import MPP_MAX, MPP_MIN, Mpp
from wsiseg.slides.base import Region, SlideReader
from wsiseg.slides.dicom.files import is_dicom_slide
from wsiseg.slides.formats.identify import identify, is_tiff
from wsiseg.slides.formats.vendors import Vendor
from wsiseg.slides.tiff.truncation import require_whole_tiff
from wsiseg.system.addresses import is_address, local_path

__all__ = ["Region", "SlideReader", "open_slide"]

_TRIED = ("openslide", "tiff", "image")
"""Readers that are tried in this order where the user names none. DICOM comes before all of them (`open_slide`), and
TiffSlide reads nothing that these do not.
"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The caller's choices besides the slide itself."""

    mpp: Mpp | None
    series: str | None
    retry_s: float


def open_slide(
    path: str | Path,
    *,
    mpp: float | None = None,
    reader: str | None = None,
    series: str | int | None = None,
    retry_s: float = DEFAULT_RETRY_S,
) -> SlideReader:
    """Open a slide for reading.

    DICOM has its own reader; give any file of the slide, or its folder. OpenSlide reads the formats of vendors.
    tifffile reads other TIFFs (OME-TIFF, plain ones), and all slides behind addresses (`s3://`, `https://`, and what
    fsspec knows), SVS included. Plain pictures (PNG, JPEG) are tried last.

    Args:
        path: a path or an address.
        mpp: microns per level-0 pixel; overrides what the file records.
        reader: "openslide", "tiff", "image", "tiffslide" or "dicom"; None chooses one.
        series: number or name of the image to read, of a TIFF that holds several; None takes the largest at the finest
            resolution.
        retry_s: seconds for which a server that fails is asked again, from each failure on.

    Raises:
        SlideError: it is missing, not in a known format, cut off or damaged.
        OptionError: `mpp` is implausible, or the reader unknown.
    """
    if reader is not None:
        check_choice("a reader", reader, READERS)
    asked = _Asked(_stated(mpp), None if series is None else str(series), retry_s)
    where = local_path(str(path))
    if is_address(where):
        if reader not in (None, "tiff", "tiffslide"):
            raise OptionError(f"only the readers tiff and tiffslide open addresses, not {reader}")
        return _tiffslide(where, asked) if reader == "tiffslide" else _tiff(where, asked)
    if reader in (None, "dicom") and (found := _dicom(Path(where), asked)) is not None:
        return found
    local, vendor = identify(Path(where))
    require_whole_tiff(local)
    if reader is None:
        return _first_that_reads(local, asked, vendor)
    opened = None
    if reader in _readers(READERS, local, vendor):
        opened = _OPENERS[reader](local, asked) or _as_asked(reader, local, asked)
    if opened is None:
        kind = f"is {vendor.name}, which is not a" if vendor else "is not in a"
        raise SlideError(f"{local.name} {kind} format that {reader} reads; leave the reader out, or name another")
    return opened


def _first_that_reads(path: Path, asked: _Asked, vendor: Vendor | None) -> SlideReader:
    """The slide; where all fail, the error of the first that knew the format."""
    first: SlideError | None = None
    for name in _readers(_TRIED, path, vendor):
        try:
            opened = _OPENERS[name](path, asked)
        except SlideError as error:
            # OpenSlide gives up on an SVS some of whose coarsest tiles are missing; tifffile does not.
            first = first or error
        else:
            if opened is not None:
                return opened
    raise first or SlideError(
        f"{path.name} is not a slide or picture in a known format; if it is a slide, export it as TIFF, "
        "OME-TIFF or DICOM from its own software (docs/formats.md)"
    )


def _readers(names: tuple[str, ...], path: Path, vendor: Vendor | None) -> list[str]:
    """The readers among `names` that may try a file: those of its vendor, and for TIFFs alone those that read TIFFs."""
    known = [name for name in names if vendor is None or name in vendor.readers]
    if is_tiff(path) and not _is_stitched(path):
        return known
    return [name for name in known if name not in ("tiff", "tiffslide")]


def _is_stitched(path: Path) -> bool:
    """Whether OpenSlide alone puts the tiles of a TIFF to their places."""
    from wsiseg.slides.openslide import STITCHED, format_of  # noqa: PLC0415

    return format_of(path) in STITCHED


def _as_asked(reader: str, path: Path, asked: _Asked) -> SlideReader | None:
    """A TIFF that is no vendor's through OpenSlide, which is not asked unless the user names it."""
    if reader != "openslide":
        return None
    from wsiseg.slides.openslide import OpenSlideReader, is_generic  # noqa: PLC0415
    from wsiseg.slides.tiff.agreement import agreed  # noqa: PLC0415

    return agreed(OpenSlideReader(path, asked.mpp)) if is_generic(path) else None


def _openslide(path: Path, asked: _Asked) -> SlideReader | None:
    from wsiseg.slides.openslide import OpenSlideReader, detects  # noqa: PLC0415

    if not detects(path):
        return None
    if asked.series is not None:
        raise OptionError(f"{path.name} is read by OpenSlide as one slide; leave out --series")
    return OpenSlideReader(path, asked.mpp)


def _tiff(path: str | Path, asked: _Asked) -> SlideReader:
    from wsiseg.slides.tiff.reader import TiffReader  # noqa: PLC0415

    return TiffReader(str(path), asked.mpp, asked.series, asked.retry_s)


def _image(path: Path, asked: _Asked) -> SlideReader | None:
    from wsiseg.slides.array import ArrayReader  # noqa: PLC0415

    return ArrayReader.open(path, asked.mpp)


def _tiffslide(path: str | Path, asked: _Asked) -> SlideReader:
    from wsiseg.slides.tiff.agreement import agreed  # noqa: PLC0415
    from wsiseg.slides.tiffslide import TiffSlideReader  # noqa: PLC0415

    return agreed(TiffSlideReader(str(path), asked.mpp, asked.retry_s), asked.retry_s)


def _dicom(path: Path, asked: _Asked) -> SlideReader | None:
    """The slide that a DICOM file or folder is part of."""
    if not is_dicom_slide(path):
        return None
    from wsiseg.slides.dicom.reader import DicomReader  # noqa: PLC0415

    return DicomReader(path, asked.mpp)


_OPENERS: Mapping[str, Callable[[Path, _Asked], SlideReader | None]] = {
    "openslide": _openslide,
    "tiff": _tiff,
    "image": _image,
    "tiffslide": _tiffslide,
    "dicom": _dicom,
}
"""For each of `READERS` a function that opens a file, or returns None where the file is not in the reader's format."""


def _stated(mpp: float | None) -> Mpp | None:
    if mpp is None:
        return None
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise OptionError(f"expected {MPP_MIN} to {MPP_MAX} um per pixel (--mpp), got {mpp}")
    return Mpp(mpp, mpp)
