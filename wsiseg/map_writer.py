"""Writing a tissue map: whole pieces in, each a shard of the store, then the pyramid, then the metadata.

A store is written in the folder of an unfinished run and gets its final name when all of it is there, so that a store
with its final name is always whole. No shard is written by two, so pieces may come in any order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from wsiseg.classes import ClassTable
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.journal import sync_path, sync_tree
from wsiseg.memory import CHUNK_PX, trim_memory
from wsiseg.ome import LABELS, MAP_FORMAT, grid_to_json, image_attributes, label_attributes, level_sizes
from wsiseg.outputs import cannot_write
from wsiseg.shards import shard_shape, shards_in

UInt8Array = npt.NDArray[np.uint8]
ZarrArray = zarr.Array[Any]


class MapWriter:
    """Writes one tissue map, or goes on with one.

    Args:
        store: the folder of the store; what an earlier run wrote there stays.
        classes: the class table.
        grid: the map's grid.
        piece_px: side of a piece of the map, a multiple of the chunk's.
        probabilities: whether probabilities are kept. Without them the root image is a picture of the slide, to be
            given by `write_picture`.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(
        self, store: Path, classes: ClassTable, grid: Grid, piece_px: int, *, probabilities: bool = True
    ) -> None:
        self.store = store
        self.classes = classes
        self.grid = grid
        self.piece_px = piece_px
        self.probabilities = probabilities
        self.sizes = level_sizes(grid.size)
        with cannot_write(store):
            self.root = zarr.open_group(store, mode="a", zarr_format=3)
            self.labels = self.root.require_group("labels").require_group(LABELS)
            self._class_map = self._array(self.labels, 0, self.sizes[0])
            self._probability_map = self._array(self.root, 0, self.sizes[0], len(classes)) if probabilities else None

    def _array(self, group: zarr.Group, level: int, size: Size, channels: int = 0) -> ZarrArray:
        """The array of one level, made if it is not there: (y, x), or (c, y, x) with channels."""
        if str(level) in group:
            return _level(group, level)
        lead = (channels,) if channels else ()
        height, width = (-(-length // CHUNK_PX) * CHUNK_PX for length in size.shape)
        return group.create_array(
            str(level),
            shape=(*lead, *size.shape),
            chunks=(*(1 for _ in lead), CHUNK_PX, CHUNK_PX),
            shards=(*lead, min(self.piece_px, height), min(self.piece_px, width)),
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

    def write(self, box: Box, classes: UInt8Array, values: UInt8Array) -> None:
        """Write a piece, and see it onto the disk.

        Args:
            box: its place: a whole cell of the map's pieces.
            classes: (height, width) uint8.
            values: (K, height, width) uint8; left out where probabilities are not kept.
        """
        with cannot_write(self.store):
            self._class_map[box.slices()] = classes
            if self._probability_map is not None:
                self._probability_map[(slice(None), *box.slices())] = values
            for path in self._shards(box):
                if path.exists():
                    sync_path(path)
                    sync_path(path.parent)

    def sizes_on_disk(self, box: Box) -> list[int]:
        """Bytes of the piece's shards, 0 for one that is all zero and so has no file."""
        return [path.stat().st_size if path.exists() else 0 for path in self._shards(box)]

    def _shards(self, box: Box) -> list[Path]:
        row, column = str(box.y // self.piece_px), str(box.x // self.piece_px)
        paths = [self.store / "labels" / LABELS / "0" / "c" / row / column]
        if self.probabilities:
            paths.append(self.store / "0" / "c" / "0" / row / column)
        return paths

    def write_levels(self, done: Collection[int] = ()) -> Iterator[int]:
        """Write the coarser levels that are not `done`; yields each level when it is there, 0 at once."""
        yield 0
        for level in range(1, len(self.sizes)):
            if level not in done:
                with cannot_write(self.store):
                    target = self._array(self.labels, level, self.sizes[level])
                    _halve(_level(self.labels, level - 1), target, nearest=True)
                    if self.probabilities:
                        target = self._array(self.root, level, self.sizes[level], len(self.classes))
                        _halve(_level(self.root, level - 1), target, nearest=False)
                    for folder in self._level_folders(level):
                        sync_tree(folder)
            yield level

    def _level_folders(self, level: int) -> list[Path]:
        return [self.store / "labels" / LABELS / str(level), *([self.store / str(level)] if self.probabilities else [])]

    def level_on_disk(self, level: int) -> list[int]:
        """Files and bytes of a level, by which one is known that was altered or removed since."""
        sizes = [p.stat().st_size for folder in self._level_folders(level) for p in folder.rglob("*") if p.is_file()]
        return [len(sizes), sum(sizes)]

    def write_picture(self, picture: UInt8Array, mpp: Mpp) -> None:
        """A picture of the slide (height, width, 3) as the root image of a map without probabilities.

        It gets as many levels as the class map, as the specification demands; `mpp` is that of its first one.
        """
        size = Size(picture.shape[1], picture.shape[0])
        mpps = []
        with cannot_write(self.store):
            for level in range(len(self.sizes)):
                array = self._array(self.root, level, size, 3)
                if level:
                    _halve(_level(self.root, level - 1), array, nearest=False)
                else:
                    array[:] = picture.transpose(2, 0, 1)
                mpps.append(mpp.times(2**level))
                size = Size(-(-size.width // 2), -(-size.height // 2))
            channels = [("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF")]
            self.root.attrs["ome"] = image_attributes(self.store.stem, mpps, channels)

    def write_metadata(self, provenance: dict[str, Any]) -> None:
        """Write what the map says of itself; `provenance` is the tool's own, plain JSON values."""
        mpps = [self.grid.mpp.times(2**level) for level in range(len(self.sizes))]
        with cannot_write(self.store):
            if self.probabilities:
                channels = [(c.name, c.hex_color) for c in self.classes]
                self.root.attrs["ome"] = image_attributes(self.store.stem, mpps, channels)
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


def _group(parent: zarr.Group, name: str) -> zarr.Group:
    group = parent[name]
    assert isinstance(group, zarr.Group)
    return group


def _level(group: zarr.Group, level: int) -> ZarrArray:
    array = group[str(level)]
    assert isinstance(array, zarr.Array)
    return array


def _halve(fine: ZarrArray, coarse: ZarrArray, *, nearest: bool) -> None:
    """Fill `coarse` from `fine`, shard by shard.

    The upper left of four pixels, or their mean (rounded half up) over those that lie inside the map. A shard of
    `fine` is all zero where it has no file, and is not read.
    """
    whole = Box(0, 0, coarse.shape[-1], coarse.shape[-2])
    height, width = shard_shape(coarse)
    for y in range(0, whole.height, height):
        for x in range(0, whole.width, width):
            box = Box(x, y, width, height).intersect(whole)
            pixels = _halved_box(fine, box, nearest)
            if pixels is not None:
                coarse[(..., *box.slices())] = pixels
            trim_memory()


def _halved_box(fine: ZarrArray, box: Box, nearest: bool) -> UInt8Array | None:
    """The pixels of a box of the coarser level, (h, w) or (K, h, w); None where all of them are zero."""
    limits = Box(0, 0, fine.shape[-1], fine.shape[-2])
    lead = fine.shape[:-2]
    found = None
    for source in shards_in(fine, Box(2 * box.x, 2 * box.y, 2 * box.width, 2 * box.height).intersect(limits)):
        target = Box(source.x // 2, source.y // 2, -(-source.width // 2), -(-source.height // 2)).slices(box)
        for channel in np.ndindex(lead):
            pixels = np.asarray(fine[(*channel, *source.slices())])
            if pixels.any():
                found = np.zeros((*lead, *box.size.shape), np.uint8) if found is None else found
                found[(*channel, *target)] = _halved(pixels, nearest)
    return found


STRIP_PX = 1024
"""Rows that are halved at once: the intermediate sums take four times as much as the pixels."""


def _halved(pixels: UInt8Array, nearest: bool) -> UInt8Array:
    """(ceil(h / 2), ceil(w / 2)) of (h, w) uint8."""
    if nearest or not pixels.any():
        return np.ascontiguousarray(pixels[::2, ::2])
    return np.concatenate([_means(pixels[y : y + STRIP_PX]) for y in range(0, len(pixels), STRIP_PX)])


def _means(pixels: UInt8Array) -> UInt8Array:
    odd_height, odd_width = pixels.shape[0] % 2, pixels.shape[1] % 2
    even = np.pad(pixels, ((0, odd_height), (0, odd_width)), mode="edge") if odd_height or odd_width else pixels
    rows = even[::2].astype(np.uint16) + even[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
