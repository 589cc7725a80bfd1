"""What an OME-TIFF says of its images in OME-XML: sizes, channels, resolution, and where each plane lies."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from wsiseg.errors import SlideError
from wsiseg.geometry import Mpp, Size
from wsiseg.slides.recorded import number

_MAX_BYTES = 2**26
_MAX_PLANES = 2**20
_LEAST_UM = 1e-9

_UM = {
    **{"m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "fm": 1e-9, "Å": 1e-4},
    **{"in": 25400.0, "inch": 25400.0, "inches": 25400.0, "ft": 304800.0, "thou": 25.4, "li": 25400.0 / 12},
    **{"micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometers": 1.0, "micrometre": 1.0, "micrometres": 1.0},
    **{"millimeter": 1e3, "millimetre": 1e3, "centimeter": 1e4, "centimetre": 1e4, "nanometer": 1e-3},
    **{"nanometre": 1e-3, "meter": 1e6, "metre": 1e6, "angstrom": 1e-4, "A": 1e-4, "pt": 25400.0 / 72},
}
"""Microns in a unit of length of OME's list, and in the words that writers use instead."""

_FLUORESCENT = re.compile(
    r"dapi|hoechst|fitc|tritc|texas|rhodamine|alexa|opal|atto|\bcy-?\d|\baf-?\d{3}|[grycb]fp\b|cherry|tomato|draq5?|"
    r"fluo|autofl|\bpi\b|\bcd\d+|\bsytox|\bpe\b|\bapc\b|spectrum|\bdy-?\d|propidium|\d{3} ?nm\b",
    re.IGNORECASE,
)
_BEGINS = re.compile(
    r"(?:<\?[^>]*>\s*|<!--.*?-->\s*|<!DOCTYPE[^>\[]*(?:\[[^\]]*\]\s*)?>\s*)*+<(?:[\w.-]+:)?OME[\s>]", re.DOTALL
)
"""How OME-XML begins: its root, after instructions, comments and a type."""

