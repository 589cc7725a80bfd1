"""Readers of slides. `open_slide` chooses one; libraries are imported only when it needs them."""

from __future__ import annotations

import stat
from pathlib import Path

from wsiseg.addresses import is_address, local_path
from wsiseg.errors import OptionError, SlideError
from wsiseg.geometry import MPP_MAX, MPP_MIN, Mpp
from wsiseg.slides.base import Region, SlideReader
from wsiseg.slides.transport import DEFAULT_RETRY_S
from wsiseg.slides.truncation import require_whole_tiff

__all__ = ["Region", "SlideReader", "open_slide"]

READERS = ("openslide", "tiff", "image", "tiffslide")
_TRIED = ("openslide", "tiff", "image")
"""Without a reader named; TiffSlide reads nothing more than these."""


def open_slide(
    path: str | Path,
    *,
    mpp: float | None = None,
    reader: str | None = None,
    series: str | int | None = None,
    retry_s: float = DEFAULT_RETRY_S,
) -> SlideReader:
    """Open a slide for reading.

    OpenSlide reads vendors' formats; TIFFs that are no vendor's (OME-TIFF, plain ones) are read through tifffile, also
    behind addresses that fsspec knows (`s3://`, `https://`, `memory://`), and SVS behind them; then plain pictures
    (PNG, JPEG) are tried.

    Args:
        path: a path or a URL.
        mpp: microns per level-0 pixel; wins over what the file records.
        reader: "openslide", "tiff", "image" or "tiffslide", to try no other.
        series: number or name of the image to read, of a TIFF that holds several; None takes the largest at the finest
            resolution.
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
        if reader not in (None, "tiff", "tiffslide"):
            raise OptionError(f"only the readers tiff and tiffslide open addresses, not {reader}")
        if reader == "tiffslide":
            return _tiffslide(where, stated, retry_s)
        return _tiff(where, stated, series, retry_s)
    local = Path(where)
    _require_file(local)
    require_whole_tiff(local)
    if reader is not None:
        opened = _open(reader, local, stated, series) or _as_asked(reader, local, stated)
        if opened is None:
            raise SlideError(f"{local.name} is no format that {reader} reads; leave the reader out, or name another")
        return opened
    return _first_that_reads(local, stated, series)


def _first_that_reads(path: Path, stated: Mpp | None, series: str | int | None) -> SlideReader:
    """The slide; where all fail, the error of the first that knew the format."""
    first: SlideError | None = None
    for name in _TRIED:
        try:
            opened = _open(name, path, stated, series)
        except SlideError as error:
            # OpenSlide gives up on an SVS some of whose coarsest tiles are missing; tifffile does not.
            first = first or error
        else:
            if opened is not None:
                return opened
    raise first or SlideError(
        f"{path.name} is no slide or picture that can be read (expected a format of OpenSlide, TIFF, PNG or JPEG), or it is "
        "damaged"
    )


def _open(name: str, path: Path, stated: Mpp | None, series: str | int | None) -> SlideReader | None:
    """The slide, None where the reader does not know its format."""
    if name == "openslide":
        from wsiseg.slides.openslide import OpenSlideReader, detects  # noqa: PLC0415

        if not detects(path):
            return None
        if series is not None:
            raise OptionError(f"{path.name} is read by OpenSlide as one slide; leave out --series")
        return OpenSlideReader(path, stated)
    if name == "tiff":
        return _tiff(str(path), stated, series) if _is_tiff(path) else None
    if name == "image":
        from wsiseg.slides.array import ArrayReader  # noqa: PLC0415

        return ArrayReader.open(path, stated)
    return _tiffslide(str(path), stated)


def _as_asked(reader: str, path: Path, stated: Mpp | None) -> SlideReader | None:
    """A TIFF that is no vendor's through OpenSlide, which is not asked unless the user names it."""
    if reader != "openslide":
        return None
    from wsiseg.slides.agreement import agreed  # noqa: PLC0415
    from wsiseg.slides.openslide import OpenSlideReader, is_generic  # noqa: PLC0415

    return agreed(OpenSlideReader(path, stated)) if is_generic(path) else None


def _is_tiff(path: Path) -> bool:
    from wsiseg.slides.tiff import is_tiff  # noqa: PLC0415

    return is_tiff(path)


def _tiff(path: str, stated: Mpp | None, series: str | int | None, retry_s: float = DEFAULT_RETRY_S) -> SlideReader:
    from wsiseg.slides.tiff import TiffReader  # noqa: PLC0415

    return TiffReader(path, stated, None if series is None else str(series), retry_s)


def _tiffslide(path: str, stated: Mpp | None, retry_s: float = DEFAULT_RETRY_S) -> SlideReader:
    from wsiseg.slides.agreement import agreed  # noqa: PLC0415
    from wsiseg.slides.tiffslide import TiffSlideReader  # noqa: PLC0415

    return agreed(TiffSlideReader(path, stated, retry_s), retry_s)


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
