"""The header of one DICOM instance, and whether it can be part of a slide that is read."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.filereader import read_file_meta_info, read_partial

from wsiseg.errors import SlideError
from wsiseg.geometry import Mpp, Size
from wsiseg.slides.dicom.codecs import CODECS, COLOURS_OF_CODECS
from wsiseg.slides.dicom.places import PER_FRAME, PER_FRAME_START, cells_of, find_places, stated_places
from wsiseg.slides.recorded import number

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""SOP class of whole-slide images."""

_IMPLICIT, _DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_MAX_TEXT = 200

MAX_FRAMES = 2**22
"""Frames of a level: 600,000 at most in real slides."""

_KEY_END, _PIXELS = 0x00400512, 0x7FE00010
_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_MAX_ELEMENT = 2**30
"""Bytes of one element before the pixels; a longer one is a lie or none that is needed."""

_KEY_TAGS = (0x00080008, 0x00080016, 0x00080018, 0x00080019, 0x0008103E, 0x0020000D, 0x0020000E, 0x00200052, _KEY_END)
_TAGS = [
    *(*_KEY_TAGS, 0x00200013, 0x00209161, 0x00209162, 0x00209163, 0x00209228, 0x00209311),
    *range(0x00280002, 0x00280012),
    *(0x00280100, 0x00280101, 0x00280103, 0x00080060, 0x00080070, 0x00081090),
    *(0x00480001, 0x00480002, 0x00480006, 0x00480007, 0x00480105, 0x00480302, 0x00480303),
    *(0x52009229, 0x7FE00001, 0x7FE00002),
]


@dataclass(frozen=True, slots=True)
class Key:
    """The part of an instance's header that tells which slide it belongs to.

    Attributes:
        path: the file.
        sop_class: the kind of object.
        sop_uid: the instance's own UID.
        study: UID.
        series: UID.
        pyramid: UID, empty where a series has one pyramid.
        frame_of_reference: UID.
        flavor: "VOLUME" for levels, else "LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER" or what else is stated.
        resampled: whether it is a level that was made from a finer one.
        container: identifier of the glass slide.
        description: of the series.
    """

    path: Path
    sop_class: str
    sop_uid: str
    study: str
    series: str
    pyramid: str
    frame_of_reference: str
    flavor: str
    resampled: bool
    container: str
    description: str


@dataclass(frozen=True)
class Instance:
    """An instance of a slide.

    Attributes:
        key: which slide and what of it.
        number: the instance's number in its series.
        size: of the whole image that it is, or is part of, in pixels.
        tile: of a frame, in pixels.
        frames: how many it holds.
        syntax: transfer syntax UID.
        photometric: how samples are to be understood.
        planar: whether uncompressed frames hold one colour after the other.
        spacing: microns per pixel, None where it is not recorded.
        volume_mpp: the same as the size of what was imaged tells it.
        objective: magnification, None where it is not recorded.
        concatenation: UID of the image that it is a part of, empty where it is all of it.
        part: number of the part, from 1.
        parts: how many there are, 0 where that is not stated.
        first_frame: of the image's frames, the first that it holds.
        cells: (frames, 2) column and row of each frame, None where they lie row by row.
        place: where the element of the pixels begins in the file.
        implicit: whether that element states no type.
        offsets: (frames, 2) places and lengths of the frames, None where the header has no such table.
        text: what else is shown.
    """

    key: Key
    number: int
    size: Size
    tile: Size
    frames: int
    syntax: str
    photometric: str
    planar: bool
    spacing: Mpp | None
    volume_mpp: Mpp | None
    objective: float | None
    concatenation: str
    part: int
    parts: int
    first_frame: int
    cells: npt.NDArray[np.int64] | None
    place: int
    implicit: bool
    offsets: npt.NDArray[np.int64] | None
    text: dict[str, str]

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.key.path.name


def read_key(path: Path) -> Key:
    """Which slide a DICOM file belongs to.

    Raises:
        SlideError: it is damaged.
    """
    state = path.stat()
    return _read_key(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=16384)
def _read_key(path: Path, size: int, changed: int) -> Key:
    with _reading(path) as file:
        if _syntax(path) == _DEFLATED:
            raise SlideError(f"{path.name} is DICOM that is compressed as a whole; store it in another transfer syntax")
        found = read_partial(file, lambda tag, _vr, length: tag > _KEY_END or _lies(length), specific_tags=[*_KEY_TAGS])
        if not file.read(1):
            raise SlideError(f"{path.name} is cut off: it ends within its header; copy it again")
        kinds = [str(kind).upper() for kind in _many(found.get("ImageType"))]
        return Key(
            path=path,
            sop_class=_text(found, "SOPClassUID"),
            sop_uid=_text(found, "SOPInstanceUID"),
            study=_text(found, "StudyInstanceUID"),
            series=_text(found, "SeriesInstanceUID"),
            pyramid=_text(found, "PyramidUID"),
            frame_of_reference=_text(found, "FrameOfReferenceUID"),
            flavor=kinds[2] if len(kinds) > 2 else "",
            resampled=len(kinds) > 3 and kinds[3] == "RESAMPLED",
            container=_text(found, "ContainerIdentifier"),
            description=_text(found, "SeriesDescription"),
        )


