"""Identify a file before any reader opens it, so that no reader mistakes it for something else."""

from __future__ import annotations

from pathlib import Path

from wsiseg.errors import SlideError
from wsiseg.slides.formats.companions import parts_left_out, require_companions, require_no_part
from wsiseg.slides.formats.foreign import foreign_by_content, foreign_by_name, picture
from wsiseg.slides.formats.presence import require_file
from wsiseg.slides.formats.vendors import MIRAX, Vendor, vendor_by_content, vendor_by_name

_HEAD_BYTES = 2**16
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def identify(path: Path) -> tuple[Path, Vendor | None]:
    """The path to open, and the vendor whose format it is; None for TIFFs, DICOM and plain pictures of no vendor.

    Raises:
        SlideError: it is missing, no slide, of a format that is not read, or a slide some of whose files are missing.
    """
    named = vendor_by_name(path)
    require_file(path, may_be_empty=named == MIRAX)
    foreign = foreign_by_name(path)
    if foreign:
        raise SlideError(f"{path.name} is {foreign}")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    require_no_part(path)
    vendor = _vendor(path, named, head)
    if vendor is not None and not vendor.readers:
        raise SlideError(
            f"{path.name} is {vendor.name}, which is not read: {vendor.way_out}{parts_left_out(path, vendor)}"
        )
    if vendor is None:
        return path, None
    path = require_companions(path, vendor)
    if vendor.format is not None:
        _require_format(path, vendor)
    return path, vendor


def _require_format(path: Path, vendor: Vendor) -> None:
    """OpenSlide must know the format, or its driver for TIFFs of any kind would read tiles as they lie in the file."""
    from wsiseg.slides.openslide import format_of  # noqa: PLC0415

    if format_of(path) != vendor.format:
        raise SlideError(
            f"{path.name} has the name of {vendor.name}, but is none that OpenSlide knows; copy it again, or "
            f"{vendor.way_out}"
        )


def _vendor(path: Path, named: Vendor | None, head: bytes) -> Vendor | None:
    """Whose format a file is: its content counts before its name, unless it says nothing."""
    found = vendor_by_content(head)
    if found is not None:
        return found
    if head.startswith(_TIFF):
        # Any TIFF's vendor stands in its tags; but these hold a preview in the TIFF, and the pixels elsewhere.
        return named if named is not None and (named.format or not named.readers) and named != MIRAX else None
    if named is not None and (named == MIRAX or not named.readers):
        return named
    foreign = foreign_by_content(head)
    if foreign:
        raise SlideError(f"{path.name} is {foreign}")
    kind = picture(head)
    if named is not None and kind is not None:
        raise SlideError(
            f"{path.name} has the name of {named.name}, but holds {kind}, such as a preview; fetch the slide itself, "
            "or give the picture the ending that it should have"
        )
    return named


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF of any kind does."""
    with path.open("rb") as file:
        return file.read(4).startswith(_TIFF)
