"""The images of a TIFF: what each is, which of them is the slide, and what its levels are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wsiseg.errors import OptionError, SlideError
from wsiseg.geometry import Level, Mpp, Size
from wsiseg.slides.base import ImageInFile
from wsiseg.slides.recorded import number, tiff_mpp
from wsiseg.slides.tiff.aperio import aperio_names, aperio_values, require_one_plane, resized, sizes_agree
from wsiseg.slides.tiff.ome_xml import OmeImage, read_ome_xml
from wsiseg.slides.tiff.pages import Page, TiffPages
from wsiseg.slides.tiff.pixel_kind import CONVERT, PixelKind, grey_kind, pixel_kind
from wsiseg.slides.tiff.pyramid import fit_levels

_ROLES = re.compile(
    r"(?<![a-z])(macro|label|thumbnail|thumb|overview|preview|barcode)(?:[ _-]?(?:image|img|picture))?(?![a-z])",
    re.IGNORECASE,
)
_SAME_NAME = {"thumb": "thumbnail", "preview": "overview", "barcode": "label"}
_PAGE_NAME = 285
_IMAGEJ_UM = {
    "micron": 1.0,
    "microns": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "inch": 25400.0,
}
_FINEST, _THUMBNAIL = 1.05, 1 / 16
_LEAST = 1e-6


@dataclass(frozen=True)
class TiffImage:
    """An image of a TIFF.

    Attributes:
        index: its place among the images.
        name: its name, "" where it has none.
        role: "macro", "label", "thumbnail" or "overview" where its name says so, else "image".
        levels: the pyramid, finest first.
        pages: of each level, one or one for each channel.
        kind: how its pixels are read; None where they are not.
        refused: what its pixels are, where they are not read.
        mpp: microns per pixel of level 0, None where it is not recorded.
        mpp_source: what recorded it.
        objective: magnification, None where it is not recorded.
        left_out: pictures that are not levels of it, and why.
        notes: what is odd about it.
        looks_grey: whether nothing in the file says that its three channels are colours.
    """

    index: int
    name: str
    role: str
    levels: tuple[Level, ...]
    pages: tuple[tuple[Page, ...], ...]
    kind: PixelKind | None
    refused: str | None = None
    mpp: Mpp | None = None
    mpp_source: str = ""
    objective: float | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    looks_grey: bool = False

    @property
    def size(self) -> Size:
        """Size of level 0."""
        return self.levels[0].size

    def summary(self, chosen: bool) -> ImageInFile:
        """The image as `wsiseg info` shows it; `chosen` is the one that is read as the slide."""
        return ImageInFile(self.index, self.name, "slide" if chosen else self.role, self.size, self.mpp, self.refused)


@dataclass(frozen=True)
class Catalogue:
    """All images of a TIFF.

    Attributes:
        vendor: the format.
        images: in the order of the file.
        left_out: pictures that belong to none of them, and why.
        properties: everything the file says about itself, as text.
        notes: what is odd about the file.
        is_described: whether the file says what its images are, so that several of one size are no stack.
    """

    vendor: str
    images: tuple[TiffImage, ...]
    left_out: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_described: bool = False

    def choose(self, name: str, series: str | None) -> TiffImage:
        """The slide among the images.

        Args:
            name: of the file, for messages.
            series: number or name of the image that the user wants, None for the largest at the finest resolution.

        Raises:
            OptionError: there is no such image.
            SlideError: it is not clear which image is the slide.
        """
        if series is not None:
            return self._named(name, series)
        images = [image for image in self.images if image.role == "image"] or list(self.images)
        largest = max(image.size.area for image in images)
        images = [image for image in images if image.size.area > largest * _THUMBNAIL]  # its resolution may be nonsense
        known = [image for image in images if image.mpp is not None and image.mpp.is_plausible]
        if known and any(image.size.area == largest for image in known):
            finest = min(image.mpp.mean for image in known if image.mpp is not None)
            images = [image for image in known if image.mpp is not None and image.mpp.mean <= finest * _FINEST]
        best = max(images, key=lambda image: (image.size.area, -image.index))
        twins = [image for image in images if image.size == best.size]
        if len(twins) > 1 and not self.is_described:
            raise SlideError(
                f"{name} holds {len(twins)} pictures of {best.size} px (a z-stack, a time series, or channels?); "
                f"name the one to read with --series ({', '.join(str(image.index) for image in twins[:5])}"
                f"{', …' if len(twins) > 5 else ''})"
            )
        return best

    def _named(self, name: str, series: str) -> TiffImage:
        wanted = series.strip()
        for image in self.images:
            if wanted == str(image.index):
                return image
        same = [image for image in self.images if image.name.lower() == wanted.lower()]
        if len(same) == 1:
            return same[0]
        known = ", ".join(f"{image.index}{f' ({image.name})' if image.name else ''}" for image in self.images[:20])
        many = "several images of that name; give its number" if same else f"no image {series!r:.60}"
        raise OptionError(f"{name} has {many}; it has {known}")


def read_catalogue(name: str, file: TiffPages) -> Catalogue:
    """Find the images that a TIFF holds.

    Raises:
        SlideError: OME-XML is damaged, or the image's planes lie in other files.
    """
    first = file.pages[0]
    if file.ome is not None:
        xml = read_ome_xml(name, file.ome)
        if xml.images:
            images, used = _ome_images(name, file, xml.images)
            rest = [page for page in file.pages if page.index not in used]
            return _with_unnamed(Catalogue("ome", images, is_described=True), rest)
        note = (
            "its OME-XML describes no image"
            if xml.companion is None
            else (
                f"its OME-XML lies in {xml.companion or 'another file':.80}, which is not read: names, focal planes "
                "and the resolution that it states are unknown"
            )
        )
        found = _plain_catalogue(file.pages, "ome")
        return replace(found, notes=(*found.notes, note))
    if first.description.startswith("Aperio"):
        return _aperio_catalogue(name, file.pages)
    if file.tiff.is_imagej:
        return _imagej_catalogue(file)
    return _plain_catalogue(file.pages, "generic-tiff")


def _image(
    index: int, name: str, pages: Sequence[tuple[Page, ...]], kinds: Sequence[PixelKind | str], *, order: str = ""
) -> TiffImage:
    """An image whose first pages are level 0 and whose others may be levels."""
    first = kinds[0]
    same: list[tuple[Page, ...]] = [pages[0]]
    left_out = []
    for page, kind in zip(pages[1:], kinds[1:], strict=True):
        if isinstance(first, PixelKind) and (isinstance(kind, str) or not kind.matches(first)):
            what = (
                kind
                if isinstance(kind, str)
                else f"{kind.bits} bits{', a palette' if kind.palette is not None else ''}"
            )
            left_out.append(f"a picture of {page[0].size} px, which is not a level: {what}, other than level 0")
        else:
            same.append(page)
    fitted, out = fit_levels([page[0].candidate for page in same])
    left_out += [f"a picture {why}, which is not a level" for why in out.values()]
    padded = [str(place) for place, fit in enumerate(fitted) if fit.padded]
    many = len(padded) > 1
    notes = [
        f"level{'s' * many} {', '.join(padded)} {'are' if many else 'is'} filled up to whole tiles; what is read of "
        f"{'them' if many else 'it'} ends where level 0 does"
    ]
    return TiffImage(
        index,
        name,
        _role(order or name),
        tuple(fit.level for fit in fitted),
        tuple(same[fit.index] for fit in fitted),
        first if isinstance(first, PixelKind) else None,
        first if isinstance(first, str) else None,
        left_out=tuple(left_out),
        notes=tuple(notes) if padded else (),
        looks_grey=isinstance(first, PixelKind) and not first.declared,
    )


def _role(name: str) -> str:
    found = _ROLES.search(name)
    role = found.group(1).lower() if found else "image"
    return _SAME_NAME.get(role, role)


def _tag_mpp(page: Page) -> Mpp | None:
    """The resolution that a page's tags state."""
    tags = page.tiff.tags
    unit = tags.get(296)
    values = [tags.get(code) for code in (282, 283)]
    if unit is None or any(tag is None for tag in values):
        return None
    name = {2: "inch", 3: "centimeter"}.get(int(unit.value) if isinstance(unit.value, int) else 0)
    per = [_ratio(tag.value) for tag in values if tag is not None]
    return tiff_mpp(per[0], per[1], name)


