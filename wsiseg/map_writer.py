"""Writing a tissue map: blocks in from top to bottom, whole shards out, then the pyramid, then the name.

A store is written under a temporary name beside its own and renamed when all of it is there, so that a store with
its final name is always whole. Memory: a row of shards of the class map and the probabilities (two while a block
reaches over their border), whatever the map's height. No shard is written twice: two writers in one shard lose data.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from wsiseg.blending import Block
from wsiseg.classes import ClassTable
from wsiseg.errors import OutputError, WsisegError
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.ome import LABELS, MAP_FORMAT, grid_to_json, image_attributes, label_attributes, level_sizes
from wsiseg.outputs import check_map, put_folder

CHUNK_PX = 512
SHARD_PX = 4096
ROW_BYTES = 128 * 2**20
"""Most that one row of shards may take in memory, all arrays together; wide maps get flatter shards."""

UInt8Array = npt.NDArray[np.uint8]
ZarrArray = zarr.Array[Any]


def shard_height_px(width: int, channels: int, row_bytes: int = ROW_BYTES) -> int:
    """Height of a shard, a multiple of the chunk's, such that a row of shards of `channels` arrays fits `row_bytes`."""
    fitting = row_bytes // (max(width, 1) * channels) // CHUNK_PX * CHUNK_PX
    return int(min(SHARD_PX, max(CHUNK_PX, fitting)))


