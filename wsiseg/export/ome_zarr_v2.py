"""OME-Zarr 0.4 (Zarr 2) for readers that have no 0.5: Bio-Formats and QuPath, OMERO, large_image, older napari.

The root is the class map as a picture, since those readers know no labels, or leave them out; the labels are beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Zlib

from wsiseg.classes import WHITE_VALUE
from wsiseg.export.facts import key_values, map_name
from wsiseg.export.picture import class_colors
from wsiseg.geometry import Size, ceil_div
from wsiseg.polygons.class_map import blocks
from wsiseg.system.files import check_store, whole_folder
from wsiseg.system.json_values import JsonObject
from wsiseg.system.printable import printable
from wsiseg.tissue_map.ome import LABELS, omero
from wsiseg.tissue_map.placement import Transform
from wsiseg.tissue_map.reader import TissueMap

VERSION = "0.4"

CHUNK_PX, MOST_CHUNK_PX = 1024, 4096
"""Side of a chunk, and the most that it grows to so that there are few enough of them."""

PLANES = 4
"""Red, green, blue, and the labels: chunks at each place."""

MOST_FILES = 20_000
"""Chunks at most, as long as they are no larger than `MOST_CHUNK_PX`: Zarr 2 has a file for each."""

KIND = "store in OME-Zarr 0.4"

OWN = "wsiseg_export"
"""Key of this program's own attributes, by which an export is told from anybody's folder."""


@dataclass(frozen=True, slots=True)
class WrittenZarr:
    """What a store in OME-Zarr 0.4 holds.

    Attributes:
        files: how many.
        bytes: of all of them.
        levels: of the pyramid.
        chunk_px: side of a chunk.
    """

    files: int
    bytes: int
    levels: int
    chunk_px: int


def export_ome_zarr_v2(tissue_map: TissueMap, path: str | Path, *, overwrite: bool = False) -> WrittenZarr:
    """Write a class map as OME-Zarr 0.4: a picture in the classes' colours, and the classes as its labels.

    Chunks that hold no class have no file. Memory does not depend on the map's size. The folder is complete or absent.

    Args:
        tissue_map: open for reading.
        path: a name that ends in `.zarr`.
        overwrite: replace what is there, if it is such an export.

    Returns:
        What was written.

    Raises:
        OptionError: the name's ending.
        OutputError: it exists, or cannot be written.
        MapError: the map is damaged.
    """
    path = Path(path)
    check_store(path, overwrite, is_export, KIND)
    sizes = [tissue_map.grid.coarsen(2**level) for level in range(tissue_map.levels)]
    chunk = chunk_px(sizes)
    transforms = [tissue_map.transform(level) for level in range(tissue_map.levels)]
    with whole_folder(path) as folder:
        root = zarr.open_group(folder, mode="w", zarr_format=2)
        labels = root.create_group("labels")
        classes = labels.create_group(LABELS)
        for level, size in enumerate(sizes):
            picture = _array(root, level, size, chunk, lead=(3,), fill=255)
            values = _array(classes, level, size, chunk, lead=(), fill=0)
            _write_level(tissue_map, level, size, chunk, picture, values)
        root.attrs.update(_picture_attributes(tissue_map, transforms))
        labels.attrs["labels"] = [LABELS]
        classes.attrs.update(_label_attributes(tissue_map, transforms))
        root.attrs[OWN] = {"format": 1, "wsiseg": version("wsiseg"), **key_values(tissue_map)}
    lengths = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return WrittenZarr(len(lengths), sum(lengths), len(sizes), chunk)


def is_export(path: Path) -> bool:
    """Whether a folder (not a link to one) is what `export_ome_zarr_v2` wrote."""
    if path.is_symlink() or not (path / ".zattrs").is_file():
        return False
    try:
        return OWN in zarr.open_group(path, mode="r", zarr_format=2).attrs
    except Exception:  # Zarr raises whatever it likes on what is no store; then it is none of ours
        return False


def chunk_px(sizes: list[Size]) -> int:
    """The smallest side of chunks, doubled from `CHUNK_PX`, that makes at most `MOST_FILES` of picture and labels."""
    side = CHUNK_PX
    while side < MOST_CHUNK_PX:
        if PLANES * sum(ceil_div(size.width, side) * ceil_div(size.height, side) for size in sizes) <= MOST_FILES:
            break
        side *= 2
    return side


def _array(
    group: zarr.Group, level: int, size: Size, chunk: int, *, lead: tuple[int, ...], fill: int
) -> zarr.Array[Any]:
    height, width = (min(chunk, length) for length in size.shape)
    return group.create_array(
        str(level),
        shape=(*lead, *size.shape),
        chunks=(*(1 for _ in lead), height, width),
        dtype="uint8",
        fill_value=fill,
        # Deflate, since some readers on Java have no other codec without a library of their own.
        compressors=Zlib(level=6),
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": False},
    )


def _write_level(
    tissue_map: TissueMap, level: int, size: Size, chunk: int, picture: zarr.Array[Any], values: zarr.Array[Any]
) -> None:
    """Write one level, chunk by chunk."""
    table = class_colors(tissue_map.classes)
    for box in blocks(size, chunk):
        found = tissue_map.read(box, level)
        if found.any():
            values[box.slices()] = found
            picture[(slice(None), *box.slices())] = np.take(table, found, axis=0).transpose(2, 0, 1)


def _multiscales(name: str, transforms: list[Transform], channels: bool, method: str) -> list[JsonObject]:
    """`multiscales` of an image with the places of the map's own levels."""
    lead: list[JsonObject] = [{"name": "c", "type": "channel"}] if channels else []
    one, none = ([1.0], [0.0]) if channels else ([], [])
    datasets = []
    for level, transform in enumerate(transforms):
        steps: list[JsonObject] = [{"type": "scale", "scale": [*one, *transform.scale]}]
        if any(transform.translation):
            steps.append({"type": "translation", "translation": [*none, *transform.translation]})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    axes = lead + [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    return [{"version": VERSION, "name": name, "axes": axes, "datasets": datasets, "type": method}]


def _picture_attributes(tissue_map: TissueMap, transforms: list[Transform]) -> JsonObject:
    name = map_name(tissue_map)
    colors = (("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF"))
    return {
        "multiscales": _multiscales(name, transforms, True, "labels"),
        "omero": {"id": 1, **omero(name, VERSION, colors)},
    }


def _label_attributes(tissue_map: TissueMap, transforms: list[Transform]) -> JsonObject:
    rows: list[tuple[int, str, list[int]]] = [(0, tissue_map.classes.BACKGROUND, [0, 0, 0, 0])]
    rows += [(c.index, printable(c.name), [*c.color, 255]) for c in tissue_map.classes]
    rows.append((WHITE_VALUE, "White", [255, 255, 255, 0]))
    return {
        "multiscales": _multiscales(LABELS, transforms, False, "labels"),
        "image-label": {
            "version": VERSION,
            "colors": [{"label-value": value, "rgba": rgba} for value, _, rgba in rows],
            "properties": [{"label-value": value, "class": name} for value, name, _ in rows],
            "source": {"image": "../../"},
        },
    }