_RGB_NAMES = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
_RGB_COLOURS = (0xFF0000, 0x00FF00, 0x0000FF)


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as the XML describes it.

    Attributes:
        name: its name, "" where it has none.
        colour: 0xRRGGBB, None where it is not stated.
        fluorescent: whether it names a fluorophore, wavelengths, or fluorescence as its contrast.
        samples: samples per pixel, None where it is not stated.
    """

    name: str
    colour: int | None
    fluorescent: bool
    samples: int | None


@dataclass(frozen=True)
class OmeImage:
    """An image of an OME-TIFF.

    Attributes:
        name: its name, "" where it has none.
        channels: as they are described; may be fewer than `size_c`.
        size_c: samples of a pixel, over all channels.
        size_z: focal planes.
        size_t: points in time.
        size: its pixels as the XML states them, None where it does not.
        significant_bits: of a sample, None where it is not stated.
        mpp: microns per pixel, None where it is not recorded.
        objective: magnification, None where it is not recorded.
        planes: directory of each channel at the first z and t; None where it lies elsewhere.
        elsewhere: names of the other files that hold planes.
        notes: what is odd about it, one sentence each.
    """

    name: str
    channels: tuple[Channel, ...]
    size_c: int
    size_z: int
    size_t: int
    size: Size | None
    significant_bits: int | None
    mpp: Mpp | None
    objective: float | None
    planes: tuple[int | None, ...]
    elsewhere: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def is_fluorescent(self) -> bool:
        """Whether a channel says that it shows fluorescence."""
        return any(channel.fluorescent for channel in self.channels)

    def rgb_order(self) -> tuple[int, int, int] | None:
        """Which of three channels are red, green and blue, by their names, else in their order; None where none is."""
        if self.size_c != 3 or self.is_fluorescent:
            return None
        found = [_RGB_NAMES.get(_plain(channel.name).lower()) for channel in self.channels]
        if sorted(-1 if place is None else place for place in found) == [0, 1, 2]:
            return found.index(0), found.index(1), found.index(2)
        colours = [channel.colour for channel in self.channels]
        stated = [colour for colour in colours if colour not in (None, 0xFFFFFF, 0)]
        return (0, 1, 2) if not stated or tuple(colours) == _RGB_COLOURS else None


@dataclass(frozen=True, slots=True)
class OmeXml:
    """What OME-XML holds.

    Attributes:
        images: in their order.
        companion: the file that holds the metadata instead of this one, None where none does.
    """

    images: tuple[OmeImage, ...]
    companion: str | None


def ome_text(raw: bytes) -> str | None:
    """OME-XML from the bytes of a TIFF's description, in any encoding; None where it is none."""
    raw = raw[:_MAX_BYTES]
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        if raw.startswith(mark):
            text = raw[len(mark) :].decode(name, "replace")
            break
    else:
        if raw[1:2] == b"\0" and raw[:1] == b"<":
            text = raw.decode("utf-16-le", "replace")
        elif raw[:2] == b"\0<":
            text = raw[: len(raw) // 2 * 2].decode("utf-16-be", "replace")
        else:
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                text = raw.decode("latin-1")
    text = text.split("\0", 1)[0].strip().lstrip("\ufeff")
    return text if _BEGINS.match(text) else None


def read_ome_xml(name: str, text: str) -> OmeXml:
    """Parse OME-XML.

    Args:
        name: of the file, for messages, and to tell its own planes from those in other files.
        text: as `ome_text` gives it.

    Raises:
        SlideError: it is no XML, or states nonsense.
    """
    try:
        root = ElementTree.fromstring(re.sub(r"^<\?xml[^>]*>", "", text))
        companion = next((e.get("MetadataFile", "") for e in root if _tag(e) == "BinaryOnly"), None)
        objectives = {e.get("ID"): number(_magnification(e)) for e in root.iter() if _tag(e) == "Objective"}
        used = 0
        images = []
        for element in (e for e in root if _tag(e) == "Image"):
            for pixels in (e for e in element if _tag(e) == "Pixels"):
                image, planes = _image(name, root.get("UUID"), element, pixels, objectives, used)
                used += planes
                images.append(image)
    except (ElementTree.ParseError, ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise SlideError(
            f"{name} has OME-XML that cannot be read ({reason}); write the file anew, or its description as plain text"
        ) from error
    return OmeXml(tuple(images), companion)


def length_um(value: object, unit: str | None) -> float | None:
    """A length in microns; None where there is none, or its unit is no length (pixel, reference frame)."""
    parsed, um = number(value), _UM.get(_unit(unit))
    length = None if parsed is None or um is None else parsed * um
    return length if length is not None and _LEAST_UM < length < 1 / _LEAST_UM else None


def _unit(unit: str | None) -> str:
    if unit is None:
        return "um"
    plain = _plain(unit).replace("Â", "").replace("\u00b5", "u").replace("\u03bc", "u").replace("\u212b", "Å")
    plain = unicodedata.normalize("NFC", plain)
    return plain if plain in _UM else plain.lower()


def _plain(text: str) -> str:
    """Without white space around it and letters that do not show."""
    return "".join(letter for letter in text if unicodedata.category(letter) not in ("Cf", "Cc")).strip()


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rsplit("}", 1)[-1]


def _magnification(objective: ElementTree.Element) -> str | None:
    return objective.get("NominalMagnification") or objective.get("CalibratedMagnification")


def _image(
    name: str,
    uuid: str | None,
    image: ElementTree.Element,
    pixels: ElementTree.Element,
    objectives: dict[str | None, float | None],
    used: int,
) -> tuple[OmeImage, int]:
    """An image, and how many planes it has in all."""
    sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "CZT"}
    channels = tuple(_channel(e) for e in pixels if _tag(e) == "Channel")
    samples = max((channel.samples or 1 for channel in channels), default=1)
    planes = max(1, sizes["C"] // samples)
    total = planes * sizes["Z"] * sizes["T"]
    if min(sizes.values()) < 1 or used + total > _MAX_PLANES:
        raise ValueError(f"{total} planes")
    shape = {"C": planes, "Z": sizes["Z"], "T": sizes["T"]}
    order = [axis for axis in pixels.get("DimensionOrder", "XYCZT") if axis in "CZT"]
    stride, step = {}, 1
    for axis in order:
        stride[axis], step = step, step * shape[axis]
    data = [e for e in pixels if _tag(e) == "TiffData"]
    places, elsewhere = _places(name, uuid, data, stride, total, used)
    mpp, notes = _mpp(pixels)
    setting = next((e.get("ID") for e in image if _tag(e) == "ObjectiveSettings"), None)
    bits = number(pixels.get("SignificantBits"))
    found = OmeImage(
        _plain(image.get("Name", "")),
        channels,
        sizes["C"],
        sizes["Z"],
        sizes["T"],
        _stated_size(pixels),
        None if bits is None else int(bits),
        mpp,
        objectives.get(setting) if setting else None,
        tuple(places.get(index * stride.get("C", 1)) for index in range(planes)),
        tuple(elsewhere),
        notes,
    )
    return found, total


def _stated_size(pixels: ElementTree.Element) -> Size | None:
    sides = [number(pixels.get(f"Size{axis}")) for axis in "XY"]
    return Size(int(sides[0]), int(sides[1])) if sides[0] and sides[1] and min(sides[0], sides[1]) >= 1 else None


def _channel(element: ElementTree.Element) -> Channel:
    name = _plain(element.get("Name", ""))
    colour = number(element.get("Color"))
    says = " ".join(str(element.get(key, "")) for key in ("Fluor", "ContrastMethod", "IlluminationType"))
    waves = any(number(element.get(key)) for key in ("EmissionWavelength", "ExcitationWavelength"))
    samples = element.get("SamplesPerPixel")
    named = samples != "3" and bool(_FLUORESCENT.search(name))  # a stained slide in colour may be called CD3
    fluorescent = waves or "luorescence" in says or bool(element.get("Fluor")) or named
    return Channel(
        name,
        None if colour is None else (int(colour) & 0xFFFFFFFF) >> 8,
        fluorescent,
        None if samples is None else int(samples),
    )


def _mpp(pixels: ElementTree.Element) -> tuple[Mpp | None, tuple[str, ...]]:
    stated = [pixels.get(f"PhysicalSize{axis}") for axis in "XY"]
    units = [pixels.get(f"PhysicalSize{axis}Unit") for axis in "XY"]
    lengths = [length_um(value, unit) for value, unit in zip(stated, units, strict=True)]
    known = [length for length in lengths if length is not None]
    if not known:
        text = f"{stated[0]} {units[0] or ''}".strip()[:40]
        return None, () if stated[0] is None else (f"its OME-XML states a pixel of {text}, which is not a length",)
    x, y = (known[0] if length is None else length for length in lengths)
    notes = () if len(known) == 2 else ("its OME-XML states the length of one side of a pixel, taken for both",)
    return Mpp(x, y), notes


def _places(
    name: str, uuid: str | None, data: Sequence[ElementTree.Element], stride: dict[str, int], total: int, used: int
) -> tuple[dict[int, int | None], list[str]]:
    """The directory of each plane, by its place in the image's order, and the names of other files."""
    if not data:
        return {index: used + index for index in range(total)}, []
    places: dict[int, int | None] = {}
    elsewhere: list[str] = []
    looked = 0
    files = {e.get("FileName", "") for block in data for e in block if _tag(e) == "UUID"}
    for block in data:
        first = sum(int(block.get(f"First{axis}", "0")) * stride.get(axis, 1) for axis in "CZT")
        stated = block.get("PlaneCount", block.get("NumPlanes"))
        count = int(stated) if stated is not None else (1 if block.get("IFD") is not None else total - first)
        directory = int(block.get("IFD", "0"))
        other = next(_others(name, uuid, block), None) if len(files) > 1 or uuid else None
        if other is not None and other not in elsewhere:
            elsewhere.append(other)
        count = min(count, total - first) if first >= 0 else 0
        looked += max(0, count)
        if looked > 2 * _MAX_PLANES:
            raise ValueError("too many planes")
        for index in range(count):
            places[first + index] = None if other is not None else directory + index
    return places, elsewhere


def _others(name: str, uuid: str | None, block: ElementTree.Element) -> Iterator[str]:
    """The file that a block of planes lies in, where that is another one."""
    for element in block:
        if _tag(element) == "UUID":
            file = element.get("FileName", "")
            mine = (element.text or "").strip() == uuid if uuid else file.lower() == name.lower()
            if not mine and file.lower() != name.lower():
                yield file or "another file"
