"""What a tissue map must hold before anything is read from it: it comes from outside, as any other file.

A store is a folder of files that state sizes, codecs and names. Here are the bounds within which they are believed.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsiseg.errors import MapError, OptionError
from wsiseg.geometry import Grid, Size, ceil_div
from wsiseg.system.json_values import is_number, is_whole
from wsiseg.tissue_map.probability_levels import ProbabilityLevels

MAX_META_BYTES = 16 * 2**20
MAX_SIDE_PX = 2**21
MAX_STEP = 1e6
"""Level-0 pixels per map pixel, and the like."""

MAX_CHUNK_BYTES = 2**28
"""Of what is decoded at once, unpacked."""

MAX_SHARD_CHUNKS = 2**20
"""Chunks in one shard: its index has 16 bytes for each."""

ARRAY_CODECS = (["bytes"], ["bytes", "zstd"], ["bytes", "zstd", "crc32c"], ["bytes", "crc32c"])
"""What a chunk may be packed with, besides shards around it; `wsiseg.tissue_map.codecs` unpacks these within bounds."""


def check_files(folder: Path) -> None:
    """Raise `MapError` where a store holds anything but files and folders of its own, or too long a `zarr.json`.

    A link may lead anywhere, and a pipe would be waited for without end.
    """
    stack = [folder]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    stack.append(Path(entry.path))
                elif not stat.S_ISREG(mode):
                    raise MapError(f"{entry.path} is a link, a pipe or a device; a map holds files only, copy it whole")
                elif entry.name == "zarr.json":
                    path = Path(entry.path)
                    check_length(path, entry.stat().st_size)
                    check_node(path, path.read_bytes())


def check_length(path: Path, length: int) -> None:
    """Raise `MapError` on too long a `zarr.json`, before it is read."""
    if length > MAX_META_BYTES:
        raise MapError(f"{path} has {length} bytes, expected at most {MAX_META_BYTES}; the map is damaged")


def check_node(path: Path, content: bytes) -> None:
    """Bounds of one group or array, before Zarr looks at it."""
    try:
        node = json.loads(content)
        is_array = node.get("node_type") == "array"
        if node.get("zarr_format") != 3 or not (is_array or node.get("node_type") == "group"):
            raise _damaged(path, "it is not a group or array of Zarr 3")
        if is_array:
            _check_array(path, node)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _check_array(path: Path, node: Mapping[str, Any]) -> None:
    shape = _sizes(path, node["shape"], MAX_SIDE_PX)
    outer = _sizes(path, node["chunk_grid"]["configuration"]["chunk_shape"], MAX_SIDE_PX)
    if node["data_type"] != "uint8":
        raise _damaged(path, f"values are {node['data_type']!r:.40}, expected uint8")
    if node.get("storage_transformers"):
        raise _damaged(path, "it has storage transformers")
    codecs, inner = node["codecs"], outer
    if codecs[0]["name"] == "sharding_indexed":
        if len(codecs) != 1:
            raise _damaged(path, "codecs follow that of shards")
        options = codecs[0]["configuration"]
        inner = _sizes(path, options["chunk_shape"], MAX_SIDE_PX)
        codecs = options["codecs"]
        if [codec["name"] for codec in options["index_codecs"]] != ["bytes", "crc32c"]:
            raise _damaged(path, "the index of shards is packed")
        chunks = math.prod(ceil_div(o, i) for o, i in zip(outer, inner, strict=False))
        if len(inner) != len(outer) or chunks > MAX_SHARD_CHUNKS:
            raise _damaged(path, f"shards of {outer} in chunks of {inner}")
    names = [codec["name"] for codec in codecs]
    if names not in ARRAY_CODECS:
        raise _damaged(path, f"unknown codecs {names!r:.100}")
    if not len(shape) == len(outer) or math.prod(inner) > MAX_CHUNK_BYTES:
        raise _damaged(path, f"an array of {shape} in chunks of {inner}")


def _sizes(path: Path, values: Any, most: int) -> list[int]:
    if not isinstance(values, list) or not 2 <= len(values) <= 3:
        raise _damaged(path, f"a shape of two or three sizes is expected, got {values!r:.60}")
    for value in values:
        if not is_whole(value) or not 1 <= value <= most:
            raise _damaged(path, f"sizes must be whole numbers from 1 to {most}, got {value!r:.40}")
    return values


def check_grid(path: Path, grid: Grid) -> None:
    """Raise `MapError` on a grid that no slide can have."""
    numbers = (grid.mpp.x, grid.mpp.y, grid.step_x, grid.step_y, grid.zoom_x, grid.zoom_y)
    if not all(math.isfinite(value) and 1 / MAX_STEP <= value <= MAX_STEP for value in numbers):
        raise _damaged(path, f"its grid has impossible steps, {numbers!r:.100}")
    if not 0 <= grid.level < 64 or not all(1 <= side <= MAX_SIDE_PX for side in grid.size.shape):
        raise _damaged(path, f"its grid has an impossible size, {grid.size}, or level, {grid.level}")


def check_metadata(path: Path, own: Mapping[str, Any]) -> None:
    """Raise `MapError` where what a map says of slide, model and areas is of another kind than it is used as."""
    for part, keys in (("slide", ("name", "quick_hash")), ("model", ("hash",))):
        if not isinstance(own[part], dict) or not all(_is_text(own[part].get(key)) for key in keys):
            raise _damaged(path, f"{part} must have {' and '.join(keys)}")
    for key in ("width", "height"):
        value = own["slide"].get(key, 1)
        if not is_whole(value) or not 1 <= value < 2**63:
            raise _damaged(path, f"the slide's {key} must be a whole number from 1, got {value!r:.40}")
    try:
        ProbabilityLevels.from_json(own.get("probabilities", False))
    except OptionError as error:
        raise _damaged(path, str(error)) from error
    for row in own.get("areas", []) if isinstance(own.get("areas", []), list) else [None]:
        if not isinstance(row, dict) or not _is_text(row.get("name")):
            raise _damaged(path, "areas must be a list of classes with their names")
        for key in ("area_mm2", "share", "mean_probability"):
            if not is_number(row.get(key)):
                raise _damaged(path, f"an area's {key} must be a number")
    for key in ("tissue_mm2", "white_mm2", "unread_mm2"):
        if not is_number(own.get(key, 0)):
            raise _damaged(path, f"{key} must be a number")


def require_areas(path: Path, own: Mapping[str, Any]) -> None:
    """Raise `MapError` on a map without areas."""
    for key in ("areas", "tissue_mm2", "unread_mm2"):
        if key not in own:
            raise _damaged(path, f"it says nothing of its {key}")


def check_levels(path: Path, shapes: list[tuple[int, ...]], size: Size, lead: tuple[int, ...]) -> None:
    """Raise `MapError` where a pyramid's levels are not each half of the one before."""
    for level, shape in enumerate(shapes):
        wanted = (*lead, ceil_div(size.height, 2**level), ceil_div(size.width, 2**level))
        if tuple(shape) != wanted:
            raise _damaged(path, f"level {level} is of {tuple(shape)}, expected {wanted}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 4096 and _is_encodable(value)


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _damaged(path: Path, why: str) -> MapError:
    return MapError(f"{path} is damaged: {' '.join(why.split())[:300]}; write the map anew")
