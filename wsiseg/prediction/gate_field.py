"""What the gate sees of all patches, where it looks beyond a patch: a first pass with the classifier alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float32Array
from wsiseg.models.context import gaussian, mean_in_context
from wsiseg.system.files import cannot_write
from wsiseg.tiling.grid import Tile, TileGrid
from wsiseg.tiling.pieces import Piece


@dataclass(frozen=True, slots=True)
class GateFieldFile:
    """Where a gate field lies, for other processes.

    Attributes:
        path: of the file.
        classes: K.
        sigma: standard deviation of the Gaussian, in patches of the grid.
    """

    path: Path
    classes: int
    sigma: float


class GateField:
    """The classifier's probabilities of all patches, and their means in context.

    Args:
        values: (rows, columns, C) float32; what is known of them already is kept.
        selected: (rows, columns) bool, the patches that are classified.
        sigma: standard deviation of the Gaussian, in patches of the grid; 0 leaves each patch to itself.
    """

    def __init__(self, values: Float32Array, selected: npt.NDArray[np.bool_], sigma: float) -> None:
        self._values = values
        self._selected = selected
        self._sigma = sigma
        self._reach = len(gaussian(sigma)) // 2

    def put(self, patches: list[Tile], values: Float32Array) -> None:
        """Keep the probabilities (N, C) of patches."""
        rows, columns = [tile.row for tile in patches], [tile.column for tile in patches]
        self._values[rows, columns] = values

    def of(self, piece: Piece) -> Float32Array:
        """The means in context of a piece's patches, (rows, columns, C)."""
        top, left = max(0, piece.rows.start - self._reach), max(0, piece.columns.start - self._reach)
        rows, columns = slice(top, piece.rows.stop + self._reach), slice(left, piece.columns.stop + self._reach)
        means = mean_in_context(np.asarray(self._values[rows, columns]), self._selected[rows, columns], self._sigma)
        inner = (
            slice(piece.rows.start - top, piece.rows.stop - top),
            slice(piece.columns.start - left, piece.columns.stop - left),
        )
        return means[inner]


class StoredGateField(GateField):
    """A gate field in a file of the unfinished run.

    Args:
        file: what an earlier run, or another process, put there is kept.
        tiles: the grid of patches.
        selected: (rows, columns) bool, the patches that are classified.

    Attributes:
        file: where the field lies.
        resumed: whether the file was there.
    """

    def __init__(self, file: GateFieldFile, tiles: TileGrid, selected: npt.NDArray[np.bool_]) -> None:
        self.file = file
        shape = (tiles.rows, tiles.columns, file.classes)
        self.resumed = file.path.exists() and file.path.stat().st_size == 4 * np.prod(shape)
        if not self.resumed:
            reserve(file.path, 4 * tiles.rows * tiles.columns * file.classes)
        self._mapped = np.memmap(file.path, np.float32, "r+", shape=shape)
        super().__init__(self._mapped, selected, file.sigma)

    def save(self) -> None:
        """Write to the disk what was put."""
        with cannot_write(self.file.path):
            self._mapped.flush()


def reserve(path: Path, size: int) -> None:
    """A file of zeros that has its room on the disk: writing into a mapped hole of a full one kills the process."""
    with cannot_write(path), path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)
