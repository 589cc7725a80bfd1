"""Is an exact GeoJSON file the class map, pixel for pixel? Read polygon by polygon, compared band by band."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsiseg.geometry import Box, ceil_div
from wsiseg.polygons.class_map import ClassMapSource

BAND = 512
"""Rows that are compared at once."""

POLYGONS_AT_ONCE = 5000


def check_file(path: Path, source: ClassMapSource, names: list[str], folder: Path) -> tuple[int, int]:
    """(pixels that differ, polygons that are not valid) of a file in coordinates of the map, one polygon a line.

    Pixels are filled by the even-odd rule: each upright side changes what lies to its right. Noted are the ends of the
    sides; exclusive or over those above gives the sides that cross a row, and over those to the left the class.
    """
    corners = _Corners(folder / "corners", source.size.height)
    invalid = 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        label, polygons = 0, []
        for line in file:
            text = line.strip().removesuffix(",")
            if text.startswith('{"type": "Feature"'):
                head, text = text.split('"coordinates":[')
                label = names.index(json.loads(head.split(', "geometry"')[0] + "}")["properties"]["name"]) + 1
            if not text.startswith("["):
                continue
            last = text.endswith("}}")
            polygons.append(json.loads(text.removesuffix("]}}")))
            if last or len(polygons) >= POLYGONS_AT_ONCE:
                invalid += _take(polygons, label, corners)
                polygons = []
    return corners.compare(source), invalid


def _take(polygons: list[Any], label: int, corners: _Corners) -> int:
    """Note the upright sides of some polygons of one class; the number that is not valid."""
    built = [shapely.Polygon(rings[0], rings[1:]) for rings in polygons]
    for rings in polygons:
        for ring in rings:
            xy = np.array(ring, np.int64)
            a, b = xy[:-1], xy[1:]
            upright = a[:, 0] == b[:, 0]
            if (upright == (a[:, 1] == b[:, 1])).any() or (upright[1:] == upright[:-1]).any():
                raise ValueError(f"a side is neither upright nor level, or goes straight on, near {ring[0]}")
            corners.add(np.concatenate([a[upright], b[upright]]), label)
    return int((~shapely.is_valid(built)).sum())


class _Corners:
    """Ends of upright sides in one file for each band."""

    def __init__(self, folder: Path, height: int) -> None:
        folder.mkdir()
        self._paths = [folder / str(number) for number in range(ceil_div(height + 1, BAND))]
        for path in self._paths:
            path.touch()
        self._waiting: list[npt.NDArray[np.int32]] = []
        self._count = 0

    def add(self, xy: npt.NDArray[np.int64], label: int) -> None:
        """Note ends (N, 2) of sides of a class."""
        self._waiting.append(np.column_stack([xy, np.full(len(xy), label)]).astype(np.int32))
        self._count += len(xy)
        if self._count > 2_000_000:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        found = np.concatenate(self._waiting)
        found = found[np.argsort(found[:, 1], kind="stable")]
        bounds = np.searchsorted(found[:, 1], np.arange(len(self._paths) + 1) * BAND)
        for path, start, stop in zip(self._paths, bounds[:-1], bounds[1:], strict=True):
            if stop > start:
                with path.open("ab") as file:
                    file.write(found[start:stop].tobytes())
        self._waiting, self._count = [], 0

    def compare(self, source: ClassMapSource) -> int:
        """Pixels whose class is another one than in the map."""
        self._write()
        size = source.size
        above = np.zeros(size.width + 1, np.uint8)
        differ = 0
        for number, path in enumerate(self._paths):
            changes = np.zeros((BAND, size.width + 1), np.uint8)
            x, y, label = np.fromfile(path, np.int32).reshape(-1, 3).T
            np.bitwise_xor.at(changes, (y - number * BAND, x), label.astype(np.uint8))
            changes[0] ^= above
            np.bitwise_xor.accumulate(changes, axis=0, out=changes)
            above = changes[-1].copy()
            np.bitwise_xor.accumulate(changes, axis=1, out=changes)
            box = Box(0, number * BAND, size.width, BAND).intersect(Box.from_size(size))
            if not box.is_empty:
                differ += int((changes[: box.height, :-1] != source.read(box)).sum())
        return differ
