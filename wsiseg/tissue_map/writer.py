"""Writing a tissue map: whole pieces in, each a shard of the two finest levels, then the others, then the metadata.

A store is written in the folder of an unfinished run and gets its final name when all of it is there, so that a store
with its final name is always whole. Zarr replaces a shard as a whole, so no shard may be written by two pieces. Pieces
are whole shards for this reason, and may come in any order and from several processes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from wsiseg.arrays import BoolArray, UInt8Array
from wsiseg.choices import Probabilities
from wsiseg.classes import ClassTable
from wsiseg.geometry import Box, Grid, Mpp, Size, ceil_div
from wsiseg.system.files import cannot_write, sync_path, sync_tree
from wsiseg.system.json_values import JsonObject
from wsiseg.tissue_map.distance import DISTANCE
from wsiseg.tissue_map.gate import GATE, GateGrid
from wsiseg.tissue_map.level_arrays import ZarrArray, level_of, made_level
from wsiseg.tissue_map.ome import (
    COARSE_FORMAT,
    LABELS,
    MAP_FORMAT,
    UNREAD,
    grid_to_json,
    image_attributes,
    label_attributes,
    level_sizes,
    unread_attributes,
)
from wsiseg.tissue_map.probability_levels import levels_of_choice
from wsiseg.tissue_map.probability_writer import PIECE_LEVELS, ProbabilityWriter
from wsiseg.tissue_map.pyramid import half_box, halve, halved, halved_any

GATE_CHUNK = 256
"""Windows along a side of a chunk of what the gate decided."""

DISTANCE_CHUNK = 2048
"""Side of a chunk of distances."""


class MapWriter:
    """Writes one tissue map, or resumes writing one.

    Args:
        store: the folder of the store; what an earlier run wrote there stays.
        classes: the class table.
        grid: the map's grid.
        piece_px: side of a piece of the map, a multiple of the chunk's.
        probabilities: "full" (or true), "coarse" or "none" (or false). Without them the root image is a picture of the
            slide, to be given by `write_picture`.
        unread: whether the map records what could not be read.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(
        self,
        store: Path,
        classes: ClassTable,
        grid: Grid,
        piece_px: int,
        *,
        probabilities: Probabilities | bool = "full",
        unread: bool = False,
    ) -> None:
        self.store = store
        self.classes = classes
        self.grid = grid
        self.piece_px = piece_px
        self.unread = unread
        self.gate: GateGrid | None = None
        self.sizes = level_sizes(grid.size)
        with cannot_write(store):
            self.root = zarr.open_group(store, mode="a", zarr_format=3)
            self.labels = self.root.require_group("labels").require_group(LABELS)
            self._class_maps = self._piece_levels(self.labels)
            self._unread_maps = self._piece_levels(self._unread_group()) if unread else []
            kept = levels_of_choice(probabilities)
            self._probabilities = (
                None if kept is None else ProbabilityWriter(self.root, store, len(classes), grid, piece_px, kept)
            )
            if self._probabilities is not None:
                self._probabilities.make_arrays(len(self.sizes))

    def _piece_levels(self, group: zarr.Group) -> list[ZarrArray]:
        return [self._array(group, level, size) for level, size in enumerate(self.sizes[:PIECE_LEVELS])]

    def _unread_group(self) -> zarr.Group:
        return self.root.require_group("labels").require_group(UNREAD)

    def _array(self, group: zarr.Group, level: int, size: Size, channels: int = 0) -> ZarrArray:
        """The array of one level, made if it is not there: (y, x), or (c, y, x) with channels."""
        return made_level(group, level, size, self._shard_px(level), channels)

    def _shard_px(self, level: int) -> int:
        """Side of a level's shards: a piece each on those that pieces bring with them, as much memory on others."""
        return self.piece_px // 2**level if level < PIECE_LEVELS else self.piece_px

    @property
    def picture_factor(self) -> int:
        """Map pixels along a side of a pixel of the picture that replaces probabilities: at most 2048 px of it."""
        factor = 1
        while max(self.grid.size.width, self.grid.size.height) > 2048 * factor:
            factor *= 2
        return factor

    def write(self, piece: Box, classes: UInt8Array, values: UInt8Array, unread: BoolArray | None = None) -> None:
        """Write a piece on its levels, and see it onto the disk.

        Args:
            piece: its place: a whole cell of the map's pieces.
            classes: (height, width) uint8.
            values: (K, height, width) uint8; not written where probabilities are not kept.
            unread: (height, width) bool, what of the tissue could not be read; None where the map does not record it.
        """
        box = piece
        with cannot_write(self.store):
            for level in range(len(self._class_maps)):
                if level:  # the corner of a piece is a multiple of the chunk, so that four divides it, see `halved`
                    box, classes = half_box(box), halved(classes, labels=True)
                self._class_maps[level][box.slices()] = classes
            if self._probabilities is not None:
                self._probabilities.put(piece, values, len(self.sizes))
            if self.unread and unread is not None:
                self._put_unread(piece, unread)
            for path in self._shards(piece):
                if path.exists():
                    sync_path(path)
                    sync_path(path.parent)

    def write_unread(self, piece: Box, unread: BoolArray) -> None:
        """Write what could not be read of a piece that holds nothing else; see `write`."""
        with cannot_write(self.store):
            self._put_unread(piece, unread)

    def _put_unread(self, piece: Box, unread: BoolArray) -> None:
        box, flags = piece, unread.astype(np.uint8)
        for level, array in enumerate(self._unread_maps):
            if level:
                box, flags = half_box(box), halved_any(flags)
            array[box.slices()] = flags

    def sizes_on_disk(self, piece: Box) -> list[int]:
        """Bytes of the piece's shards, 0 for one that is all zero and so has no file."""
        return [path.stat().st_size if path.exists() else 0 for path in self._shards(piece)]

    def _shards(self, piece: Box) -> list[Path]:
        # Zarr's own names of the files; `wsiseg.tissue_map.shards` goes by the same.
        row, column = str(piece.y // self.piece_px), str(piece.x // self.piece_px)
        paths = []
        for level in range(len(self._class_maps)):
            paths.append(self.store / "labels" / LABELS / str(level) / "c" / row / column)
            if self._probabilities is not None:
                shard = self._probabilities.shard(level, piece.y // self.piece_px, piece.x // self.piece_px)
                paths += [] if shard is None else [shard]
            if self.unread:
                paths.append(self.store / "labels" / UNREAD / str(level) / "c" / row / column)
        return paths

    def write_levels(self, done: Collection[int] = ()) -> Iterator[int]:
        """Write the levels that no piece brought and that are not `done`; yields each level when it is there."""
        for level in range(len(self.sizes)):
            if self.is_later(level) and level not in done:
                with cannot_write(self.store):
                    self._write_level(level)
                    for folder in self._later_folders(level):
                        sync_tree(folder)
            yield level

    def is_later(self, level: int) -> bool:
        """Whether anything of a level is written by `write_levels`, and not with the pieces."""
        return level >= PIECE_LEVELS or self._has_later_probabilities(level)

    def _has_later_probabilities(self, level: int) -> bool:
        return self._probabilities is not None and level >= self._probabilities.piece_levels

    def _write_level(self, level: int) -> None:
        if self._probabilities is not None and self._has_later_probabilities(level):
            self._probabilities.make(level)
        if level < PIECE_LEVELS:
            return
        halve(level_of(self.labels, level - 1), self._array(self.labels, level, self.sizes[level]), labels=True)
        if self.unread:
            group = self._unread_group()
            halve(level_of(group, level - 1), self._array(group, level, self.sizes[level]), reduced=halved_any)

    def _later_folders(self, level: int) -> list[Path]:
        folders = [self.store / str(level)] if self._has_later_probabilities(level) else []
        if level < PIECE_LEVELS:
            return folders
        folders.append(self.store / "labels" / LABELS / str(level))
        return folders + ([self.store / "labels" / UNREAD / str(level)] if self.unread else [])

    def level_on_disk(self, level: int) -> list[int]:
        """Files and bytes of a level, by which one is known that was altered or removed since."""
        sizes = [p.stat().st_size for folder in self._later_folders(level) for p in folder.rglob("*") if p.is_file()]
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
                    halve(level_of(self.root, level - 1), array, labels=False)
                else:
                    array[:] = picture.transpose(2, 0, 1)
                mpps.append(mpp.times(2**level))
                size = Size(ceil_div(size.width, 2), ceil_div(size.height, 2))
            channels = [("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF")]
            self.root.attrs["ome"] = image_attributes(self.store.stem, mpps, channels, self.grid.mpp)

    def write_distances(self, values: UInt8Array) -> None:
        """Write how far each patch is from the model's training data, (rows, columns) uint8."""
        with cannot_write(self.store):
            array = self.root.require_group(DISTANCE).create_array(
                "0",
                shape=values.shape,
                chunks=tuple(min(side, DISTANCE_CHUNK) for side in values.shape),
                dtype="uint8",
                fill_value=0,
                compressors=ZstdCodec(level=3),
                dimension_names=("y", "x"),
                overwrite=True,
            )
            array[:] = values

    def classes_of(self, level: int, box: Box) -> UInt8Array:
        """The classes of a box of a level that is written, (height, width) uint8."""
        return np.asarray(level_of(self.labels, level)[box.slices()])

    def write_gate(self, grid: GateGrid, decisions: Iterable[UInt8Array]) -> None:
        """Write where the gate shut what: decisions (rows, columns) of its windows, class by class."""
        self.gate = grid
        chunk = GATE_CHUNK
        shard = (min(4 * chunk, ceil_div(side, chunk) * chunk) for side in (grid.rows, grid.columns))
        with cannot_write(self.store):
            array = self.root.require_group(GATE).create_array(
                "0",
                shape=(len(self.classes), grid.rows, grid.columns),
                chunks=(1, chunk, chunk),
                shards=(1, *shard),
                dtype="uint8",
                fill_value=0,
                compressors=ZstdCodec(level=3),
                dimension_names=("c", "y", "x"),
                overwrite=True,  # of a run that died as it wrote it
            )
            for channel, found in enumerate(decisions):
                array[channel] = found

    def write_metadata(self, provenance: JsonObject) -> None:
        """Write what the map says of itself; `provenance` is the tool's own, plain JSON values."""
        mpps = [self.grid.mpp.times(2**level) for level in range(len(self.sizes))]
        with cannot_write(self.store):
            kept = None if self._probabilities is None else self._probabilities.kept
            if kept is not None:
                channels = [(c.name, c.hex_color) for c in self.classes]
                image = [mpp.times(kept.factor) for mpp in mpps]
                self.root.attrs["ome"] = image_attributes(self.store.stem, image, channels, self.grid.mpp)
            self.labels.attrs["ome"] = label_attributes(self.classes, mpps)
            listed = _group(self.root, "labels")
            names = [LABELS, *([UNREAD] if self.unread else [])]
            listed.attrs.update({"ome": {"version": "0.5", "labels": names}, "labels": names})
            if self.unread:
                self._unread_group().attrs["ome"] = unread_attributes(mpps)
            self.root.attrs["wsiseg"] = {
                "format": COARSE_FORMAT if kept is not None and kept.first else MAP_FORMAT,
                "classes": self.classes.to_json(),
                "grid": grid_to_json(self.grid),
                "probabilities": False if kept is None else kept.to_json(),
                "records": {"unread": self.unread, "gate": None if self.gate is None else self.gate.to_json()},
                **provenance,
            }


def _group(parent: zarr.Group, name: str) -> zarr.Group:
    group = parent[name]
    assert isinstance(group, zarr.Group)
    return group