def _ratio(value: object) -> float | None:
    if isinstance(value, tuple) and len(value) == 2 and value[1]:
        return number(value[0] / value[1])
    return number(value)


# --- OME -------------------------------------------------------------------------------------------------------------


def _ome_images(name: str, file: TiffPages, images: Sequence[OmeImage]) -> tuple[tuple[TiffImage, ...], set[int]]:
    found, used = [], set()
    for index, image in enumerate(images):
        held = [p for p in image.planes if p is not None and 0 <= p < len(file.pages)]
        used |= _all_planes(image, held)
        if not held:
            where = ", ".join(image.elsewhere[:3])
            if len(images) == 1 and not where:
                raise SlideError(
                    f"{name}: its OME-XML names pictures that are not in the file ({len(file.pages)} are); it is cut "
                    "off, or has the description of another file: write it anew"
                )
            if len(images) == 1:
                raise SlideError(f"{name}: its image lies in {where:.100}, not in this file; give that one")
            continue
        found.append(_ome_image(index, image, [file.pages[place] for place in held]))
    if not found:
        raise SlideError(f"{name}: its images lie in other files, not in this one; give those")
    return tuple(found), used


def _all_planes(image: OmeImage, held: Sequence[int]) -> set[int]:
    """The pages of all planes of an image, so far as they follow the first."""
    first = min(held, default=0)
    return set(range(first, first + len(image.planes) * image.size_z * image.size_t)) | set(held)


