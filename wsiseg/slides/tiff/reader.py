"""TIFFs of any layout that tifffile decodes: OME-TIFF, plain ones, and SVS where OpenSlide cannot be asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.choices import DEFAULT_RETRY_S
from wsiseg.errors import SlideError, WsisegError
from wsiseg.geometry import Box, Level, Mpp, Size
from wsiseg.slides.causes import plain
from wsiseg.slides.damage import Cell, DamageMap, UnreadableError
from wsiseg.slides.file import FileReader
from wsiseg.slides.formats.foreign import foreign_by_content
from wsiseg.slides.formats.vendors import vendor_by_content, vendor_by_name
from wsiseg.slides.likeness import shows_other
from wsiseg.slides.limits import MAX_DECODED_PX, MIN_TILE, check_picture, check_sizes, check_tiles
from wsiseg.slides.sources.remote import open_source
from wsiseg.slides.sources.source import ByteSource
from wsiseg.slides.tiff.images import Catalogue, TiffImage, read_catalogue, refusal
from wsiseg.slides.tiff.pages import Page, TiffPages, read_pages
from wsiseg.slides.tiff.pixel_kind import PixelKind, pixel_kind
from wsiseg.slides.tiff.tile_table import TileTable
from wsiseg.slides.tiff.tiles import TileSource
from wsiseg.system.addresses import is_address

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SAMPLED = 16
"""Tiles that are looked at where only pixels tell whether a picture is what it seems."""

_DARK, _HALF = 50, 128
_HEAD_BYTES, _SOFTWARE, _XMP = 4096, 305, 700

_BY_OPENSLIDE = {
    "is_ndpi": "Hamamatsu NDPI",
    "is_scn": "Leica SCN",
    "is_bif": "Ventana BIF",
    "is_philips": "Philips TIFF",
}
_OTHERS = {
    "is_lsm": "Zeiss LSM",
    "is_stk": "MetaMorph STK",
    "is_eer": "EER",
    "is_indica": "Indica Labs TIFF",
    "is_fluoview": "FluoView",
    "is_mmstack": "Micro-Manager stack",
}


class TiffReader(FileReader):
    """A TIFF in 8-bit colour, or in 16 bits that are made use of, here or behind an address.

    Args:
        path: a path, or an address that fsspec knows.
        stated_mpp: microns per pixel as the user states them.
        series: number or name of the image to read; None takes the largest at the finest resolution.
        retry_s: seconds for which a server that fails is asked again.

    Raises:
        SlideError: it cannot be read, or its pixels are none that this program reads.
        OptionError: there is no such image in it.
    """

    reader = "tifffile"
    _source: ByteSource

    def __init__(
        self,
        path: str | Path,
        stated_mpp: Mpp | None = None,
        series: str | None = None,
        retry_s: float = DEFAULT_RETRY_S,
    ) -> None:
        self.path = str(path)
        self.stated_mpp = stated_mpp
        self._lock = threading.Lock()
        self._source = open_source(self.path, retry_s)
        self.version = self._source.version
        try:
            self._read_head(series)
            self._source.check()
        # tifffile looks at many values only when they are asked for, and raises what it likes
        except Exception as error:
            self._give_up()
            if isinstance(error, WsisegError):
                raise
            raise SlideError(f"{self.name} cannot be read, it may be cut off or damaged ({plain(error)})") from error

    def _give_up(self) -> None:
        """Close the file; raises what its server failed with, where that is the cause of what is wrong with it."""
        try:
            self._source.check()
        finally:
            self._source.close()

    def _read_head(self, series: str | None) -> None:
        if is_address(self.path):
            self._require_read_by_address()
        if self._source.read_at(0, 4) not in _MAGIC:
            raise SlideError(
                f"{self.name} is not a TIFF; by address only TIFFs are read (SVS, OME-TIFF and plain ones), "
                "copy it to this machine"
            )
        file = self._source.file()
        with file:
            pages = read_pages(self.name, file)
            _require_own_kind(self.name, pages)
            if is_address(self.path):  # by path OpenSlide has told them
                _require_unstitched(self.name, pages)
            catalogue = read_catalogue(self.name, pages)
            self._describe(catalogue, catalogue.choose(self.name, series), pages.pages[0])
        self._check_pixels()
        self._leave_out_strangers()

    def _require_read_by_address(self) -> None:
        """Refuse files with a vendor's name or signature, as by path, and files that are not slides."""
        head = self._source.read_at(0, _HEAD_BYTES)
        vendor = vendor_by_content(head) or vendor_by_name(Path(self.name))
        if vendor is not None and "tiff" not in vendor.readers:
            what = (
                "read only from this machine's disks; copy it to this machine"
                if vendor.readers
                else f"not read: {vendor.way_out}"
            )
            raise SlideError(f"{self.name} is {vendor.name}, which is {what}")
        foreign = None if head[:4] in _MAGIC else foreign_by_content(head)
        if foreign is not None:
            raise SlideError(f"{self.name} is {foreign}")

    def _describe(self, catalogue: Catalogue, image: TiffImage, first: Page) -> None:
        self._image = image
        check_sizes(self.name, [level.size for level in image.levels])
        if image.kind is None:
            raise refusal(self.name, image, catalogue.images)
        levels, tables, out = self._tables(image)
        self.levels, self.vendor = levels, catalogue.vendor
        self.recorded_mpp, self.objective, self.bounds = image.mpp, image.objective, None
        self.mpp_source = "stated" if self.stated_mpp else image.mpp_source
        self.properties = {**_properties(first), **catalogue.properties}
        self.images = tuple(one.summary(one is image) for one in catalogue.images)
        self.left_out = (*image.left_out, *out, *catalogue.left_out)
        self.notes = tuple(
            f"{self.name}: {note}" for note in (*catalogue.notes, *image.notes, *_further(catalogue, image))
        )
        self._pictures = dict(_pictures(catalogue, image))
        self.associated = {name: table.size for name, table in self._pictures.items()}
        cells = [table.tile for table in tables]
        check_tiles(self.name, cells, MAX_DECODED_PX)
        self.damage = DamageMap(levels, cells)
        self._tiles = TileSource(self._source, list(tables), zero_is_damaged=self.vendor == "aperio")

    def _tables(self, image: TiffImage) -> tuple[tuple[Level, ...], list[TileTable], list[str]]:
        """The levels that have tables, these, and why others have none."""
        assert image.kind is not None
        levels, tables, out = [], [], []
        for level, pages in zip(image.levels, image.pages, strict=True):
            table = _table(pages, image, level.size)
            if isinstance(table, TileTable):
                levels.append(level)
                tables.append(table)
            elif not levels:
                raise SlideError(f"{self.name} {table}; it is damaged, copy it again or convert it to a tiled TIFF")
            else:
                out.append(f"a level of {level.size} px, which {table}")
        return tuple(levels), tables, out

    @property
    def is_plain(self) -> bool:
        """Whether pixels are stored as 8-bit red, green and blue, declared to be that."""
        return self._image.kind == PixelKind(8, 3)

    def _check_pixels(self) -> None:
        """Raise `SlideError` where pixels tell that a picture is not what its kind says that it may be."""
        kind = self._image.kind
        assert kind is not None
        if kind.bits == 8 and not self._image.looks_grey:
            return
        seen = [tile for tile in self._sampled() if tile.size]
        if not seen:
            return
        if kind.bits == 16 and max(int(tile.max()) for tile in seen) < _HALF:
            most = max(int(tile.max()) for tile in seen) * 256 + 255
            raise SlideError(
                f"{self.name}: expected 8-bit red, green and blue, or 16 bits that are made use of, got 16-bit pixels "
                f"none of which is above {most}; convert it to 8-bit RGB, scaled to 0 to 255"
            )
        if self._image.looks_grey and float(np.mean([tile.mean() for tile in seen])) < _DARK:
            raise SlideError(
                f"{self.name}: expected red, green and blue of a brightfield slide, got three channels that are mostly "
                "dark, as fluorescence is; convert it to 8-bit RGB if it is brightfield"
            )

    def _leave_out_strangers(self) -> None:
        """Take out of the levels what has their shape by chance: a thumbnail, or another scan."""
        assert self._tiles is not None
        marked = [pages[0].is_level_by_name for pages in self._image.pages]
        by_size = dict(zip([level.size for level in self._image.levels], marked, strict=True))
        kept = [0]
        for index in range(1, len(self.levels)):
            level, fine = self.levels[index], kept[-1]
            if not by_size[level.size] and shows_other(
                level, self._tiles.reading(index), self.levels[fine], self._tiles.reading(fine)
            ):
                self.left_out += (f"a picture of {level.size} px, which is not a level: it shows something else",)
            else:
                kept.append(index)
        if len(kept) < len(self.levels):
            tables = [self._tiles.tables[index] for index in kept]
            self.levels = tuple(self.levels[index] for index in kept)
            self.damage = DamageMap(self.levels, [table.tile for table in tables if table is not None])
            self._tiles = TileSource(self._source, tables, zero_is_damaged=self.vendor == "aperio")

    def _sampled(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Some tiles of the coarsest level that are there and decodable."""
        assert self._tiles is not None
        level = len(self.levels) - 1
        table = self._tiles.tables[level]
        assert table is not None
        for index in range(0, table.count, max(1, table.count // _SAMPLED)):
            cell: Cell = (index % table.columns, index // table.columns)
            try:
                if table.ranges(cell, self._source.length) is not None:
                    yield self._tiles.read(level, cell)
            except UnreadableError:
                continue

    def _read_box(self, level: int, box: Box) -> npt.NDArray[np.uint8]:
        """See `FileReader`; every level is read by its tiles."""
        raise UnreadableError(f"level {level} has no tiles")

    def read_associated(self, name: str) -> npt.NDArray[np.uint8]:
        """See `SlideReader.read_associated`."""
        self.require_open(self._open)
        table = self._pictures[name]
        check_picture(self.name, table.size)
        tiles = TileSource(self._source, [table])
        pixels = np.full((*table.size.shape, 3), 255, np.uint8)
        try:
            for index in range(table.count):
                cell = (index % table.columns, index // table.columns)
                pixels[table.box(cell).slices()] = tiles.read(0, cell)
        except UnreadableError as error:
            reason = " ".join(str(error).split())
            raise SlideError(f"{self.name}: the picture {name!r:.60} cannot be read ({reason:.100})") from error
        return pixels

    def quick_hash(self) -> str:
        """See `SlideReader.quick_hash`."""
        return self._source.quick_hash()

    def close(self) -> None:
        """See `SlideReader.close`."""
        with self._lock:
            if self._open:
                self._open = False
                if self._tiles is not None:
                    self._tiles.close()


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFFs do."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def has_ome_xml(path: Path) -> bool:
    """Whether the first page of a file is described by OME-XML."""
    if not is_tiff(path):
        return False
    try:
        with path.open("rb") as file:
            return read_pages(path.name, file, first_only=True).ome is not None
    except SlideError:
        return False


def _require_own_kind(name: str, pages: TiffPages) -> None:
    """Raise `SlideError` on formats whose tiles do not lie as they do in a plain TIFF."""
    if pages.ome is not None:
        return
    for flag, kind in _BY_OPENSLIDE.items():
        if getattr(pages.tiff, flag) or getattr(pages.pages[0].tiff, flag):
            raise SlideError(f"{name} is {kind}, which is read only from this machine's disks; copy it to this machine")
    for flag, kind in _OTHERS.items():
        if getattr(pages.tiff, flag, False) or getattr(pages.pages[0].tiff, flag, False):
            raise SlideError(f"{name} is {kind}, which is not read; export it as OME-TIFF in 8-bit RGB")


def _require_unstitched(name: str, pages: TiffPages) -> None:
    """Raise `SlideError` on TIFFs whose tiles overlap, or belong to several areas."""
    first = pages.pages[0]
    xmp = first.tiff.tags.get(_XMP)
    kind = None
    if first.text(_SOFTWARE).startswith("MedScan"):
        kind = "a Trestle slide"
    elif first.description.lstrip().startswith("<Argos.Scan"):
        kind = "an Argos slide"
    elif xmp is not None and isinstance(xmp.value, bytes) and b"iScan" in xmp.value:
        kind = "a Ventana BIF slide"
    if kind is not None:
        raise SlideError(f"{name} is {kind}, which is read only from this machine's disks; copy it to this machine")


def _table(pages: tuple[Page, ...], image: TiffImage, size: Size) -> TileTable | str:
    """Where the tiles of a level lie, or why that is not known."""
    first = pages[0].tiff
    if first.is_tiled and min(first.tilewidth, first.tilelength) < MIN_TILE:
        return "states tiles of a few pixels, which would take for ever"
    kind = image.kind
    assert kind is not None
    own = kind if len(pages) > 1 else pixel_kind(first)
    if isinstance(own, str):
        return f"has {own}"
    table = TileTable.of_pages([page.tiff for page in pages], own, size)
    return table if table is not None else "does not say where all of its tiles lie"


def _pictures(catalogue: Catalogue, slide: TiffImage) -> Iterator[tuple[str, TileTable]]:
    """The label, macro, thumbnail and overview among the images, by name."""
    seen = set()
    for image in catalogue.images:
        if image is slide or image.role == "image" or image.kind is None or image.role in seen:
            continue
        table = _table(image.pages[0], image, image.size)
        if isinstance(table, TileTable) and table.tile.area <= MAX_DECODED_PX:
            seen.add(image.role)
            yield image.role, table


def _further(catalogue: Catalogue, slide: TiffImage) -> Iterator[str]:
    """What to know where a file holds more than one scan."""
    others = [image for image in catalogue.images if image is not slide and image.role == "image"]
    if others:
        which = f"image {slide.index}{f' ({slide.name})' if slide.name else ''}"
        yield f"it holds {len(others) + 1} images, of which {which} is read; wsiseg info lists them, --series chooses"


def _properties(page: Page) -> dict[str, str]:
    tags = {"Make": 271, "Model": 272, "Software": 305, "DateTime": 306}
    found = {f"tiff.{name}": page.text(tag) for name, tag in tags.items()}
    found["tiff.ImageDescription"] = page.description[:10_000]
    return {key: value for key, value in found.items() if value}
