"""OME-TIFF for readers that have no OME-Zarr 0.5: QuPath and Bio-Formats, OMERO, Digital Slide Archive, libvips.

One image a file. In a file of several, Bio-Formats takes all for RGB when the first is, and large_image shows the one
it likes. Nor is there a palette: QuPath shows indexed pixels as grey, and large_image refuses them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from wsiseg.arrays import UInt8Array
from wsiseg.errors import OptionError
from wsiseg.export.facts import key_values, map_name
from wsiseg.export.picture import class_colors
from wsiseg.geometry import Box, Size
from wsiseg.system.files import check_file, whole_file
from wsiseg.system.json_values import JsonObject
from wsiseg.system.printable import printable
from wsiseg.tissue_map.finer import probabilities_of
from wsiseg.tissue_map.reader import TissueMap

TiffContent = Literal["colors", "classes", "probabilities"]

SUFFIXES = (".ome.tif", ".ome.tiff")

TILE_PX = 512
"""Side of a tile: that of a map's chunks."""

SPAN_TILES = 8
"""Tiles that are read at once: few calls, and 2 MB of a class map."""

BUFFER_BYTES = 2**24
"""Of tiles that wait to be packed, on all threads together."""

CLASSIC_BYTES = 2**32 - 2**26
"""Pixels of a file that has no need of 64-bit offsets, however badly they pack."""

LEAST_UM = 1e-4
"""Of a pixel that the resolution tags, of 32 bits, can state; no slide has such."""

OMERO_NAMESPACE = "openmicroscopy.org/omero/client/mapAnnotation"
"""Key-value pairs with it are shown beside the image in OMERO."""

_IDS = uuid.UUID("6f6f3a3c-3ac3-5d0e-9a84-5b2f8d1c7a11")


@dataclass(frozen=True, slots=True)
class _Content:
    """The pixels and names of one file.

    Attributes:
        pages: how many pages a level has, one a channel.
        samples: values a pixel has in each.
        read: (page, box, level) gives (height, width) or (height, width, 3) uint8.
        axes: as OME-XML names them.
        levels: of the map.
        names: of the channels; none for colours.
        colors: of the channels, as `_rgba` has them.
    """

    pages: int
    samples: int
    read: Callable[[int, Box, int], UInt8Array]
    axes: str
    levels: range
    names: Sequence[str] = ()
    colors: Sequence[int] = ()

    def to_json(self) -> JsonObject:
        """What tifffile makes OME-XML of."""
        channels = {"Name": list(self.names), "Color": list(self.colors)}
        told = {key: values for key, values in channels.items() if values}
        return {"axes": self.axes, **({"Channel": told} if told else {})}


@dataclass(frozen=True, slots=True)
class WrittenTiff:
    """What an OME-TIFF holds.

    Attributes:
        levels: of its pyramid.
        width: of the finest, in pixels.
        height: likewise.
        bytes: of the file.
    """

    levels: int
    width: int
    height: int
    bytes: int


def export_ome_tiff(
    tissue_map: TissueMap, path: str | Path, content: TiffContent = "colors", *, overwrite: bool = False
) -> WrittenTiff:
    """Write a map as an OME-TIFF: a pyramid of the map's own levels, in tiles with deflate, with pixel size and names.

    Memory does not depend on the map's size. The file is complete or absent.

    Args:
        tissue_map: open for reading.
        path: `.ome.tif` or `.ome.tiff`.
        content: "colors" is the class map as an RGB picture, what has no class being white; "classes" its values (0 is
            not tissue or not read, 255 is white); "probabilities" one channel for each class, 255 is 1.0, at the levels
            at which the map keeps them.
        overwrite: replace existing output.

    Returns:
        What was written.

    Raises:
        OptionError: the name has the wrong ending, or the map has no probabilities.
        OutputError: the file exists, or cannot be written.
        MapError: the map is damaged.
    """
    path = Path(path)
    check_file(path, SUFFIXES, overwrite)
    made = _content(tissue_map, content)
    with whole_file(path) as temporary:
        _write(temporary, tissue_map, made, content)
    size = tissue_map.grid.coarsen(2 ** made.levels[0])
    return WrittenTiff(len(made.levels), size.width, size.height, path.stat().st_size)


