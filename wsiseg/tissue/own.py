"""Where the tissue is, by the user's own file: a GeoJSON or a PNG."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.errors import OptionError
from wsiseg.geojson.read import read_geojson
from wsiseg.geometry import Size
from wsiseg.polygons.fill import fill_areas
from wsiseg.slides.base import SlideReader
from wsiseg.tissue.bit_mask import BitMask
from wsiseg.tissue.mask import TissueMask

_OWN_MPP = 2.0
_OWN_PIXELS = 64_000_000
_LABELS_MAX = 16


def from_geojson(slide: SlideReader, path: Path) -> TissueMask:
    """The areas of a GeoJSON, at 2 um per pixel or coarser."""
    areas = [geometry for geometry, _ in read_geojson(path)]
    step = max(1.0, _OWN_MPP / slide.mpp.mean, math.sqrt(slide.size.area / _OWN_PIXELS))
    size = Size(math.ceil(slide.size.width / step), math.ceil(slide.size.height / step))
    mask = fill_areas(areas, size, step)
    if not mask.any():
        raise OptionError(
            f"{path.name} has no area inside the slide ({slide.size} px); areas are expected in level-0 pixels"
        )
    return TissueMask(BitMask(mask), step, step, slide.size, path.name)


def from_png(slide: SlideReader, path: Path) -> TissueMask:
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
        raise OptionError(f"{path} is not a file; expected a PNG of the tissue")
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
    """Refuse a picture that claims too many pixels, before it is decoded: a few bytes can claim any size."""
    if width * height > _OWN_PIXELS:
        raise OptionError(f"{path.name} is {width} x {height} px, more than {_OWN_PIXELS} in all; make it coarser")
