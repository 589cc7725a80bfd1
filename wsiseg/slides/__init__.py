"""Readers of slides. `open_slide` chooses one; libraries are imported only when it needs them."""

from __future__ import annotations

from pathlib import Path

from wsiseg.addresses import is_address, local_path
from wsiseg.errors import OptionError, SlideError
from wsiseg.geometry import MPP_MAX, MPP_MIN, Mpp
from wsiseg.slides.base import Region, SlideReader
from wsiseg.slides.identify import identify, is_tiff
from wsiseg.slides.transport import DEFAULT_RETRY_S
from wsiseg.slides.truncation import require_whole_tiff
from wsiseg.slides.vendors import Vendor

__all__ = ["Region", "SlideReader", "open_slide"]

READERS = ("openslide", "image", "tiffslide")


def open_slide(
    path: str | Path, *, mpp: float | None = None, reader: str | None = None, retry_s: float = DEFAULT_RETRY_S
) -> SlideReader:
    """Open a slide for reading.

    OpenSlide reads what it knows; then plain pictures (PNG, JPEG) are tried, then TiffSlide, which also reads URLs
    that fsspec knows (`s3://`, `https://`, `memory://`).

    Args:
        path: a path or a URL.
        mpp: microns per level-0 pixel; wins over what the file records.
        reader: "openslide", "image" or "tiffslide", to try no other.
        retry_s: seconds for which a server that fails is asked again, from each failure on.

    Raises:
        SlideError: it is missing, of no known format, cut off or damaged.
        OptionError: `mpp` is implausible, or the reader unknown.
    """
    if reader is not None and reader not in READERS:
        raise OptionError(f"expected a reader among {', '.join(READERS)}, got {reader!r}")
    stated = _stated(mpp)
    where = local_path(str(path))
    if is_address(where):
        if reader not in (None, "tiffslide"):
            raise OptionError(f"only the reader tiffslide opens addresses, not {reader}")
        return _tiffslide(where, stated, retry_s)
    local, vendor = identify(Path(where))
    require_whole_tiff(local)
    if reader is not None:
        opened = _open(reader, local, stated) if reader in _readers(local, vendor) else None
        if opened is None:
            kind = f"is {vendor.name}, which is" if vendor else "is"
            raise SlideError(
                f"{local.name} {kind} no format that {reader} reads; leave the reader out, or name another"
            )
        return opened
    return _first_that_reads(local, stated, vendor)


def _first_that_reads(path: Path, stated: Mpp | None, vendor: Vendor | None) -> SlideReader:
    """The slide; where all fail, the error of the first that knew the format."""
    first: SlideError | None = None
    for name in _readers(path, vendor):
        try:
            opened = _open(name, path, stated)
        except SlideError as error:
            # OpenSlide gives up on a TIFF some of whose coarsest tiles are missing; TiffSlide does not.
            first = first or error
            if name == "openslide" and not _is_plain_tiff(path):
                break
        else:
            if opened is not None:
                return opened
    raise first or SlideError(
        f"{path.name} is no slide or picture of a format that is known here; where it is a slide, export it as TIFF, "
        "OME-TIFF or DICOM from its own software (docs/formats.md)"
    )


def _readers(path: Path, vendor: Vendor | None) -> list[str]:
    """The readers that may try a file."""
    known = READERS if vendor is None else vendor.readers
    return [name for name in known if name != "tiffslide" or is_tiff(path)]


def _is_plain_tiff(path: Path) -> bool:
    """Whether a TIFF that OpenSlide knows holds its levels as tiles side by side, as any reader would read them."""
    from wsiseg.slides.openslide import PLAIN_TIFF, format_of  # noqa: PLC0415

    return format_of(path) in PLAIN_TIFF


def _open(name: str, path: Path, stated: Mpp | None) -> SlideReader | None:
    """The slide, None where the reader does not know its format."""
    if name == "openslide":
        from wsiseg.slides.openslide import OpenSlideReader, detects  # noqa: PLC0415

        return OpenSlideReader(path, stated) if detects(path) else None
    if name == "image":
        from wsiseg.slides.array import ArrayReader  # noqa: PLC0415

        return ArrayReader.open(path, stated)
    return _tiffslide(str(path), stated)


def _tiffslide(path: str, stated: Mpp | None, retry_s: float = DEFAULT_RETRY_S) -> SlideReader:
    from wsiseg.slides.tiffslide import TiffSlideReader  # noqa: PLC0415

    return TiffSlideReader(path, stated, retry_s)


def _stated(mpp: float | None) -> Mpp | None:
    if mpp is None:
        return None
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise OptionError(f"expected {MPP_MIN} to {MPP_MAX} um per pixel (--mpp), got {mpp}")
    return Mpp(mpp, mpp)
