"""The class maps of one image while its tiles come in, and what is counted when they are whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsiseg.evaluation.result import TITLES
from wsiseg.evaluation.truth import Case
from wsiseg.geometry import Box, Grid
from wsiseg.metrics import confusion_matrix
from wsiseg.tiling.blending import Blender, Block
from wsiseg.tiling.grid import TileGrid
from wsiseg.tiling.reading import Patch


class Tally:
    """What has been counted so far."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.groups: dict[str, int] = {}
        self.confusions: dict[str, list[npt.NDArray[np.int64]]] = {}
        self.probabilities: list[npt.NDArray[np.float64]] = []  # (K,) of each tile
        self.truth: list[npt.NDArray[np.bool_]] = []
        self.tile_groups: list[int] = []

    def group(self, name: str) -> int:
        """Its number."""
        return self.groups.setdefault(name, len(self.groups))

    def add(self, key: str, group: int, confusion: npt.NDArray[np.int64]) -> None:
        """Add an image's confusion matrix (K, K) to its group's, in the column `key`."""
        rows = self.confusions.setdefault(key, [])
        while len(rows) <= group:
            rows.append(np.zeros((self.num_classes, self.num_classes), np.int64))
        rows[group] += confusion


class CaseMaps:
    """The class maps of one image, one for each column, while its tiles come in."""

    def __init__(self, case: Case, grid: Grid, tiles: TileGrid, num_classes: int) -> None:
        self.case = case
        self.grid = grid
        self.tiles = tiles
        self.left = len(tiles)
        keys = () if case.label is not None else tuple(TITLES)
        self.maps = {key: np.zeros(grid.size.shape, np.uint8) for key in keys}
        self._blenders = {key: Blender(tiles, num_classes) for key in keys}
        self.num_classes = num_classes

    def add(self, key: str, patch: Patch, probabilities: npt.NDArray[np.float32]) -> None:
        """Blend a tile's probabilities (K, P, P) into the map of the column `key`."""
        for block in self._blenders[key].add(patch.tile, probabilities):
            self._put(key, block)

    def _put(self, key: str, block: Block) -> None:
        self.maps[key][block.box.slices()] = block.probabilities.argmax(axis=0)

    def finish(self, tally: Tally) -> None:
        """Hold the maps against the truth."""
        group = tally.group(self.case.group)
        for key, blender in self._blenders.items():
            for block in blender.finish():
                self._put(key, block)
            truth, given = compared(self.case, self.maps[key], self.grid)
            tally.add(key, group, confusion_matrix(truth, given, self.num_classes))

    def true_classes(self, box: Box) -> npt.NDArray[np.bool_] | None:
        """Which classes truly occur in a tile, (K,); None where nothing is known of it."""
        case, grid = self.case, self.grid
        if case.label is not None:
            return case.label
        left, top, right, bottom = (
            box.x * grid.step_x, box.y * grid.step_y, box.right * grid.step_x, box.bottom * grid.step_y,
        )  # fmt: skip
        if case.dots is not None:
            x, y = case.dots[:, 0], case.dots[:, 1]
            values = case.dots[(x >= left) & (x < right) & (y >= top) & (y < bottom), 2].astype(np.int64)
        else:
            assert case.mask is not None
            # Pixels whose centre lies in the tile.
            rows, columns = (slice(round(a), max(round(a) + 1, round(b))) for a, b in ((top, bottom), (left, right)))
            values = case.mask[rows, columns].ravel().astype(np.int64)
            if not (values < self.num_classes).any():
                return None
        return np.bincount(values, minlength=self.num_classes + 1)[: self.num_classes] > 0


def compared(
    case: Case, classes: npt.NDArray[np.uint8], grid: Grid
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """(true, predicted) channels of the image's pixels, or of its cells; the map pixel that a centre lies in counts."""
    height, width = classes.shape
    if case.dots is not None:
        x = np.minimum(case.dots[:, 0] / grid.step_x, width - 1).astype(np.int64)
        y = np.minimum(case.dots[:, 1] / grid.step_y, height - 1).astype(np.int64)
        return case.dots[:, 2].astype(np.int64), classes[y, x]
    assert case.mask is not None
    rows = np.minimum((np.arange(case.mask.shape[0]) + 0.5) / grid.step_y, height - 1).astype(np.int64)
    columns = np.minimum((np.arange(case.mask.shape[1]) + 0.5) / grid.step_x, width - 1).astype(np.int64)
    return case.mask, classes[rows[:, None], columns]
