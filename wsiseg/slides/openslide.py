"""Slides that OpenSlide reads."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import tifffile

from wsiseg.errors import SlideError, WsisegError
from wsiseg.geometry import Box, Level, Mpp, Size, ceil_div
from wsiseg.slides.base import WHITE
from wsiseg.slides.causes import opening_error, plain
from wsiseg.slides.damage import DamageMap, UnreadableError
from wsiseg.slides.file import FileReader
from wsiseg.slides.formats.companions import companion_files
from wsiseg.slides.likeness import shows_other
from wsiseg.slides.limits import (
    MAX_DECODED_PX,
    MAX_TILE_BYTES,
    MIN_TILE,
    check_picture,
    check_sizes,
    check_tiles,
    tile_size,
)
from wsiseg.slides.recorded import associated_rgb, number, tiff_mpp
from wsiseg.slides.sources.source import LocalSource
from wsiseg.slides.tiff.aperio import aperio_names, require_one_plane, resized
from wsiseg.slides.tiff.pages import read_pages
from wsiseg.slides.tiff.pyramid import Candidate, fit_levels
from wsiseg.slides.tiff.reader import has_ome_xml
from wsiseg.slides.tiff.tile_table import TileTable
from wsiseg.slides.tiff.tiles import TileSource
from wsiseg.slides.tiff.truncation import require_whole_tiff

PLAIN_TIFF = {"aperio", "generic-tiff"}
"""Formats whose levels are tiles of a TIFF and nothing else: no overlaps, no offsets, no several areas."""

STITCHED = {"leica", "ventana", "trestle", "argos"}
"""TIFFs whose tiles overlap, or whose pages are several areas or focal planes: no other reader puts them together."""

_BLOCK = 1024

_LOOSE_PX = 2
"""By how many pixels a level may differ where a format computes its sizes from overlapping tiles."""


class OpenSlideReader(FileReader):
    """A slide that OpenSlide reads.

    Args:
        path: the slide.
        stated_mpp: microns per pixel as the user states them.

    Raises:
        SlideError: OpenSlide knows the format but cannot open this file.
    """

    reader = "OpenSlide"

    def __init__(self, path: Path, stated_mpp: Mpp | None = None) -> None:
        self.path = str(path)
        self.stated_mpp = stated_mpp
        self._companions = companion_files(path) if path.is_file() else []
        self._lock = threading.Lock()
        self._slide = _open(path)
        try:
            self._read_head()
        except (openslide.OpenSlideError, WsisegError, LookupError, ValueError, ArithmeticError, MemoryError) as error:
            self._slide.close()
            if isinstance(error, SlideError):
                raise
            raise opening_error(path.name, error) from error

    def _read_head(self) -> None:
        """Read what the file records; raises whatever damaged values lead to."""
        properties: Mapping[str, str] = dict(self._slide.properties)
        self.properties = properties
        self.vendor = properties.get("openslide.vendor", "unknown")
        stored = [Size(*size) for size in self._slide.level_dimensions]
        check_sizes(self.name, stored)
        self.bounds = _bounds(properties, stored[0])
        self._take_levels(stored)
        recorded, source = _recorded_mpp(properties)
        doubt = resized(properties.get("tiff.ImageDescription", ""), stored[0]) if self.vendor == "aperio" else None
        if doubt:
            recorded, source = None, ""
            self._notes = (*self._notes, f"{self.name}: {doubt}")
        self.recorded_mpp = recorded
        self.mpp_source = "stated" if self.stated_mpp else source
        self.objective = number(properties.get("openslide.objective-power"))
        self.associated = {
            name: Size(int(width), int(properties[f"openslide.associated.{name}.height"]))
            for key, width in properties.items()
            if key.startswith("openslide.associated.") and key.endswith(".width")
            for name in [key.removeprefix("openslide.associated.").removesuffix(".width")]
        }
        cells = self._cells()
        check_tiles(self.name, cells, MAX_DECODED_PX)
        self.damage = DamageMap(self.levels, cells, self._origins())
        self._tiles = self._tile_source()
        if self._tiles is None or not all(self._tiles.tables):  # else OpenSlide reads no tile, and damage is left out
            require_whole_tiff(Path(self.path), MAX_TILE_BYTES)

    def _take_levels(self, stored: Sequence[Size]) -> None:
        """Take OpenSlide's levels that are levels of one picture, and leave out the others."""
        pictures = _tiled_pictures(Path(self.path)) if self.vendor == "aperio" else {}
        tiles = [
            Size(int(width), int(height)) if width and height and min(width, height) >= 1 else None
            for width, height in (self._stated_tile(index) for index in range(len(stored)))
        ]
        named = {index: pictures[size] for index, size in enumerate(stored) if index and size in pictures}
        taken = [index for index in range(len(stored)) if index not in named]
        tolerance = 1 if self.vendor in PLAIN_TIFF else _LOOSE_PX
        if self.vendor == "aperio":
            require_one_plane(self.name, [stored[index] for index in taken])
        fitted, out = fit_levels([Candidate(stored[index], tiles[index]) for index in taken], tolerance)
        self._index = tuple(taken[fit.index] for fit in fitted)
        downsamples = [float(self._slide.level_downsamples[index]) for index in self._index]
        # OpenSlide takes the mean of both sides for the downsample; in a padded level that is not the true one.
        self._downsamples = tuple(downsamples)
        padded = [str(place) for place, fit in enumerate(fitted) if fit.padded]
        sizes = [fit.level.size if fit.padded else stored[i] for fit, i in zip(fitted, self._index, strict=True)]
        if self.bounds is not None:
            true = [fit.level.downsample if fit.padded else ds for fit, ds in zip(fitted, downsamples, strict=True)]
            width, height = self.bounds.width, self.bounds.height
            sizes = [Size(max(1, _ceil(width / ds)), max(1, _ceil(height / ds))) for ds in true]
        self.levels = tuple(
            Level(size, fit.level.downsample_x, fit.level.downsample_y)
            if fit.padded
            else Level.from_sizes(size, sizes[0])
            for fit, size in zip(fitted, sizes, strict=True)
        )
        self.left_out = (
            *(f"a picture of {stored[index]} px called {name}, which is not a level" for index, name in named.items()),
            *(f"a picture {why}, which is not a level" for why in out.values()),
        )
        if self.vendor == "aperio":
            self._leave_out_strangers()
        if padded:
            which = ", ".join(padded)
            self.notes = (f"{self.name}: levels filled up to whole tiles ({which}) are read as far as level 0 reaches",)

    def _leave_out_strangers(self) -> None:
        """Take out of the levels what has their shape by chance, such as a tiled picture of another scan."""
        kept = [0]
        for index in range(1, len(self.levels)):
            level, fine = self.levels[index], kept[-1]
            if shows_other(level, self._reading(index), self.levels[fine], self._reading(fine)):
                self.left_out += (f"a picture of {level.size} px, which is not a level: it shows something else",)
            else:
                kept.append(index)
        self.levels = tuple(self.levels[index] for index in kept)
        self._index = tuple(self._index[index] for index in kept)
        self._downsamples = tuple(self._downsamples[index] for index in kept)

    def _reading(self, level: int) -> Callable[[Box], npt.NDArray[np.uint8] | None]:
        """A function that reads boxes of a level, and gives None for one that is damaged."""

        def read(box: Box) -> npt.NDArray[np.uint8] | None:
            try:
                return self._read_box(level, box)
            except UnreadableError:
                return None

        return read

    def _stated_tile(self, index: int) -> tuple[float | None, float | None]:
        """Width and height of a tile of one of OpenSlide's levels, as it states them."""
        get = self.properties.get
        return tuple(number(get(f"openslide.level[{index}].tile-{side}")) for side in ("width", "height"))  # type: ignore[return-value]

    def _cells(self) -> list[Size]:
        """Size of a source tile of each level."""
        sides = [self._stated_tile(index) for index in self._index]
        if self.vendor in PLAIN_TIFF and any(side is not None and side < MIN_TILE for pair in sides for side in pair):
            raise SlideError(f"{self.name} states tiles of a few pixels, which would take for ever; it is damaged")
        return [tile_size(*pair) for pair in sides]

    def _origins(self) -> list[tuple[int, int]]:
        x, y = (self.bounds.x, self.bounds.y) if self.bounds else (0, 0)
        return [(round(x / ds), round(y / ds)) for ds in self._downsamples]

    def _tile_source(self) -> TileSource | None:
        """The tiles of a plain TIFF, where its pages are OpenSlide's levels and decode to the same pixels."""
        if self.vendor not in PLAIN_TIFF or self.bounds is not None:
            return None
        logging.getLogger("tifffile").addHandler(logging.NullHandler())  # OpenSlide judges the file
        try:
            with tifffile.TiffFile(self.path) as tiff:
                tables = [table for page in tiff.pages if (table := TileTable.from_page(page)) is not None]
        except Exception:  # OpenSlide has opened it, and goes on to read it
            return None
        by_size = {table.size: table for table in reversed(tables)}
        levels = [by_size.get(level.size) for level in self.levels]
        if not any(levels):
            return None
        source = TileSource(LocalSource(Path(self.path)), levels, zero_is_damaged=self.vendor == "aperio")
        if not self._same_pixels(source):
            source.close()
            return None
        return source

    def _same_pixels(self, source: TileSource) -> bool:
        """Whether the middle tile of level 0 looks to OpenSlide as it does to us; a damaged one is no evidence."""
        table = source.tables[0]
        if table is None:
            return False
        cell = (table.columns // 2, ceil_div(table.size.height, table.tile.height) // 2)
        box = Box(cell[0] * table.tile.width, cell[1] * table.tile.height, table.tile.width, table.tile.height)
        box = box.intersect(Box.from_size(table.size))
        try:
            ours = source.read(0, cell)
            return bool(np.array_equal(ours, self._read_box(0, box)))
        except UnreadableError:
            return True

    def _read_box(self, level: int, box: Box) -> npt.NDArray[np.uint8]:
        """See `FileReader`; a level whose downsample is no whole number is read in fixed blocks.

        OpenSlide takes a place in whole level-0 pixels, which is between two pixels of such a level; it then mixes
        them. In fixed blocks at least the result does not depend on the box.
        """
        downsample = self._downsamples[level]
        if downsample == round(downsample):
            return self._read_exact(level, box)
        pixels = np.empty((*box.size.shape, 3), np.uint8)
        for y in range(box.y // _BLOCK * _BLOCK, box.bottom, _BLOCK):
            for x in range(box.x // _BLOCK * _BLOCK, box.right, _BLOCK):
                block = Box(x, y, _BLOCK, _BLOCK).intersect(Box.from_size(self.levels[level].size))
                part = block.intersect(box)
                pixels[part.slices(box)] = self._read_exact(level, block)[part.slices(block)]
        return pixels

    def _read_exact(self, level: int, box: Box) -> npt.NDArray[np.uint8]:
        downsample = self._downsamples[level]
        x, y = (self.bounds.x, self.bounds.y) if self.bounds else (0, 0)
        place = (x + round(box.x * downsample), y + round(box.y * downsample))
        level = self._index[level]
        slide = self._slide
        try:
            return _on_white(slide.read_region(place, level, (box.width, box.height)))
        except openslide.OpenSlideError:
            pass
        # A handle is dead once an error occurred in any thread: whether this box is to blame, a new one tells.
        with self._lock:
            self.require_open(self._open)
            if self._slide is slide:
                self._slide = _open(Path(self.path))
            with _open(Path(self.path)) as fresh:
                try:
                    return _on_white(fresh.read_region(place, level, (box.width, box.height)))
                except openslide.OpenSlideError as error:
                    raise UnreadableError(str(error)) from error

    def read_associated(self, name: str) -> npt.NDArray[np.uint8]:
        """See `SlideReader.read_associated`."""
        self.require_open(self._open)
        if name not in self.associated:
            raise KeyError(name)
        try:
            check_picture(self.name, self.associated[name])
            return associated_rgb(self._slide.associated_images[name])
        except (openslide.OpenSlideError, KeyError, ValueError) as error:
            raise SlideError(f"{self.name}: the picture {name} cannot be read ({plain(error)})") from error

    @property
    def files(self) -> tuple[Path, ...]:
        """See `SlideReader.files`."""
        return (Path(self.path), *self._companions)

    def quick_hash(self) -> str:
        """See `SlideReader.quick_hash`."""
        found = []
        for file in self.files:  # a MIRAX slide's own file is its preview alone
            with closing(LocalSource(file)) as source:
                found.append(source.quick_hash())
        return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()

    def close(self) -> None:
        """See `SlideReader.close`."""
        with self._lock:
            self._open = False
            self._slide.close()
            if self._tiles is not None:
                self._tiles.close()


def detects(path: Path) -> bool:
    """Whether OpenSlide reads a file best: its format is a vendor's own, not OME-TIFF or any TIFF."""
    return format_of(path) not in (None, "generic-tiff") and not has_ome_xml(path)


def is_generic(path: Path) -> bool:
    """Whether OpenSlide reads a file as a generic TIFF."""
    return format_of(path) == "generic-tiff"


def format_of(path: Path) -> str | None:
    """OpenSlide's name of a file's format, None where it does not know it."""
    found: str | None = openslide.OpenSlide.detect_format(str(path))
    return found


def _open(path: Path) -> Any:
    try:
        return openslide.OpenSlide(str(path))
    except openslide.OpenSlideError as error:
        raise opening_error(path.name, error) from error


def _on_white(image: Any) -> npt.NDArray[np.uint8]:
    """(h, w, 3) from OpenSlide's RGBA, what is transparent on white."""
    pixels = np.asarray(image)  # (h, w, 4), not premultiplied
    alpha = pixels[..., 3:]
    if (alpha == 255).all():
        return np.ascontiguousarray(pixels[..., :3])
    share = alpha.astype(np.float32) / 255
    mixed = pixels[..., :3] * share + WHITE * (1 - share)
    return np.rint(mixed).astype(np.uint8)


def _tiled_pictures(path: Path) -> dict[Size, str]:
    """Sizes and names of an Aperio slide's label and macro where they are tiled, which OpenSlide takes for levels."""
    try:
        with path.open("rb") as file:
            pages = read_pages(path.name, file).pages
            names = aperio_names([(page.description, bool(page.tiff.is_tiled)) for page in pages])
            return {
                page.size: name.removeprefix("tiled ")
                for page, name in zip(pages, names, strict=True)
                if name.startswith("tiled ")
            }
    except SlideError:  # OpenSlide has opened it, and judges it
        return {}


def _bounds(properties: Mapping[str, str], size: Size) -> Box | None:
    """`openslide.bounds-*`, None where they are missing or all of the slide."""
    values = [number(properties.get(f"openslide.bounds-{key}")) for key in ("x", "y", "width", "height")]
    if any(value is None for value in values):
        return None
    x, y, width, height = (int(value) for value in values if value is not None)
    whole = Box.from_size(size)
    bounds = Box(x, y, max(0, width), max(0, height)).intersect(whole)
    return None if bounds.is_empty or bounds == whole else bounds


def _recorded_mpp(properties: Mapping[str, str]) -> tuple[Mpp | None, str]:
    x, y = number(properties.get("openslide.mpp-x")), number(properties.get("openslide.mpp-y"))
    if x and y and x > 0 and y > 0:
        return Mpp(x, y), "openslide.mpp-x"
    found = tiff_mpp(
        properties.get("tiff.XResolution"), properties.get("tiff.YResolution"), properties.get("tiff.ResolutionUnit")
    )
    return (found, "tiff.XResolution") if found else (None, "")


def _ceil(value: float) -> int:
    return -int(-(value - 1e-6) // 1)