def _lies(length: int) -> bool:
    """Whether an element states more bytes than any that is needed has; undefined lengths are none."""
    return _MAX_ELEMENT < length < 2**32 - 1


def read_instance(path: Path) -> Instance:
    """The header of an instance.

    Raises:
        SlideError: it is damaged, or of a kind that is not read; the message says which.
    """
    key = read_key(path)
    with _reading(path) as file:
        syntax = _syntax(path)
        _require_read(path, syntax)
        found = read_partial(file, _at_frames, specific_tags=[*_TAGS])
        place, corners = file.tell(), None
        if file.read(4) == PER_FRAME_START:
            file.seek(place)
            frames = _whole(path, found, "NumberOfFrames", 1, 1, MAX_FRAMES)
            quick = None if syntax == _IMPLICIT or _shared_spacing(found) is None else find_places(file, frames)
            if quick is not None:
                place, corners = quick.place, quick.corners
                for name, table in zip(_TABLES, quick.tables, strict=True):
                    if table:
                        setattr(found, name, table)
            else:
                file.seek(0)
                found = read_partial(file, _at_pixels, specific_tags=[*_TAGS, PER_FRAME])
                place, corners = file.tell(), stated_places(path.name, found.get("PerFrameFunctionalGroupsSequence"))
        file.seek(place)
        if file.read(4) != struct.pack("<HH", 0x7FE0, 0x0010):
            raise SlideError(f"{path.name} is cut off: its pixels are missing; copy it again")
        if _text(found, "DimensionOrganizationType") == "TILED_FULL":
            corners = None
        return _instance(key, found, syntax, place, corners)


def _at_frames(tag: int, _vr: str | None, length: int) -> bool:
    return tag in (PER_FRAME, _PIXELS) or tag > _PIXELS or _lies(length)


def _at_pixels(tag: int, _vr: str | None, length: int) -> bool:
    return tag >= _PIXELS or _lies(length)


def _instance(key: Key, found: Any, syntax: str, place: int, corners: npt.NDArray[np.int64] | None) -> Instance:
    path = key.path
    _require_colour(path, found, syntax)
    rows, columns = (_whole(path, found, name, 1) for name in ("Rows", "Columns"))
    tile = Size(columns, rows)
    size = Size(
        _whole(path, found, "TotalPixelMatrixColumns", 1, columns), _whole(path, found, "TotalPixelMatrixRows", 1, rows)
    )
    frames = _whole(path, found, "NumberOfFrames", 1, 1, MAX_FRAMES)
    spacing = _shared_spacing(found)
    if spacing is None and (first := _first(found.get("PerFrameFunctionalGroupsSequence"))) is not None:
        spacing = _spacing(_first(first.get("PixelMeasuresSequence")))
    volume = [number(found.get(name)) for name in ("ImagedVolumeWidth", "ImagedVolumeHeight")]
    size = _without_padding(size, tile, volume, spacing)
    optics = _first(found.get("OpticalPathSequence"))
    return Instance(
        key=key, number=_whole(path, found, "InstanceNumber", -(2**31), 0), size=size, tile=tile, frames=frames,
        syntax=syntax, photometric=_text(found, "PhotometricInterpretation"),
        planar=_whole(path, found, "PlanarConfiguration", 0, 0) == 1,
        spacing=spacing, volume_mpp=_volume_mpp(volume, size),
        objective=number(optics.get("ObjectiveLensPower")) if optics else None,
        concatenation=_text(found, "ConcatenationUID"),
        part=_whole(path, found, "InConcatenationNumber", 0, 1),
        parts=_whole(path, found, "InConcatenationTotalNumber", 0, 0),
        first_frame=_whole(path, found, "ConcatenationFrameOffsetNumber", 0, 0, MAX_FRAMES),
        cells=None if corners is None else cells_of(path.name, corners, tile, frames), place=place,
        implicit=syntax == _IMPLICIT, offsets=_extended(found, frames),
        text={name: _text(found, name) for name in ("Manufacturer", "ManufacturerModelName", "SeriesDescription")},
    )  # fmt: skip


def _require_read(path: Path, syntax: str) -> None:
    if syntax == _BIG_ENDIAN or syntax not in CODECS:
        name = pydicom.uid.UID(syntax).name if syntax else "none that is stated"
        raise SlideError(
            f"{path.name} has a transfer syntax that is not read ({name:.{_MAX_TEXT}}); "
            "store it as JPEG, JPEG 2000, JPEG-LS, RLE or uncompressed little endian"
        )


