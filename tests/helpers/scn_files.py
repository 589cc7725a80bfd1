"""A small Leica SCN slide of several areas out of known pixels, as OpenSlide reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

_NM, _MACRO_NM = 500, 8000
_MACRO = np.full((512, 256, 3), 230, np.uint8)

Area = tuple[npt.NDArray[np.uint8], int, int]
"""Pixels (height, width, 3), and where they lie: x and y in pixels of 0.5 um from the corner of the glass."""


def write_scn(path: Path, areas: Sequence[Area], last_nm: int = _NM) -> Path:
    """Write a macro, then two levels of each area; the last area has pixels of `last_nm` nanometers."""
    pages = [_MACRO]
    images = [_image([(0, _MACRO)], _MACRO_NM, 0, 0)]
    for index, (pixels, x, y) in enumerate(areas):
        levels = [pixels, pixels[::2, ::2]]
        numbered = list(enumerate(levels, len(pages)))
        images.append(_image(numbered, last_nm if index == len(areas) - 1 else _NM, x * _NM, y * _NM))
        pages += levels
    glass = f'sizeX="{_MACRO.shape[1] * _MACRO_NM}" sizeY="{_MACRO.shape[0] * _MACRO_NM}"'
    about = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" uuid="u" {glass}>{"".join(images)}</collection></scn>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, page in enumerate(pages):
            file.write(
                np.ascontiguousarray(page),
                tile=(128, 128),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 95},
                description=about if number == 0 else None,
                resolution=(1e7 / _NM, 1e7 / _NM),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def _image(levels: Sequence[tuple[int, npt.NDArray[np.uint8]]], nm: int, x_nm: int, y_nm: int) -> str:
    height, width = levels[0][1].shape[:2]
    sizes = "".join(
        f'<dimension sizeX="{page.shape[1]}" sizeY="{page.shape[0]}" r="{index}" ifd="{number}"/>'
        for index, (number, page) in enumerate(levels)
    )
    return (
        f'<image name="i{levels[0][0]}"><creationDate>2012-01-01T00:00:00Z</creationDate>'
        f'<device model="Leica SCN400" version="1"/><pixels sizeX="{width}" sizeY="{height}">{sizes}</pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{x_nm}" offsetY="{y_nm}" spacingZ="0"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image>"
    )
