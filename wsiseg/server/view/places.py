"""What a map says of a place, of the field in view, and where it is least certain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsiseg.arrays import Float64Array, UInt8Array
from wsiseg.classes import WHITE_VALUE
from wsiseg.geometry import Box, Size
from wsiseg.server.view.map_tiles import uncertainty
from wsiseg.system.json_values import JsonObject
from wsiseg.tissue_map.gate import SHUT_ALL_OVER
from wsiseg.tissue_map.reader import TissueMap

COUNTED_PX = 2**22
"""Map pixels that are counted for a field; of a larger one a coarser level is."""

SOUGHT_PX = 2048
"""Longest side of the level that uncertain regions are sought on."""

REGION_UM = 250.0
LEAST_PX = 4
"""Sides of a region: at least so many pixels of that level."""

MOST_REGIONS = 200
_LEAST_FILLED = 0.25


@dataclass(frozen=True, slots=True)
class Field:
    """A rectangle upon a slide, in level-0 pixels, not necessarily whole ones."""

    x: float
    y: float
    width: float
    height: float

    @property
    def is_finite(self) -> bool:
        """Whether it is a rectangle at all."""
        values = (self.x, self.y, self.width, self.height)
        return all(math.isfinite(value) and abs(value) < 1e9 for value in values) and min(self.width, self.height) >= 0


def at(tissue_map: TissueMap, x: float, y: float) -> JsonObject | None:
    """Class, probabilities and what the map records besides at a place in level-0 pixels; None outside the map.

    Raises:
        SlideError: the map is damaged there.
    """
    grid = tissue_map.grid
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    column, row = math.floor(x / grid.step_x), math.floor(y / grid.step_y)
    if not (0 <= column < grid.size.width and 0 <= row < grid.size.height):
        return None
    box = Box(column, row, 1, 1)
    found: JsonObject = {"class": int(tissue_map.read(box)[0, 0])}
    if tissue_map.has_probabilities:
        found["probabilities"] = [int(channel[0, 0]) / 255 for channel in tissue_map.channels(box)]
    if tissue_map.records_unread:
        found["unread"] = bool(tissue_map.read_unread(box)[0, 0])
    if tissue_map.records_gate:
        indices = range(1, len(tissue_map.classes) + 1)
        found["shut"] = [int(tissue_map.read_gate(index, box)[0, 0]) == SHUT_ALL_OVER for index in indices]
    return found


def areas(tissue_map: TissueMap, field: Field, slide: Size) -> JsonObject:
    """Areas in mm² of each class, of white and of what has no class, in the part of a field that lies on the slide.

    Map pixels that the field's border cuts count by their share. They are counted on the finest level that has few
    enough of them; `mpp` says which.

    Args:
        tissue_map: open for reading.
        field: what is in view.
        slide: level 0.

    Raises:
        SlideError: the map is damaged there.
    """
    left, top = max(0.0, field.x), max(0.0, field.y)
    right, bottom = min(slide.width, field.x + field.width), min(slide.height, field.y + field.height)
    grid, level = tissue_map.grid, 0
    width, height = max(0.0, right - left), max(0.0, bottom - top)
    while width * height / (grid.step_x * grid.step_y * 4**level) > COUNTED_PX and level + 1 < tissue_map.levels:
        level += 1
    step_x, step_y = grid.step_x * 2**level, grid.step_y * 2**level
    counts = np.zeros(256)
    columns, rows = _shares(left, right, step_x), _shares(top, bottom, step_y)
    box = Box(math.floor(left / step_x), math.floor(top / step_y), len(columns), len(rows))
    inside = box.intersect(Box.from_size(grid.coarsen(2**level)))
    if width and height and not inside.is_empty:
        row_part, column_part = inside.slices(box)
        counts = _counted(tissue_map.read(inside, level), rows[row_part], columns[column_part])
    mm2 = counts * grid.mpp.pixel_area_um2 * 4**level / 1e6
    return {
        "classes": [float(mm2[c.index]) for c in tissue_map.classes],
        "white": float(mm2[WHITE_VALUE]),
        "none": float(mm2[0]),
        "mpp": grid.mpp.mean * 2**level,
    }


def _shares(start: float, end: float, step: float) -> Float64Array:
    """How much of each pixel of a row lies between two places, 0 to 1, from the pixel that holds the first."""
    edges = np.arange(math.floor(start / step), max(math.ceil(end / step), math.floor(start / step)) + 1) * step
    shares: Float64Array = np.diff(np.clip(edges, start, end)) / step
    return shares


def _counted(classes: UInt8Array, rows: Float64Array, columns: Float64Array) -> Float64Array:
    """Pixels of each value, (256,), each weighed by its row's and its column's share."""
    counts = np.zeros(256)
    for line, share in zip(classes, rows, strict=True):
        counts += share * np.bincount(line, columns, 256)
    return counts


def uncertain_regions(tissue_map: TissueMap) -> list[dict[str, float]]:
    """Squares where the map is least certain, the least certain first: level-0 places and mean uncertainty.

    Uncertainty is 1 less the greatest probability of a class. Squares of which less than a quarter has a class are
    left out.

    Raises:
        OptionError: the map holds no probabilities.
        SlideError: the map is damaged.
    """
    grid, level = tissue_map.grid, 0
    while level + 1 < tissue_map.levels and max(grid.coarsen(2**level).shape) > SOUGHT_PX:
        level += 1
    box = Box.from_size(grid.coarsen(2**level))
    classes = tissue_map.read(box, level)
    has_class = (classes > 0) & (classes <= len(tissue_map.classes))
    values = np.where(has_class, uncertainty(tissue_map, box, level), 0)
    side = max(LEAST_PX, round(REGION_UM / (grid.mpp.mean * 2**level)))
    filled = _block_sums(has_class, side)
    means = _block_sums(values, side) / np.maximum(filled, 1) / 255
    means[filled < _LEAST_FILLED * side * side] = 0
    order = np.argsort(-means, axis=None, kind="stable")[:MOST_REGIONS]
    step_x, step_y = side * grid.step_x * 2**level, side * grid.step_y * 2**level
    places = zip(*np.unravel_index(order, means.shape), strict=True)
    return [
        {"x": float(x * step_x), "y": float(y * step_y), "width": step_x, "height": step_y, "mean": float(means[y, x])}
        for y, x in places
        if means[y, x] > 0
    ]


def _block_sums(values: np.ndarray[Any, Any], side: int) -> Float64Array:
    """Sums over squares of `side` pixels, those at the right and lower end smaller."""
    rows = np.add.reduceat(values.astype(np.float64), range(0, values.shape[0], side), axis=0)
    return np.add.reduceat(rows, range(0, values.shape[1], side), axis=1)