def _ome_image(index: int, image: OmeImage, planes: list[Page]) -> TiffImage:
    first = planes[0]
    samples = int(first.tiff.samplesperpixel)
    channels = len(image.planes) if samples == 1 else max(1, image.size_c // samples)
    if samples == 1 and channels == 3 and len(planes) == 3:
        pages, kinds = _composed(image, planes)
    else:
        pages = [(first,), *((sub,) for sub in first.subs)]
        kinds = [pixel_kind(page[0].tiff) for page in pages]
    fault = _ome_fault(image, samples, channels, len(planes))
    # Writers of three samples a pixel often call them grey; OME has no other word for colour than three samples.
    made = _image(index, image.name, pages, [fault, *kinds[1:]] if fault else kinds)
    tags = _tag_mpp(first)
    notes = [*image.notes, *made.notes]
    mpp, source = (image.mpp, "OME-XML") if image.mpp else (tags, "tiff.XResolution" if tags else "")
    if image.size is not None and not sizes_agree(image.size, first.size):
        mpp, source = None, ""
        notes.append(
            f"its OME-XML describes {image.size} px, but the picture has {first.size}: it was resized or cut by a "
            "program that left the description, so that its resolution is unknown"
        )
    if mpp and image.mpp and tags and not 0.98 < image.mpp.mean / tags.mean < 1.02:
        notes.append(f"its OME-XML states {image.mpp} um per pixel, its resolution tags {tags}; the OME-XML counts")
    return replace(made, mpp=mpp, mpp_source=source, objective=image.objective, notes=tuple(notes))


def _composed(image: OmeImage, planes: Sequence[Page]) -> tuple[list[tuple[Page, ...]], list[PixelKind | str]]:
    """Three pages, each with its levels, as the red, green and blue of one image."""
    order = image.rgb_order()
    subs = min(len(page.subs) for page in planes)
    pages: list[tuple[Page, ...]] = [tuple(planes), *(tuple(page.subs[i] for page in planes) for i in range(subs))]
    kinds: list[PixelKind | str] = []
    for level in pages:
        each = [grey_kind(page.tiff) for page in level]
        wrong = next((kind for kind in each if isinstance(kind, str)), None)
        layouts = {(page.size, page.candidate, int(page.tiff.compression), str(page.tiff.dtype)) for page in level}
        if wrong is None and (len(layouts) != 1 or order is None):
            wrong = "channels of different sizes or layouts" if order else "3 channels that are not red, green and blue"
        kinds.append(wrong or PixelKind(each[0].bits, 3, order=order or (0, 1, 2), declared=False))  # type: ignore[union-attr]
    return pages, kinds


def _ome_fault(  # noqa: PLR0911
    image: OmeImage, samples: int, channels: int, held: int
) -> str | None:
    """Why an image of OME-XML is not a brightfield picture, None if it may be one."""
    if image.size_z > 1:
        return f"a z-stack of {image.size_z} planes"
    if image.size_t > 1:
        return f"a time series of {image.size_t} points"
    if image.is_fluorescent:
        names = ", ".join(channel.name for channel in image.channels if channel.name)[:80]
        return f"fluorescence ({names})" if names else "fluorescence"
    if samples == 1 and channels == 3 and held < 3:
        return f"{channels} channels, of which {3 - held} lie in other files"
    if samples == 1 and channels not in (1, 3):
        return f"{channels} channels"
    if samples > 1 and channels > 1:
        return f"{channels} channels of {samples} samples each"
    if image.significant_bits is not None and image.significant_bits not in (8, 16):
        return f"{image.significant_bits} significant bits a sample"
    return None


def _with_unnamed(catalogue: Catalogue, rest: Sequence[Page]) -> Catalogue:
    """Pages that OME-XML does not name: levels of the largest image where they fit, else left out."""
    rest = [page for page in rest if not page.is_mask]
    if not rest:
        return catalogue
    largest = max(catalogue.images, key=lambda image: image.size.area)
    if largest.kind is None or any(len(page) > 1 for page in largest.pages):
        out = tuple(f"a picture of {page.size} px that the OME-XML does not name" for page in rest)
        return replace(catalogue, left_out=out[:8])
    pages = [*largest.pages, *((page,) for page in rest)]
    kinds: list[PixelKind | str] = [largest.kind, *(pixel_kind(page[0].tiff) for page in pages[1:])]
    made = _image(largest.index, largest.name, pages, kinds)
    better = replace(
        largest,
        levels=made.levels,
        pages=made.pages,
        left_out=tuple(dict.fromkeys((*largest.left_out, *made.left_out))),
        notes=tuple(dict.fromkeys((*largest.notes, *made.notes))),
    )
    return replace(catalogue, images=tuple(better if image is largest else image for image in catalogue.images))


# --- other TIFFs -----------------------------------------------------------------------------------------------------


def _aperio_catalogue(name: str, pages: Sequence[Page]) -> Catalogue:
    names = aperio_names([(page.description, bool(page.tiff.is_tiled)) for page in pages])
    values = aperio_values(pages[0].description)
    levels = [page for page, called in zip(pages, names, strict=True) if called == "level"]
    require_one_plane(name, [page.size for page in levels])
    base = _image(0, "", [(page,) for page in levels], [pixel_kind(page.tiff) for page in levels])
    stated = number(values.get("MPP", "").replace(",", "."))  # written where commas are
    doubt = resized(pages[0].description, pages[0].size)
    mpp, source = (
        (Mpp(stated, stated), "aperio.MPP") if stated and stated > 0 else (_tag_mpp(pages[0]), "tiff.XResolution")
    )
    if doubt or mpp is None:
        mpp, source = None, ""
    tiled = [
        f"a picture of {page.size} px called {called.removeprefix('tiled ')}, which is not a level"
        for page, called in zip(pages, names, strict=True)
        if called.startswith("tiled ")
    ]
    images = [
        replace(
            base,
            mpp=mpp,
            mpp_source=source,
            objective=number(values.get("AppMag")),
            left_out=(*tiled, *base.left_out),
            notes=(*base.notes, *([doubt] if doubt else [])),
        )
    ]
    taken: set[str] = set()
    for page, called in zip(pages, names, strict=True):
        if called == "level" or called.startswith("tiled ") or not called or called in taken:
            continue
        taken.add(called)
        made = _image(len(images), called, [(page,)], [pixel_kind(page.tiff)])
        images.append(replace(made, role=called))
    properties = {f"aperio.{key}": value for key, value in values.items()}
    return Catalogue("aperio", tuple(images), properties=properties)


def _imagej_catalogue(file: TiffPages) -> Catalogue:
    facts = file.tiff.imagej_metadata or {}
    found = _plain_catalogue(file.pages, "imagej")
    um = _IMAGEJ_UM.get(str(facts.get("unit", "")).strip().lower())
    stacks = {key: facts[key] for key in ("slices", "frames", "channels") if isinstance(facts.get(key), int)}
    images = []
    for image in found.images:
        mpp = _imagej_mpp(image.pages[0][0].tiff.tags, um)
        if mpp is not None:  # tags have no word for microns; writers leave in them what they find
            image = replace(image, mpp=mpp, mpp_source="ImageJ")  # noqa: PLW2901
        for key, word in (("slices", "a z-stack of {} planes"), ("frames", "a time series of {} points")):
            if stacks.get(key, 1) > 1:
                image = replace(image, kind=None, refused=word.format(stacks[key]))  # noqa: PLW2901
        images.append(image)
    if stacks.get("slices", 1) > 1 or stacks.get("frames", 1) > 1:
        images = images[:1]
    return replace(found, images=tuple(images))


def _imagej_mpp(tags: Any, um: float | None) -> Mpp | None:
    """ImageJ states pixels per unit of its own, without a unit in the tags."""
    x, y = (_ratio(tags[code].value) if code in tags else None for code in (282, 283))
    if um is None or not x or not y or not (_LEAST < x < 1 / _LEAST and _LEAST < y < 1 / _LEAST):
        return None
    mpp = Mpp(um / x, um / y)
    return mpp if mpp.is_plausible else None


def _plain_catalogue(pages: Sequence[Page], vendor: str) -> Catalogue:
    """Images of a TIFF that says nothing of them: the largest with all that are smaller versions of it, and so on."""
    masks = [page for page in pages if page.is_mask]
    left = [page for page in pages if not page.is_mask]
    roles = {page.index: _role(_page_name(page)) for page in left}
    images: list[TiffImage] = []
    while left:
        base = max(left, key=lambda page: (roles[page.index] == "image", page.size.area, -page.index))
        twins = [page.index for page in left if page.size == base.size and page is not base]
        members = [page for page in left if page is not base and _may_belong(page, base, twins, roles)]
        levels: list[tuple[Page, ...]] = [(base,), *((sub,) for sub in base.subs if not sub.is_mask)]
        levels += [(page,) for page in members]
        made = _image(base.index, _page_name(base), levels, [pixel_kind(level[0].tiff) for level in levels])
        inside = {id(page) for level in made.pages for page in level}
        taken = [page for page in members if id(page) in inside]
        tags = _tag_mpp(base)
        images.append(replace(made, mpp=tags, mpp_source="tiff.XResolution" if tags else ""))
        left = [page for page in left if page is not base and page not in taken]
    images.sort(key=lambda image: image.index)
    notes = ("it has a mask for transparent pixels, which is not applied: what lies under it is read as it is",)
    indexed = tuple(replace(image, index=i) for i, image in enumerate(images))
    return Catalogue(vendor, indexed, notes=notes if masks else ())


def _may_belong(page: Page, base: Page, twins: Iterable[int], roles: dict[int, str]) -> bool:
    """Whether a page of the chain can be a level of another."""
    if roles[page.index] != "image":
        return False
    twins = list(twins)
    after = [twin for twin in twins if twin > base.index]
    if twins and not base.index < page.index < min(after, default=page.index + 1):
        return False
    # A picture in strips beside a tiled one is a thumbnail, unless it is called a smaller version.
    return bool(page.tiff.is_tiled) or not base.tiff.is_tiled or page.is_reduced


def _page_name(page: Page) -> str:
    name = page.text(_PAGE_NAME)
    kind = re.search(r"<ImageType>\s*(\w+)\s*</ImageType>", page.description)  # PerkinElmer's QPTIFF
    return name or (kind.group(1) if kind and kind.group(1) in ("Thumbnail", "Overview", "Label") else "")


def refusal(name: str, image: TiffImage, others: Sequence[TiffImage] = ()) -> SlideError:
    """Why an image is not read, and what to do."""
    way = CONVERT
    refused = image.refused or ""
    if "z-stack" in refused or "time series" in refused:
        way = "export one plane as 8-bit RGB (Bio-Formats: bfconvert -z 0 -timepoint 0)"
    elif "fluorescence" in refused or "channels" in refused:
        way = "this program reads brightfield slides; convert it to RGB if it is one"
    elif "floating" in refused or "16-bit" in refused or "bits" in refused or "grey" in refused:
        way = "convert it to 8-bit RGB, scaled to 0 to 255"
    which = f" (image {image.index}{f', {image.name}' if image.name else ''})" if image.index or image.name else ""
    readable = [other for other in others if other.kind is not None and other.role == "image" and other is not image]
    if readable:
        names = ", ".join(f"{other.index}{f' {other.name}' if other.name else ''}" for other in readable[:4])
        way += f", or read another image with --series ({names:.120})"
    return SlideError(f"{name}{which:.80}: expected 8-bit red, green and blue, got {refused:.160}; {way}")
