"""Outlines -> QuPath's GeoJSON as a stream: one MultiPolygon for each class, its text made with whole arrays.

Nothing has to be mended here. Outlines are valid polygons with upright and level sides, and writing only replaces each
column and each row by a number, the same one wherever it occurs and a larger one for each next. That bends no side,
and moves none across another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float64Array
from wsiseg.classes import ClassTable
from wsiseg.errors import OptionError
from wsiseg.geojson.measures import Measures
from wsiseg.geojson.write import DECIMALS, START, Facts, Identity, Written, feature_head, geojson_file
from wsiseg.geometry import Grid
from wsiseg.polygons.frame import Frame
from wsiseg.polygons.outlines.reader import Outlines

_GO_ON, _NEW_RING, _NEW_POLYGON, _FIRST = range(4)
_BETWEEN = (b",[", b"],[[", b"]],\n[[[", b"[[[[")
"""The text before a vertex that continues a ring, begins one, begins a polygon, begins the first polygon."""

PACKING = 4
"""How hard `.gz` is packed: a fifth of the time that 6 takes, for an eighth more bytes."""

Text = npt.NDArray[np.uint8]
"""(N, width) bytes of N short texts, filled up with 0."""


def write_outlines(
    path: str | Path,
    outlines: Outlines,
    classes: ClassTable,
    grid: Grid,
    *,
    identity: Identity,
    frame: Frame | None = None,
    areas_px: Float64Array | None = None,
    facts: Facts | None = None,
    measures: Sequence[Measures | None] = (),
    overwrite: bool = False,
) -> Written:
    """Write outlines as locked QuPath annotations, one for each class that occurs.

    Args:
        path: ends in `.geojson` or `.geojson.gz`. The file appears when it is whole.
        outlines: of a map on this grid, open for reading.
        classes: names and colours.
        grid: the map's grid; coordinates are written in level-0 pixels of the slide's bounds.
        identity: what annotation ids are made from.
        frame: where the slide ends, in map pixels; corners beyond it are moved onto it. None where the map ends.
        areas_px: area of each class inside the frame by its index, in map pixels; None takes that of the outlines.
        facts: what the file and its features say besides.
        measures: of each class of the table; none where the map has no probabilities.
        overwrite: replace an existing file.

    Raises:
        OptionError: another ending, or map pixels so small that the file's coordinates cannot tell them apart.
        OutputError: the file exists, or cannot be written.
    """
    frame, facts = frame or Frame.of_size(grid.size), facts or Facts()
    areas_px = outlines.area_px.astype(np.float64) if areas_px is None else areas_px
    columns = _numbers(frame.pixels.width, grid.step_x, frame.width)
    rows = _numbers(frame.pixels.height, grid.step_y, frame.height)
    vertices, area_um2 = 0, {}
    with geojson_file(Path(path), overwrite, PACKING) as file:
        file.write(START.encode())
        separator = b"\n"
        for tissue in classes:
            if not outlines.area_px[tissue.index]:
                continue
            identifier = identity.uuid("MultiPolygon", tissue.index, 0)
            measured = measures[tissue.index - 1] if measures else None
            file.write(separator + feature_head("MultiPolygon", tissue, identifier, facts, measured).encode())
            _write_coordinates(file, outlines, tissue.index, columns, rows)
            file.write(b"}}")
            separator = b",\n"
            vertices += outlines.vertices(tissue.index)
            area_um2[tissue.index] = float(areas_px[tissue.index]) * grid.mpp.pixel_area_um2
        file.write(facts.end().encode())
    return Written(len(area_um2), vertices, 0, 0, area_um2)


def _write_coordinates(file: BinaryIO, outlines: Outlines, index: int, columns: Text, rows: Text) -> None:
    """The coordinates of one class."""
    between = _texts(_BETWEEN)
    first = True
    for vertices, ring_starts, polygon_starts in outlines.read(index):
        role = np.full(len(vertices), _GO_ON, np.uint8)
        role[ring_starts] = _NEW_RING
        role[polygon_starts] = _NEW_POLYGON
        if first:
            role[0], first = _FIRST, False
        text = np.concatenate(
            [
                between[role],
                columns[vertices[:, 0]],
                np.full((len(vertices), 1), ord(","), np.uint8),
                rows[vertices[:, 1]],
                np.full((len(vertices), 1), ord("]"), np.uint8),
            ],
            axis=1,
        )
        file.write(text[text != 0].tobytes())
    file.write(b"]]]")


def _numbers(length: int, step: float, edge: float) -> Text:
    """The texts of 0, step, 2 * step, … length * step, none above edge * step, rounded as coordinates are."""
    values = np.round(np.minimum(np.arange(length + 1), edge) * step, DECIMALS)
    if (np.diff(values) <= 0).any():
        raise OptionError(
            f"a map pixel of {step:.3g} level-0 pixels is too small for coordinates of two decimals; "
            "make the map at a larger --mpp"
        )
    return _texts([f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".").encode() for value in values.tolist()])


def _texts(texts: list[bytes] | tuple[bytes, ...]) -> Text:
    packed = np.array(texts, dtype=bytes)
    return packed.view(np.uint8).reshape(len(packed), packed.dtype.itemsize)
