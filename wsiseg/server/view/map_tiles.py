"""Tiles of a map as PNG: class indices with the classes' colours as palette, probabilities and uncertainty as grey.

The page reads the values themselves out of these files and colours them anew, so that a toggle costs no request.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image

from wsiseg.arrays import UInt8Array
from wsiseg.classes import WHITE_VALUE, ClassTable
from wsiseg.geometry import Box
from wsiseg.server.view.slide_tiles import TILE_PX
from wsiseg.tissue_map.finer import probability
from wsiseg.tissue_map.reader import TissueMap

_FAST = 3
"""Compression: of class maps hardly more is gained by trying harder."""

Values = int | Literal["uncertainty"]
"""What a grey tile holds: the probability of the class of this index, or how uncertain the map is."""


def tile_box(tissue_map: TissueMap, level: int, x: int, y: int) -> Box | None:
    """The pixels of a tile, in pixels of a level of the map's pyramid; None where there is no such tile."""
    if not 0 <= level < tissue_map.levels or x < 0 or y < 0:
        return None
    box = Box(x * TILE_PX, y * TILE_PX, TILE_PX, TILE_PX)
    inside = box.intersect(Box.from_size(tissue_map.grid.coarsen(2**level)))
    return None if inside.is_empty else inside


def class_tile(tissue_map: TissueMap, level: int, box: Box) -> bytes:
    """A PNG whose samples are class indices, its palette the classes' colours.

    Raises:
        SlideError: the map is damaged there.
    """
    picture = Image.fromarray(tissue_map.read(box, level), "P")
    picture.putpalette(_palette(tissue_map.classes))
    return _png(picture, transparency=_transparency())


def value_tile(tissue_map: TissueMap, values: Values, level: int, box: Box) -> bytes:
    """A grey PNG, 255 is 1.0; interpolated where the map keeps coarser probabilities.

    Raises:
        OptionError: the map holds no probabilities, or has no such class.
        SlideError: the map is damaged there.
    """
    if values == "uncertainty":
        return _png(Image.fromarray(uncertainty(tissue_map, box, level)))
    return _png(Image.fromarray(probability(tissue_map, values, box, level)))


def gate_tile(tissue_map: TissueMap, index: int, level: int, box: Box) -> bytes:
    """A PNG of what the gate decided of a class, or with 0 of all; values as `TissueMap.read_gate` has them.

    Raises:
        OptionError: the map does not record it, or has no such class.
        SlideError: the map is damaged there.
    """
    return _png(Image.fromarray(tissue_map.read_gate(index, box, level)))


def unread_tile(tissue_map: TissueMap, level: int, box: Box) -> bytes:
    """A PNG that is 1 where the slide could not be read.

    Raises:
        OptionError: the map does not record it.
        SlideError: the map is damaged there.
    """
    return _png(Image.fromarray(tissue_map.read_unread(box, level)))


def uncertainty(tissue_map: TissueMap, box: Box, level: int) -> UInt8Array:
    """255 less the greatest probability of a class, (h, w) uint8; without meaning where the map has no class."""
    highest = np.zeros(box.size.shape, np.uint8)
    for channel in tissue_map.channels(box, level):
        np.maximum(highest, channel, out=highest)
    return 255 - highest


def _palette(classes: ClassTable) -> bytes:
    table = np.zeros((256, 3), np.uint8)
    for tissue_class in classes:
        table[tissue_class.index] = tissue_class.color
    table[WHITE_VALUE] = 255
    return table.tobytes()


def _transparency() -> bytes:
    """What is no class is transparent to whoever opens a tile as a picture."""
    return bytes([0, *[255] * 254, 0])


def _png(picture: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=_FAST, **options)
    return stream.getvalue()
