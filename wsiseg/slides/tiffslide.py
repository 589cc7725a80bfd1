"""Slides that tifffile reads through TiffSlide: OME-TIFF, and whatever lies where fsspec reaches."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tiffslide

from wsiseg.choices import DEFAULT_RETRY_S
from wsiseg.errors import SlideError
from wsiseg.geometry import Box, Level, Mpp, Size
from wsiseg.slides.causes import plain
from wsiseg.slides.claims import require_claim
from wsiseg.slides.damage import DamageMap, UnreadableError
from wsiseg.slides.file import FileReader
from wsiseg.slides.limits import check_picture, check_sizes, check_tiles, tile_size
from wsiseg.slides.recorded import associated_rgb, number, tiff_mpp
from wsiseg.slides.sources.remote import open_source
from wsiseg.slides.sources.source import ByteSource
from wsiseg.slides.tiff.tile_table import TileTable
from wsiseg.slides.tiff.tiles import TileSource

_PICTURES = {"YX": (1, 0), "YXS": (1, 0), "CYX": (2, 1)}
"""Of the axes that a label, macro or thumbnail may have, those of its width and height."""


class TiffSlideReader(FileReader):
    """A TIFF of any kind that tifffile reads, in 8-bit RGB, here or behind a URL.

    Args:
        path: a path, or a URL that fsspec knows.
        stated_mpp: microns per pixel as the user states them.
        retry_s: seconds for which a server that fails is asked again.

    Raises:
        SlideError: it cannot be opened, or is not 8-bit RGB.
    """

    reader = "TiffSlide"

    def __init__(self, path: str | Path, stated_mpp: Mpp | None = None, retry_s: float = DEFAULT_RETRY_S) -> None:
        self.path = str(path)
        self.stated_mpp = stated_mpp
        self._lock = threading.Lock()
        # What tifffile logs on a damaged file is said in one line by the error, unless somebody listens.
        logging.getLogger("tifffile").addHandler(logging.NullHandler())
        self._source: ByteSource = open_source(self.path, retry_s)
        self.version = self._source.version
        self._slide: Any = None
        try:
            # An OME-TIFF can name other files that hold some of its planes: those are not what was asked for.
            options = {"_multifile": False, "name": self.name}
            file: Any = self._source.file()
            self._slide = tiffslide.TiffSlide(file, tifffile_options=options)
            self._read_head()
            self._source.check()
        except Exception as error:  # tifffile looks at many values only when they are asked for
            try:
                self._source.check()  # a server that failed is not the slide's fault
            finally:
                self._close()
            if isinstance(error, SlideError):
                raise
            raise _explained(self.name, error) from error

    def _read_head(self) -> None:
        """Take in what the file says of itself; raises whatever damaged values lead to."""
        properties = {key: value for key, value in self._slide.properties.items() if value is not None}
        sizes = [Size(*size) for size in self._slide.level_dimensions]
        check_sizes(self.name, sizes)
        self._downsamples = tuple(float(value) for value in self._slide.level_downsamples)
        series = self._slide.ts_tifffile.series[int(properties.get("tiffslide.series-index", 0))]
        self.properties = {key: str(value) for key, value in properties.items()}
        if (
            series.dtype != np.uint8
            or series.axes not in ("YXS", "CYX")
            or 3 not in series.shape[:: len(series.shape) - 1]
        ):
            raise SlideError(
                f"{self.name}: expected 8-bit red, green and blue, got {series.dtype} with axes {series.axes} "
                f"{tuple(series.shape)}; convert it to RGB"
            )
        self.vendor = self.properties.get("tiffslide.vendor", "ome" if series.kind == "ome" else "generic-tiff")
        self.levels = tuple(Level.from_sizes(size, sizes[0]) for size in sizes)
        self.recorded_mpp, source = self._recorded()
        self.mpp_source = "stated" if self.stated_mpp else source
        self.objective = number(properties.get("tiffslide.objective-power"))
        self.bounds = None
        self.associated = _pictures(self._slide.associated_images.series_map)
        cells = self._cells(series)
        check_tiles(self.name, cells)
        self.damage = DamageMap(self.levels, cells)
        for level, cell in zip(series.levels, cells, strict=False):
            _bound_decoder(level.keyframe, cell)
        self._tiles = self._tile_source(series)

    def _recorded(self) -> tuple[Mpp | None, str]:
        x, y = number(self.properties.get("tiffslide.mpp-x")), number(self.properties.get("tiffslide.mpp-y"))
        if x and y and x > 0 and y > 0:
            return Mpp(x, y), "tiffslide.mpp-x"
        get = self.properties.get
        found = tiff_mpp(get("tiff.XResolution"), get("tiff.YResolution"), get("tiff.ResolutionUnit"))
        return (found, "tiff.XResolution") if found else (None, "")

    def _cells(self, series: Any) -> list[Size]:
        """The size of what is decoded at once of each level: a tile, or a strip."""
        cells = []
        for level in series.levels[: len(self.levels)]:
            page = level.keyframe
            if page.is_tiled:  # decoded whole, however little of it lies inside the image
                cells.append(tile_size(page.tilewidth, page.tilelength))
            else:
                cells.append(tile_size(page.imagewidth, min(page.rowsperstrip, page.imagelength)))
        return cells

    def _tile_source(self, series: Any) -> TileSource | None:
        tables = [TileTable.from_page(level.keyframe) for level in series.levels]
        fit = len(tables) == len(self.levels) and all(
            table is None or (table.size == level.size) for table, level in zip(tables, self.levels, strict=True)
        )
        if not fit or not any(tables):
            return None
        return TileSource(self._source, tables, zero_is_damaged=self.vendor == "aperio")

    def _read_box(self, level: int, box: Box) -> npt.NDArray[np.uint8]:
        """See `FileReader`. TiffSlide rounds a place down to a pixel of the level, so that rounding up gives it."""
        downsample = self._downsamples[level]
        place = (math.ceil(box.x * downsample - 1e-6), math.ceil(box.y * downsample - 1e-6))
        try:
            pixels = self._slide.read_region(place, level, (box.width, box.height), as_array=True)
        except Exception as error:  # codecs raise whatever they like on damaged data
            raise UnreadableError(str(error)) from error
        if pixels.shape[:2] != box.size.shape or pixels.ndim != 3 or pixels.shape[2] < 3:
            raise UnreadableError(f"gives an array of {pixels.shape}")
        return np.ascontiguousarray(pixels[..., :3], np.uint8)

    def read_associated(self, name: str) -> npt.NDArray[np.uint8]:
        """See `SlideReader.read_associated`."""
        self.require_open(self._open)
        if name not in self.associated:
            raise KeyError(name)
        check_picture(self.name, self.associated[name])
        try:
            return associated_rgb(self._slide.associated_images[name])
        except Exception as error:  # codecs raise whatever they like on damaged data
            self._source.check()
            reason = " ".join(str(error).split())
            raise SlideError(f"{self.name}: the picture {name!r:.60} cannot be read ({reason:.100})") from error

    def quick_hash(self) -> str:
        """See `SlideReader.quick_hash`."""
        return self._source.quick_hash()

    def close(self) -> None:
        """See `SlideReader.close`."""
        with self._lock:
            if self._open:
                self._open = False
                self._close()

    def _close(self) -> None:
        if self._slide is not None:
            self._slide.close()
        if self._tiles is not None:
            self._tiles.close()
        self._source.close()


def _bound_decoder(page: Any, cell: Size) -> None:
    """Have a page look at what its tiles claim before it decodes them; tifffile keeps its decoder in the instance."""
    decode = page.decode

    def bounded(data: bytes | None, *arguments: Any, **options: Any) -> Any:
        if data is not None:
            require_claim(data, cell)
        return decode(data, *arguments, **options)

    page.__dict__["decode"] = bounded


def _pictures(series: Mapping[str, Any]) -> dict[str, Size]:
    """Names and sizes of the pictures beside the slide, none of which is decoded."""
    return {
        name: Size(*(int(one.shape[axis]) for axis in _PICTURES[one.axes]))
        for name, one in series.items()
        if one.axes in _PICTURES
    }


def _explained(name: str, error: Exception) -> SlideError:
    """The error, on one line, for whatever a library raised."""
    if isinstance(error, FileNotFoundError):
        return SlideError(f"{name} does not exist")
    if isinstance(error, ImportError):
        return SlideError(f"{name} needs a package that is not installed ({plain(error)})")
    return SlideError(f"{name} is not a slide or picture that can be read, or it is damaged ({plain(error)})")
