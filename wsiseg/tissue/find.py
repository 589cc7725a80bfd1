"""Where the tissue is: a mask from an overview of the slide, or of one's own, asked in map pixels."""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wsiseg.errors import OptionError
from wsiseg.geojson.read import read_geojson
from wsiseg.geometry import Box, Grid, Size
from wsiseg.slides.base import SlideReader
from wsiseg.slides.expected import expected
from wsiseg.system.memory import trim_memory
from wsiseg.system.threads import read_ahead
from wsiseg.tiling.grid import TileGrid
from wsiseg.tissue.bit_mask import BitMask
from wsiseg.tissue.stain import Glass, find_glass, stained

OVERVIEW_MPP = 8.0
"""Microns per pixel of the overview that tissue is looked for in."""

MIN_TISSUE_UM2 = 20_000.0
"""Specks smaller than this are dirt; a square of 0.14 mm."""

MIN_HOLE_UM2 = 10_000.0
"""Holes smaller than this belong to the tissue: a fat cell, a small lumen, a crack; a square of 0.1 mm."""

_SPECK_SHARE = 0.02
_SHORT_SIDE = 64
_OWN_MPP = 2.0
_OWN_PIXELS = 64_000_000
_OVERVIEW_PIXELS = 2**28
_GLASS_PIXELS = 2**24
_BAND_PIXELS = 4_000_000
_CHUNK = 1024
_LABELS_MAX = 16
_ROWS = 512


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Where the tissue of a slide is.

    Attributes:
        mask: of the whole slide, (h, w).
        step_x: level-0 pixels per mask pixel along x.
        step_y: the same along y.
        slide_size: size of level 0; nothing outside it is tissue.
        method: "otsu", "none", or the name of the file that it came from.
        glass: that of the overview, None where none was looked at.
    """

    mask: BitMask
    step_x: float
    step_y: float
    slide_size: Size
    method: str
    glass: Glass | None = None

    @property
    def area_px(self) -> float:
        """Area of the tissue in level-0 pixels."""
        rows = np.clip(self.slide_size.height - np.arange(self.mask.shape[0]) * self.step_y, 0, self.step_y)
        columns = np.clip(self.slide_size.width - np.arange(self.mask.shape[1]) * self.step_x, 0, self.step_x)
        return sum(float(rows[top : top + len(band)] @ (band @ columns)) for top, band in self.mask.bands())

    @property
    def share(self) -> float:
        """Share of the slide that is tissue, 0 to 1."""
        return self.area_px / self.slide_size.area

    def rows(self, grid: Grid, box: Box) -> npt.NDArray[np.bool_]:
        """Whether each map pixel of `box` is tissue, (box.height, box.width).

        The mask, taken as 0 and 1 at the centres of its pixels, is interpolated linearly; from a half on it is
        tissue. So outlines are smooth, and a map pixel's answer does not depend on the box.
        """
        out = np.zeros((box.height, box.width), np.bool_)
        for top in range(0, box.height, _CHUNK):  # what is interpolated takes sixteen times the memory of the answer
            strip = Box(box.x, box.y + top, box.width, min(_CHUNK, box.height - top))
            self._strip(grid, strip, out[top : top + _CHUNK])
        return out

    def _strip(self, grid: Grid, box: Box, out: npt.NDArray[np.bool_]) -> None:
        """Fill `out` for a box of few rows."""
        y0, y1, fy, in_y = self._axis(box.y, box.height, grid.step_y, self.step_y, 0)
        x0, x1, fx, in_x = self._axis(box.x, box.width, grid.step_x, self.step_x, 1)
        top = int(y0.min())
        for left in range(0, box.width, _CHUNK):  # a band may be as wide as the map
            part = slice(left, min(box.width, left + _CHUNK))
            first, last = int(x0[part].min()), int(x1[part].max()) + 1
            block = self.mask.block(top, int(y1.max()) + 1, first, last)
            if not block.any():
                continue
            if block.all():
                out[:, part] = True
                continue
            strip = block.astype(np.float32)
            down = strip[y0 - top] * (1 - fy[:, None]) + strip[y1 - top] * fy[:, None]  # (h, mask columns)
            a, b = x0[part] - first, x1[part] - first
            out[:, part] = down[:, a] * (1 - fx[part]) + down[:, b] * fx[part] >= 0.5
        out &= in_y[:, None] & in_x[None, :]

    def select(self, grid: Grid, tiles: TileGrid) -> npt.NDArray[np.bool_]:
        """Which patches hold tissue, (rows, columns) bool: `rows(…).any()` of each, mostly without computing it."""
        rows, columns = self._ranges(grid, tiles, 0), self._ranges(grid, tiles, 1)
        (top, bottom), (left, right) = rows, columns
        sums = self._sums()
        count = (
            sums[np.ix_(bottom, right)]
            - sums[np.ix_(top, right)]
            - sums[np.ix_(bottom, left)]
            + sums[np.ix_(top, left)]
        )
        whole = Box.of(tiles.map_size)
        selected = count > 0
        # Only where some mask pixels are tissue and some are not may interpolation decide otherwise.
        unsure = selected & (count < np.outer(bottom - top, right - left))
        for row, column in np.argwhere(unsure).tolist():
            selected[row, column] = self.rows(grid, tiles.box(row, column).intersect(whole)).any()
        return np.asarray(selected, np.bool_)

    def _ranges(self, grid: Grid, tiles: TileGrid, axis: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """First mask pixel, and the one behind the last, of each row (axis 0) or column (axis 1) of patches."""
        length = tiles.map_size.shape[axis]
        map_step, mask_step = (grid.step_y, self.step_y) if axis == 0 else (grid.step_x, self.step_x)
        low, high, _, _ = self._axis(0, length, map_step, mask_step, axis)
        first = np.arange(tiles.rows if axis == 0 else tiles.columns) * tiles.stride_px
        last = np.minimum(first + tiles.patch_px, length) - 1
        return low[first], high[last] + 1

    def _sums(self) -> npt.NDArray[np.int32]:
        """(h + 1, w + 1): how many mask pixels above and left of each corner are tissue.

        Not kept: of a large slide it would be the largest thing that a run holds to its end.
        """
        sums = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1), np.int32)
        for top, rows in self.mask.bands():  # all at once would take the memory twice
            band = np.cumsum(rows, axis=1, dtype=np.int32)
            band[0] += sums[top, 1:]
            np.cumsum(band, axis=0, out=sums[top + 1 : top + 1 + len(band), 1:])
        return sums

    def _axis(
        self, start: int, length: int, map_step: float, mask_step: float, axis: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """For map pixels along one axis: the mask pixels before and after, the share of the latter, and if inside."""
        index = np.arange(start, start + length, dtype=np.float64)
        centre = (index + 0.5) * map_step / mask_step - 0.5
        before = np.floor(centre)
        share = (centre - before).astype(np.float32)
        last = self.mask.shape[axis] - 1
        extent = self.slide_size.shape[axis]
        inside = (index >= 0) & (index * map_step < extent)
        low = np.clip(before, 0, last).astype(np.intp)
        return low, np.clip(before + 1, 0, last).astype(np.intp), share, inside


def tissue_mask(
    slide: SlideReader,
    method: str | Path = "otsu",
    *,
    min_tissue_um2: float = MIN_TISSUE_UM2,
    min_hole_um2: float = MIN_HOLE_UM2,
) -> TissueMask:
    """Find the tissue of a slide.

    Args:
        slide: an open slide whose mpp is known.
        method: "otsu" (stained tissue in an overview, see `wsiseg.tissue.stain`), "none" (all of the slide), or the
            path of a GeoJSON (areas in level-0 pixels, as QuPath exports them) or of a PNG of the slide's aspect (dark
            is not tissue). Areas and pictures of one's own are taken as they are.
        min_tissue_um2: specks smaller than this are left out, at most 2 % of the slide.
        min_hole_um2: holes smaller than this are filled, at most 2 % of the slide.

    Raises:
        OptionError: no such method or file, or one that does not fit the slide.
        MissingMppError: the slide's mpp is unknown.
    """
    if min(min_tissue_um2, min_hole_um2) < 0:
        raise OptionError("areas of specks and holes cannot be negative")
    name = str(method)
    if name == "none":
        return TissueMask(BitMask(np.ones((1, 1), np.bool_)), slide.size.width, slide.size.height, slide.size, "none")
    if name == "otsu":
        return _found(slide, min_tissue_um2, min_hole_um2)
    lower = name.lower()
    if lower.endswith((".geojson", ".geojson.gz", ".json")):
        return _from_geojson(slide, Path(name))
    if lower.endswith(".png"):
        return _from_png(slide, Path(name))
    raise OptionError(f"expected otsu, none, or a file .geojson or .png as tissue, got {name!r}")


def read_overview(slide: SlideReader, mpp: float = OVERVIEW_MPP) -> tuple[Grid, npt.NDArray[np.uint8]]:
    """All of a slide at about `mpp` microns per pixel, (h, w, 3), and its grid; finer where that were a few pixels.

    Read in blocks, so that memory stays bounded where there is no pyramid.
    """
    side_um = min(slide.size.width * slide.mpp.x, slide.size.height * slide.mpp.y)
    grid = slide.grid(max(min(mpp, side_um / _SHORT_SIDE), min(slide.mpp.x, slide.mpp.y)))
    if grid.size.area > _OVERVIEW_PIXELS:
        raise OptionError(
            f"{slide.name} is {slide.size} px of {slide.mpp} um: an overview of {grid.size} px is more than memory is "
            "meant for; is the resolution right? State it with --mpp, or give the tissue with --tissue"
        )
    overview = np.empty((*grid.size.shape, 3), np.uint8)
    side = max(1, int(math.sqrt(_BAND_PIXELS / max(1.0, grid.zoom_x * grid.zoom_y))))

    whole = Box.of(grid.size)

    def read(box: Box) -> None:
        overview[box.slices()] = slide.read(grid, box).pixels

    corners = ((x, y) for y in range(0, grid.size.height, side) for x in range(0, grid.size.width, side))
    boxes = (Box(x, y, side, side).intersect(whole) for x, y in corners)
    workers = min(4, os.cpu_count() or 1)
    for _ in read_ahead(expected(slide, grid, boxes, lambda box: box), read, workers=workers, ahead=2 * workers):
        pass
    slide.forget()
    trim_memory()
    return grid, overview


def _found(slide: SlideReader, min_tissue_um2: float, min_hole_um2: float) -> TissueMask:
    return _stained(slide, OVERVIEW_MPP, min_tissue_um2, min_hole_um2)


def _stained(slide: SlideReader, mpp: float, min_tissue_um2: float, min_hole_um2: float) -> TissueMask:
    grid, overview = read_overview(slide, mpp)
    glass = find_glass(overview)
    mask = stained(overview, grid.mpp.mean, glass)
    del overview  # parts are labelled in as much memory again
    largest = _SPECK_SHARE * mask.size
    per_px = grid.mpp.pixel_area_um2
    mask = _without_small(mask, min(min_tissue_um2 / per_px, largest), ndimage.generate_binary_structure(2, 2))
    np.logical_not(mask, out=mask)
    mask = _without_small(mask, min(min_hole_um2 / per_px, largest), ndimage.generate_binary_structure(2, 1))
    np.logical_not(mask, out=mask)
    return TissueMask(BitMask(mask), grid.step_x, grid.step_y, slide.size, "otsu", glass)


def stained_tissue(slide: SlideReader) -> TissueMask:
    """The stained tissue of a slide, of an overview that is coarser than usual where that were large."""
    area_um2 = slide.size.area * slide.mpp.pixel_area_um2
    return _stained(slide, max(OVERVIEW_MPP, math.sqrt(area_um2 / _GLASS_PIXELS)), MIN_TISSUE_UM2, MIN_HOLE_UM2)


def _without_small(
    mask: npt.NDArray[np.bool_], min_px: float, neighbours: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """The connected parts of a mask that have at least `min_px` pixels."""
    labels, count = ndimage.label(mask, neighbours)
    if count == 0:
        return mask
    areas = np.zeros(count + 1, np.int64)
    for top in range(0, len(labels), _ROWS):  # counting needs wide integers: not of all at once
        areas += np.bincount(labels[top : top + _ROWS].ravel(), minlength=count + 1)
    keep = areas >= min_px
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)


def _from_geojson(slide: SlideReader, path: Path) -> TissueMask:
    """The areas of a GeoJSON, at 2 um per pixel or coarser."""
    from rasterio import Affine, features  # noqa: PLC0415

    shapes = [geometry for geometry, _ in read_geojson(path)]
    step = max(1.0, _OWN_MPP / slide.mpp.mean, math.sqrt(slide.size.area / _OWN_PIXELS))
    size = Size(math.ceil(slide.size.width / step), math.ceil(slide.size.height / step))
    mask = np.zeros(size.shape, np.uint8)
    if shapes:
        features.rasterize(((geometry, 1) for geometry in shapes), out=mask, transform=Affine(step, 0, 0, 0, step, 0))
    if not mask.any():
        raise OptionError(
            f"{path.name} has no area inside the slide ({slide.size} px); areas are expected in level-0 pixels"
        )
    return TissueMask(BitMask(mask.astype(np.bool_)), step, step, slide.size, path.name)


def _from_png(slide: SlideReader, path: Path) -> TissueMask:
    """A picture of the slide's aspect: tissue is what is brighter than half of its brightest value.

    Where no value is above 16 it is a mask of labels, and tissue is what is not 0.
    """
    pixels = _grey_png(path)
    height, width = pixels.shape
    slide_width, slide_height = slide.size.width, slide.size.height
    # A writer may have rounded either side up or down by a pixel.
    off = min(abs(width - slide_width * height / slide_height), abs(height - slide_height * width / slide_width))
    if off > 1:
        raise OptionError(
            f"{path.name} is {width} x {height}, which has not the aspect of the slide ({slide.size}); "
            f"expected for example {width} x {max(1, round(slide_height * width / slide_width))}"
        )
    # Masks of labels (0, 1, 2) mean that all but 0 is tissue; pictures of a mask, smoothed or not, half of white.
    mask = pixels > (0 if pixels.max() <= _LABELS_MAX else pixels.max() / 2)
    if not mask.any():
        raise OptionError(f"{path.name} is black, that is, without tissue; expected tissue to be bright")
    return TissueMask(BitMask(mask), slide_width / width, slide_height / height, slide.size, path.name)


def _grey_png(path: Path) -> npt.NDArray[np.int32]:
    """The values of a PNG of one channel, or of three that are equal, (h, w)."""
    from PIL import Image  # noqa: PLC0415

    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise OptionError(f"{path} is no file; expected a PNG of the tissue")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            _require_smaller(path, image.width, image.height)
            transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            rgba = image.convert("RGBA") if transparent or image.mode == "P" else None
            black = None if rgba is None else Image.new("RGBA", rgba.size, (0, 0, 0, 255))
            # What is transparent is no tissue.
            converted = image if rgba is None or black is None else Image.alpha_composite(black, rgba).convert("RGB")
            pixels = np.asarray(converted)
    except OptionError:
        raise
    except FileNotFoundError as error:
        raise OptionError(f"{path} does not exist; expected a PNG of the tissue") from error
    except (OSError, ValueError, SyntaxError, MemoryError, struct.error, Image.DecompressionBombError) as error:
        raise OptionError(f"{path.name} cannot be read as a PNG ({error})") from error
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise OptionError(f"{path.name} has colours; expected a mask of one channel, bright where tissue is")
        pixels = pixels[..., 0]
    return pixels.astype(np.int32)


def _require_smaller(path: Path, width: int, height: int) -> None:
    """A few bytes can claim any size."""
    if width * height > _OWN_PIXELS:
        raise OptionError(f"{path.name} is {width} x {height} px, more than {_OWN_PIXELS} in all; make it coarser")
