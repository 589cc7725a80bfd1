"""What a map records besides classes and probabilities: where it could not be read, and where the gate shut classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr

from wsiseg.errors import MapError, OptionError
from wsiseg.geometry import Size
from wsiseg.tissue_map.arrays import levels_of
from wsiseg.tissue_map.checks import check_levels
from wsiseg.tissue_map.gate import GATE, GateGrid, GateWindows
from wsiseg.tissue_map.ome import UNREAD

Records = tuple[list[zarr.Array[Any]], GateWindows | None]


def records_of(path: Path, root: zarr.Group, own: Mapping[str, Any], size: Size, levels: int, classes: int) -> Records:
    """The levels of what could not be read, and what the gate decided: none and None of what a map does not record.

    Args:
        path: the map's, for messages.
        root: of the store.
        own: the tool's own metadata.
        size: of the map.
        levels: of its pyramid.
        classes: K.

    Raises:
        MapError: what the metadata says of them is not what the store holds.
    """
    records = own.get("records") or {}
    if not isinstance(records, dict):
        raise _lacking(path, "what it says that it records")
    unread: list[zarr.Array[Any]] = []
    if records.get("unread"):
        group = root.get(f"labels/{UNREAD}")
        unread = levels_of(group) if isinstance(group, zarr.Group) else []
        if len(unread) != levels:
            raise _lacking(path, "where the slide could not be read")
        check_levels(path / "labels" / UNREAD, [level.shape for level in unread], size, ())
    if records.get("gate") is None:
        return unread, None
    try:
        grid = GateGrid.from_json(records["gate"])
    except OptionError as error:
        raise MapError(f"{path} is damaged ({error}), write it anew") from error
    array = root.get(f"{GATE}/0")
    if not isinstance(array, zarr.Array) or array.shape != (classes, grid.rows, grid.columns):
        raise _lacking(path, "where the gate shut classes")
    return unread, GateWindows(grid, array)


def _lacking(path: Path, what: str) -> MapError:
    return MapError(f"{path} does not hold {what}, as its metadata says; it is damaged, write it anew")
