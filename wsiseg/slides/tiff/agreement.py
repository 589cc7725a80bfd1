"""Libraries that a user names for a TIFF that is no vendor's: right only where they see what `TiffReader` sees."""

from __future__ import annotations

from wsiseg.choices import DEFAULT_RETRY_S
from wsiseg.errors import SlideError
from wsiseg.slides.base import SlideReader
from wsiseg.slides.tiff.reader import TiffReader

_NO_VENDORS = ("generic-tiff", "ome", "imagej")


def agreed(slide: SlideReader, retry_s: float = DEFAULT_RETRY_S) -> SlideReader:
    """The slide with the resolution of `TiffReader`; others are closed and refused where that sees something else.

    Raises:
        SlideError: the library does not show the image, its levels or its pixels as they are.
    """
    if slide.vendor not in (*_NO_VENDORS, "aperio", "leica"):
        return slide
    try:
        if slide.vendor == "leica":
            raise _refusal(slide)
        with TiffReader(slide.path, slide.stated_mpp, None, retry_s) as other:
            _require_same(slide, other)
            if slide.vendor == "aperio":
                return slide
            slide.recorded_mpp, slide.mpp_source, slide.notes = other.recorded_mpp, other.mpp_source, other.notes
    except SlideError:
        slide.close()
        raise
    return slide


def _require_same(slide: SlideReader, other: TiffReader) -> None:
    if other.levels != slide.levels or not other.is_plain:
        raise _refusal(slide)


def _refusal(slide: SlideReader) -> SlideError:
    return SlideError(
        f"{slide.name} is not a TIFF that {slide.reader} shows as it is (its image, levels, pixels or bounds differ); "
        "leave out --reader"
    )
