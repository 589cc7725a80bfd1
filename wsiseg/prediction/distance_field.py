"""How far each patch of a run is from the model's training data, kept on the disk until the map is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wsiseg.arrays import Float32Array, UInt8Array
from wsiseg.models.distance import TrainingDistance
from wsiseg.prediction.gate_field import reserve
from wsiseg.system.files import cannot_write
from wsiseg.system.json_values import JsonObject
from wsiseg.tiling.grid import Tile, TileGrid
from wsiseg.tissue_map.distance import DISTANCE, LIMIT, DistanceGrid, Far, coded, far_of, strips_of
from wsiseg.tissue_map.writer import MapWriter

DISTANCES = "distances.u8"
"""Name of the file."""


class DistanceField:
    """A number for each patch of the grid, in a file of the unfinished run, which several processes may share.

    Args:
        path: of the file; what an earlier run, or another process, put there is kept.
        tiles: the grid of patches.

    Attributes:
        path: of the file.
        resumed: whether the file was there.
        values: (rows, columns) uint8, as a map holds them; see `wsiseg.tissue_map.distance`.
    """

    def __init__(self, path: Path, tiles: TileGrid) -> None:
        self.path = path
        size = len(tiles)
        self.resumed = path.exists() and path.stat().st_size == size
        if not self.resumed:
            reserve(path, size)
        self._mapped = np.memmap(path, np.uint8, "r+", shape=(tiles.rows, tiles.columns))

    @property
    def values(self) -> UInt8Array:
        """See above."""
        return np.asarray(self._mapped)

    def put(self, patches: Sequence[Tile], distances: Float32Array) -> None:
        """Keep the distances (N,) of patches, in limits."""
        rows, columns = [tile.row for tile in patches], [tile.column for tile in patches]
        self._mapped[rows, columns] = coded(distances)

    def save(self) -> None:
        """Write to the disk what was put."""
        with cannot_write(self.path):
            self._mapped.flush()


def saved_before(field: DistanceField | None, check: Callable[[], None]) -> Callable[[], None]:
    """What is to be done before a piece is booked: its distances are on the disk, then `check`."""
    if field is None:
        return check

    def save_and_check() -> None:
        field.save()
        check()

    return save_and_check


def write_distances(
    writer: MapWriter, field: DistanceField | None, tiles: TileGrid, model: TrainingDistance | None
) -> JsonObject:
    """Write the distances beside the classes, once all levels are there.

    Returns:
        What the map's metadata say of them; nothing where there are none.
    """
    if field is None or model is None:
        return {}
    values = field.values
    writer.write_distances(values)
    grid = DistanceGrid(tiles.rows, tiles.columns, tiles.patch_px, tiles.stride_px)
    level = grid.level(len(writer.sizes))
    strips = ((box, writer.classes_of(level, box)) for box in strips_of(writer.sizes[level]))
    far = far_of(values, grid, level, strips)
    return {DISTANCE: {"grid": grid.to_json(), "limit": LIMIT, "fitted": model.sha256, **far.to_json()}}


def far_of_map(path: Path) -> Far | None:
    """How much of a finished map looks unlike the training data; None where the map does not say."""
    from wsiseg.tissue_map.reader import open_map  # noqa: PLC0415

    return Far.from_metadata(open_map(path).metadata)
