"""The picture of a slide's section: classes, outlines of what was measured, scale bar and legend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from wsiseg.arrays import BoolArray, UInt8Array
from wsiseg.export.legend import with_legend
from wsiseg.export.picture import draw
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.measure import Measures
from wsiseg.slides.base import SlideReader

BULK_COLOR, FIELD_COLOR = (20, 20, 20), (255, 255, 255)
HALO_COLOR = {BULK_COLOR: (255, 255, 255), FIELD_COLOR: (20, 20, 20)}
OPACITY = 0.45
QUALITY = 82


def save_picture(coarse: CoarseMap, measures: Measures, slide: SlideReader | None, path: Path, max_px: int) -> Path:
    """Draw a map for a report: JPEG on top of the slide, else PNG.

    Args:
        coarse: the map.
        measures: what was measured: the bulk's outline is drawn as a dark line, the hot spot field as a light circle.
        slide: open for reading, or None.
        path: of the file, without ending.
        max_px: longest side.

    Returns:
        The file.
    """
    drawn = draw(coarse.source, slide, max_px=max_px, opacity=OPACITY if slide is not None else 0.75)
    image = drawn.image.copy()
    factor = drawn.mpp.x / coarse.mpp.x, drawn.mpp.y / coarse.mpp.y
    shape = (image.shape[0], image.shape[1])
    if measures.bulk is not None:
        _line(image, _scaled(measures.bulk.outline, shape, factor), BULK_COLOR)
    if measures.field is not None:
        _line(image, _scaled(measures.field.mask(coarse.classes.shape, coarse.mpp), shape, factor), FIELD_COLOR)
    picture = Image.fromarray(with_legend(coarse.source, replace(drawn, image=image)))
    if slide is not None:
        file = path.with_name(path.name + ".jpg")
        picture.save(file, quality=QUALITY, optimize=True)
    else:
        file = path.with_name(path.name + ".png")
        picture.quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
    return file


def _scaled(mask: BoolArray, shape: tuple[int, int], factor: tuple[float, float]) -> BoolArray:
    """A mask of cells as one of the picture's pixels; `factor` is cells along a pixel, (x, y)."""
    rows = ((np.arange(shape[0]) + 0.5) * factor[1]).astype(int).clip(0, mask.shape[0] - 1)
    columns = ((np.arange(shape[1]) + 0.5) * factor[0]).astype(int).clip(0, mask.shape[1] - 1)
    return np.asarray(mask[np.ix_(rows, columns)])


def _line(image: UInt8Array, mask: BoolArray, color: tuple[int, int, int]) -> None:
    """Draw the border of a mask, with a halo that makes it seen on any ground."""
    border = mask & ~ndimage.binary_erosion(mask)
    halo = ndimage.binary_dilation(border, iterations=2)
    image[halo] = HALO_COLOR[color]
    image[ndimage.binary_dilation(border)] = color