def _require_colour(path: Path, found: Any, syntax: str) -> None:
    """Refuse anything but an 8-bit colour picture of one focal plane and one optical path."""
    samples, bits = _whole(path, found, "SamplesPerPixel", 1), _whole(path, found, "BitsAllocated", 1, 8)
    photometric = _text(found, "PhotometricInterpretation")
    if samples != 3 or photometric not in _COLOURS:
        raise SlideError(
            f"{path.name} holds {samples} channel(s) as {photometric or 'no stated colours'}, expected 8-bit colour "
            "(RGB or YBR); fluorescence and grey slides are not read: give the brightfield series"
        )
    if bits != 8 or _whole(path, found, "BitsStored", 1, 8) != 8:
        raise SlideError(f"{path.name} has {bits} bits a channel, expected 8; convert it to 8 bits first")
    if photometric in COLOURS_OF_CODECS and syntax not in COLOURS_OF_CODECS[photometric]:
        raise SlideError(
            f"{path.name} states colours that its compression does not have ({photometric}, "
            f"{pydicom.uid.UID(syntax).name:.{_MAX_TEXT}}); store it as RGB"
        )
    if _whole(path, found, "PixelRepresentation", 0, 0):
        raise SlideError(f"{path.name} has signed samples, expected 0 to 255; convert it to unsigned ones first")
    paths = max(_whole(path, found, "NumberOfOpticalPaths", 0, 1), len(found.get("OpticalPathSequence") or ()))
    if paths > 1:
        raise SlideError(f"{path.name} holds {paths} optical paths, expected 1; store the brightfield one apart")
    if (planes := _whole(path, found, "TotalPixelMatrixFocalPlanes", 0, 1)) > 1:
        raise SlideError(f"{path.name} holds {planes} focal planes, expected 1; store the plane that is sharp apart")


def _shared_spacing(found: Any) -> Mpp | None:
    shared = _first(found.get("SharedFunctionalGroupsSequence"))
    return None if shared is None else _spacing(_first(shared.get("PixelMeasuresSequence")))


def _extended(found: Any, frames: int) -> npt.NDArray[np.int64] | None:
    """Offsets and lengths of the extended offset table."""
    tables = [found.get(name) for name in _TABLES]
    if not all(isinstance(table, bytes) and len(table) == 8 * frames for table in tables):
        return None
    return np.stack([np.frombuffer(table, "<u8").astype(np.int64) for table in tables], axis=1)


def _spacing(measures: Any) -> Mpp | None:
    """Microns per pixel; DICOM states the distance of rows first, in mm."""
    values = [number(value) for value in _many(measures.get("PixelSpacing"))] if measures else []
    if len(values) != 2 or not all(value and value > 0 for value in values):
        return None
    y, x = (1000 * value for value in values if value)
    return Mpp(x, y)


def _without_padding(size: Size, tile: Size, volume_mm: Sequence[float | None], spacing: Mpp | None) -> Size:
    """The size of what was imaged, where the stated one is that rounded up to whole tiles."""
    width, height = volume_mm
    if spacing is None or not width or not height or size.width % tile.width or size.height % tile.height:
        return size
    imaged = Size(max(1, round(1000 * width / spacing.x)), max(1, round(1000 * height / spacing.y)))
    whole = 0 <= size.width - imaged.width < tile.width and 0 <= size.height - imaged.height < tile.height
    return imaged if whole else size


def _volume_mpp(volume_mm: Sequence[float | None], size: Size) -> Mpp | None:
    width, height = volume_mm
    if not width or not height or min(width, height) <= 0:
        return None
    return Mpp(1000 * width / size.width, 1000 * height / size.height)


def _whole(path: Path, found: Any, name: str, least: int, default: int | None = None, most: int = 2**32) -> int:
    """A whole number; `default` where it is missing or empty."""
    value = found.get(name)
    if value is None or value == "":
        if default is not None:
            return default
        raise SlideError(f"{path.name} states no {name}; it is damaged")
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        whole = least - 1
    if not least <= whole <= most:
        raise SlideError(f"{path.name} states {name} {value!s:.40}, which no slide has; it is damaged")
    return whole


def _text(found: Any, name: str) -> str:
    value = found.get(name)
    return "" if value is None else str(value)[:_MAX_TEXT].strip()


def _many(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str) or not hasattr(value, "__len__") else list(value)


def _first(sequence: Any) -> Any:
    return sequence[0] if isinstance(sequence, pydicom.Sequence) and len(sequence) else None


def _syntax(path: Path) -> str:
    return _text(read_file_meta_info(path), "TransferSyntaxUID")


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """A DICOM file; whatever its parser raises on damaged data becomes `SlideError`."""
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of values that break the standard's rules and do no harm
            yield file
    except SlideError:
        raise
    except Exception as error:  # pydicom raises whatever it likes on damaged data
        reason = " ".join(str(error).split()) if isinstance(error, OSError) else "its elements cannot be read"
        raise SlideError(f"{path.name} cannot be read, it may be cut off or damaged ({reason:.200})") from error