class MapWriter:
    """Writes one tissue map. A context manager: leaving it before `commit` removes what was written.

    Args:
        path: the store's final name.
        classes: the class table.
        grid: the map's grid.
        probabilities: whether probabilities are kept. Without them the root image is a picture of the slide, to be
            given by `write_picture`.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, path: Path, classes: ClassTable, grid: Grid, *, probabilities: bool = True) -> None:
        self.path = path
        self.classes = classes
        self.grid = grid
        self.probabilities = probabilities
        self.sizes = level_sizes(grid.size)
        self._shard_px = shard_height_px(grid.size.width, 1 + (len(classes) if probabilities else 0))
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        except OSError as error:
            raise OutputError(f"cannot write into {path.parent}: {error.strerror}; choose another folder") from error
        try:
            self.folder.chmod(0o755)  # mkdtemp makes it private, a map is as public as its folder
            self.root = zarr.open_group(self.folder, mode="w", zarr_format=3)
            self.labels = self.root.create_group("labels").create_group(LABELS)
            self._class_map = self._create(self.labels, 0, self.sizes[0])
            self._probability_map = self._create(self.root, 0, self.sizes[0], len(classes)) if probabilities else None
        except BaseException as error:  # an interrupt as well
            shutil.rmtree(self.folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise _cannot_write(path, error) from error
            raise
        self._rows: dict[int, _ShardRow] = {}

    def _create(self, group: zarr.Group, level: int, size: Size, channels: int = 0) -> ZarrArray:
        """The array of one level: (y, x), or (c, y, x) with channels."""
        lead = (channels,) if channels else ()
        height, width = (-(-length // CHUNK_PX) * CHUNK_PX for length in size.shape)
        return group.create_array(
            str(level),
            shape=(*lead, *size.shape),
            chunks=(*(1 for _ in lead), CHUNK_PX, CHUNK_PX),
            shards=(*lead, min(self._shard_px, height), min(SHARD_PX, width)),
            dtype="uint8",
            fill_value=0,
            compressors=ZstdCodec(level=3),
            dimension_names=(*("c" for _ in lead), "y", "x"),
        )

    @property
    def picture_factor(self) -> int:
        """Map pixels along a side of a pixel of the picture that replaces probabilities: at most 2048 px of it."""
        factor = 1
        while max(self.grid.size.width, self.grid.size.height) > 2048 * factor:
            factor *= 2
        return factor

    def write(self, block: Block, tissue: npt.NDArray[np.bool_]) -> UInt8Array:
        """Take a finished block. Blocks come from top to bottom; those of the same rows in any order.

        Args:
            block: as the `Blender` hands it out.
            tissue: (height, width) bool. Where it is false, or nothing was read, the class and all probabilities
                are 0.

        Returns:
            (height, width) uint8: the classes of the block.
        """
        keep = block.covered & tissue
        classes: UInt8Array = (block.probabilities.argmax(axis=0) + 1).astype(np.uint8)
        classes[~keep] = 0
        values = np.rint(block.probabilities * 255).astype(np.uint8)
        values[:, ~keep] = 0
        for index in [i for i in self._rows if (i + 1) * self._shard_px <= block.box.y]:
            self._flush(index)
        for index in range(block.box.y // self._shard_px, -(-block.box.bottom // self._shard_px)):
            row = self._shard_row(index)
            part = block.box.intersect(row.box)
            source, target = part.slices(block.box), part.slices(row.box)
            row.classes[target] = classes[source]
            if row.probabilities is not None:
                row.probabilities[:, target[0], target[1]] = values[:, source[0], source[1]]
        return classes

    def _shard_row(self, index: int) -> _ShardRow:
        if index not in self._rows:
            size = self.grid.size
            top = index * self._shard_px
            box = Box(0, top, size.width, min(self._shard_px, size.height - top))
            self._rows[index] = _ShardRow.empty(box, len(self.classes) if self.probabilities else 0)
        return self._rows[index]

    def _flush(self, index: int) -> None:
        row = self._rows.pop(index)
        self._class_map[row.box.y : row.box.bottom] = row.classes
        if self._probability_map is not None and row.probabilities is not None:
            self._probability_map[:, row.box.y : row.box.bottom] = row.probabilities

    def finish_levels(self) -> Iterator[int]:
        """Write what is still in memory, then the coarser levels; yields each level that is done."""
        for index in sorted(self._rows):
            self._flush(index)
        yield 0
        for level in range(1, len(self.sizes)):
            target = self._create(self.labels, level, self.sizes[level])
            _halve(_array(self.labels, level - 1), target, nearest=True)
            if self.probabilities:
                target = self._create(self.root, level, self.sizes[level], len(self.classes))
                _halve(_array(self.root, level - 1), target, nearest=False)
            yield level

    def write_picture(self, picture: UInt8Array, mpp: Mpp) -> None:
        """A picture of the slide (height, width, 3) as the root image of a map without probabilities.

        It gets as many levels as the class map, as the specification demands; `mpp` is that of its first one.
        """
        size = Size(picture.shape[1], picture.shape[0])
        mpps = []
        for level in range(len(self.sizes)):
            array = self._create(self.root, level, size, 3)
            if level:
                _halve(_array(self.root, level - 1), array, nearest=False)
            else:
                array[:] = picture.transpose(2, 0, 1)
            mpps.append(mpp.times(2**level))
            size = Size(-(-size.width // 2), -(-size.height // 2))
        channels = [("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF")]
        self.root.attrs["ome"] = image_attributes(self.path.stem, mpps, channels)

    def commit(self, provenance: dict[str, Any], overwrite: bool = False) -> None:
        """Write the metadata and give the store its name.

        Args:
            provenance: the tool's own metadata, plain JSON values.
            overwrite: replace a tissue map of that name.
        """
        mpps = [self.grid.mpp.times(2**level) for level in range(len(self.sizes))]
        if self.probabilities:
            channels = [(c.name, c.hex_color) for c in self.classes]
            self.root.attrs["ome"] = image_attributes(self.path.stem, mpps, channels)
        self.labels.attrs["ome"] = label_attributes(self.classes, mpps)
        listed = _group(self.root, "labels")
        listed.attrs.update({"ome": {"version": "0.5", "labels": [LABELS]}, "labels": [LABELS]})
        self.root.attrs["wsiseg"] = {
            "format": MAP_FORMAT,
            "classes": self.classes.to_json(),
            "grid": grid_to_json(self.grid),
            "probabilities": self.probabilities,
            **provenance,
        }
        check_map(self.path, overwrite)  # somebody else may have made it meanwhile
        put_folder(self.folder, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # renamed by then if all went well
        if isinstance(error, OSError) and not isinstance(error, WsisegError):
            raise _cannot_write(self.path, error) from error


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}; make room, or choose another folder")


class _ShardRow:
    """One row of shards in memory. Zeroed memory is taken only where it is written, so empty glass costs nothing."""

    def __init__(self, box: Box, classes: UInt8Array, probabilities: UInt8Array | None) -> None:
        self.box = box
        self.classes = classes
        self.probabilities = probabilities

    @classmethod
    def empty(cls, box: Box, channels: int) -> _ShardRow:
        shape = box.size.shape
        return cls(box, np.zeros(shape, np.uint8), np.zeros((channels, *shape), np.uint8) if channels else None)


def _group(parent: zarr.Group, name: str) -> zarr.Group:
    group = parent[name]
    assert isinstance(group, zarr.Group)
    return group


def _array(group: zarr.Group, level: int) -> ZarrArray:
    array = group[str(level)]
    assert isinstance(array, zarr.Array)
    return array


def _halve(fine: ZarrArray, coarse: ZarrArray, *, nearest: bool) -> None:
    """Fill `coarse` from `fine`, shard by shard and channel by channel.

    The upper left of four pixels, or their mean (rounded half up) over those that lie inside the map.
    """
    height, width = coarse.shards[-2:] if coarse.shards else coarse.shape[-2:]
    for y in range(0, coarse.shape[-2], height):
        for x in range(0, coarse.shape[-1], width):
            box = Box(x, y, width, height).intersect(Box(0, 0, coarse.shape[-1], coarse.shape[-2]))
            source = (slice(2 * box.y, 2 * box.bottom), slice(2 * box.x, 2 * box.right))
            if fine.ndim == 2:
                coarse[box.slices()] = _halved(np.asarray(fine[source]), nearest)
            else:
                # All channels lie in one shard, which must be written at once.
                parts = [_halved(np.asarray(fine[(c, *source)]), nearest) for c in range(fine.shape[0])]
                coarse[(slice(None), *box.slices())] = np.stack(parts)


def _halved(pixels: UInt8Array, nearest: bool) -> UInt8Array:
    """(ceil(h / 2), ceil(w / 2)) of (h, w) uint8."""
    if nearest or not pixels.any():
        return np.ascontiguousarray(pixels[::2, ::2])
    odd_height, odd_width = pixels.shape[0] % 2, pixels.shape[1] % 2
    even = np.pad(pixels, ((0, odd_height), (0, odd_width)), mode="edge") if odd_height or odd_width else pixels
    rows = even[::2].astype(np.uint16) + even[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