def _content(tissue_map: TissueMap, content: TiffContent) -> _Content:
    levels = range(tissue_map.levels)
    if content == "colors":
        table = class_colors(tissue_map.classes)
        return _Content(1, 3, lambda _, box, level: np.take(table, tissue_map.read(box, level), axis=0), "YXS", levels)
    if content == "classes":
        return _Content(1, 1, lambda _, box, level: tissue_map.read(box, level), "YX", levels, ["class"])
    if content != "probabilities":
        raise OptionError(f"an OME-TIFF holds {', '.join(get_args(TiffContent))}, got {content!r:.40}")
    probabilities_of(tissue_map)  # refused before a file is begun
    return _Content(
        len(tissue_map.classes),
        1,
        lambda page, box, level: tissue_map.read_probability(page + 1, box, level),
        "CYX",
        tissue_map.levels_with_probabilities,
        [printable(c.name) for c in tissue_map.classes],
        [_rgba(c.color) for c in tissue_map.classes],
    )


def _write(path: Path, tissue_map: TissueMap, made: _Content, content: str) -> None:
    import tifffile  # noqa: PLC0415  (only this needs it)

    sizes = [tissue_map.grid.coarsen(2**level) for level in made.levels]
    big = sum(size.area for size in sizes) * made.pages * made.samples > CLASSIC_BYTES
    with tifffile.TiffWriter(path, bigtiff=big, ome=True) as file:
        for index, (level, size) in enumerate(zip(made.levels, sizes, strict=True)):
            mpp = tissue_map.mpp.times(2**level)
            lead = [made.pages] if made.axes.startswith("C") else []  # also of a model of one class
            shape = (*lead, *size.shape, *([3] if made.samples == 3 else []))
            file.write(
                _tiles(made, size, level),
                shape=shape,
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb" if made.samples == 3 else "minisblack",
                planarconfig="contig" if made.samples == 3 else None,
                compression="zlib",
                subifds=len(sizes) - 1 if index == 0 else None,
                subfiletype=1 if index else 0,
                resolution=(1e4 / mpp.x, 1e4 / mpp.y) if min(mpp.x, mpp.y) > LEAST_UM else None,
                resolutionunit="CENTIMETER",
                software=f"wsiseg {version('wsiseg')}" if index == 0 else False,
                metadata=_ome(tissue_map, made, content) if index == 0 else None,
                buffersize=BUFFER_BYTES,
            )


def _tiles(made: _Content, size: Size, level: int) -> Iterator[UInt8Array]:
    """The tiles of a level in a file's order: page by page, row by row; those at its ends have the pixels there are."""
    whole = Box.from_size(size)
    span = SPAN_TILES * TILE_PX
    for page in range(made.pages):
        for y in range(0, size.height, TILE_PX):
            for x in range(0, size.width, span):
                pixels = made.read(page, Box(x, y, span, TILE_PX).intersect(whole), level)
                for left in range(0, pixels.shape[1], TILE_PX):
                    yield _filled(pixels[:, left : left + TILE_PX])


def _filled(tile: UInt8Array) -> UInt8Array:
    """A whole tile, its last column and row repeated behind the end of the level."""
    missing = [(0, TILE_PX - tile.shape[0]), (0, TILE_PX - tile.shape[1])] + [(0, 0)] * (tile.ndim - 2)
    return np.pad(tile, missing, mode="edge") if any(after for _, after in missing) else tile


def _ome(tissue_map: TissueMap, made: _Content, content: str) -> JsonObject:
    """The metadata of the file, in tifffile's words for OME-XML."""
    mpp = tissue_map.mpp.times(2 ** made.levels[0])
    slide, model = tissue_map.metadata["slide"], tissue_map.metadata["model"]
    identity = f"{slide['quick_hash']} {model['hash']} {content}"
    pairs = key_values(tissue_map)
    return {
        **made.to_json(),
        "Name": f"{map_name(tissue_map)}: {content}",
        "Creator": f"wsiseg {version('wsiseg')}",
        "UUID": str(uuid.uuid5(_IDS, identity)),
        "PhysicalSizeX": mpp.x,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp.y,
        "PhysicalSizeYUnit": "µm",
        "Description": "; ".join(f"{key}: {value}" for key, value in pairs.items()),
        "MapAnnotation": {"Namespace": OMERO_NAMESPACE, "Value": pairs},
    }


def _rgba(color: tuple[int, int, int]) -> int:
    """A colour as OME-XML has it: a signed 32-bit number of red, green, blue and alpha."""
    red, green, blue = color
    return int(np.array((red << 24) | (green << 16) | (blue << 8) | 255, np.uint32).astype(np.int32))
