"""The class maps of one image, held against the truth once their pieces have come, and what is counted in all."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import UInt8Array
from wsiseg.evaluation.calibration import CalibrationTally
from wsiseg.evaluation.truth import Case
from wsiseg.geometry import Grid
from wsiseg.metrics import confusion_matrix
from wsiseg.models.calibration import Calibration
from wsiseg.prediction.stream import FinishedPiece

CALIBRATED = "predicted_gate"
"""The column whose probabilities are judged: what `predict` writes."""


class Tally:
    """What has been counted so far."""

    def __init__(self, num_classes: int, num_true: int, applied: Calibration | None = None) -> None:
        self.num_classes = num_classes  # K, of the model
        self.num_true = num_true  # U, with those that the model does not know
        self.groups: dict[str, int] = {}
        self.confusions: dict[str, list[npt.NDArray[np.int64]]] = {}
        self.calibration = CalibrationTally(num_classes)  # of what the networks give
        self.applied = applied  # what `predict` does to that
        self.calibrated = CalibrationTally(num_classes)
        self.probabilities: list[npt.NDArray[np.float64]] = []  # (K,) of each tile
        self.truth: list[npt.NDArray[np.bool_]] = []
        self.tile_groups: list[int] = []

    def group(self, name: str) -> int:
        """Its number."""
        return self.groups.setdefault(name, len(self.groups))

    def add(self, key: str, group: int, confusion: npt.NDArray[np.int64]) -> None:
        """Add an image's confusion matrix (U, U) to its group's, in the column `key`."""
        rows = self.confusions.setdefault(key, [])
        while len(rows) <= group:
            rows.append(np.zeros((self.num_true, self.num_true), np.int64))
        rows[group] += confusion

    def judge(self, group: int, values: UInt8Array, given: UInt8Array, truth: npt.NDArray[np.integer[Any]]) -> None:
        """Add the probabilities (K, N) of pixels or cells, as the networks give them; see `CalibrationTally.add`."""
        self.calibration.add(group, values, given, truth)
        if self.applied is not None:
            self.calibrated.add(group, self.applied.of(values), given, truth)

    def add_presence(self, group: str, presence: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> None:
        """Add what the gate saw in windows, and what is true of them, both (..., K); NaN where that is not known."""
        rows = (values.reshape(-1, self.num_classes) for values in (presence, truth))
        for seen, known in zip(*rows, strict=True):
            if not np.isnan(known[0]):
                self.probabilities.append(seen.astype(np.float64))
                self.truth.append(known > 0)
                self.tile_groups.append(self.group(group))


class CaseMap:
    """Takes the pieces of one image's map, as a `PieceWriter` does for a slide's, and counts instead of writing.

    Args:
        key: of its column.
        case: the image.
        grid: of its map.
        pieces: how many will come.
        tally: gets the image's confusion matrix with the last of them.

    Attributes:
        classes: (height, width) uint8, as `predict` writes them: 1 is the first class.
    """

    def __init__(self, key: str, case: Case, grid: Grid, pieces: int, tally: Tally) -> None:
        self.classes = np.zeros(grid.size.shape, np.uint8)
        calibrated = key == CALIBRATED
        self._values = np.zeros((tally.num_classes, *grid.size.shape), np.uint8) if calibrated else None
        self._key = key
        self._case = case
        self._grid = grid
        self._left = pieces
        self._tally = tally

    def put(self, finished: FinishedPiece) -> None:
        """Take a piece."""
        self.classes[finished.piece.box.slices()] = finished.pixels.classes
        if self._values is not None:
            self._values[(slice(None), *finished.piece.box.slices())] = finished.pixels.values
        self._left -= 1
        if not self._left:
            truth, given = compared(self._case, self.classes - 1, self._grid)
            found = confusion_matrix(truth, given, self._tally.num_true)
            group = self._tally.group(self._case.group)
            self._tally.add(self._key, group, found)
            if self._values is not None:
                values = self._values[(slice(None), *_places(self._case, self._grid))]
                self._tally.judge(group, values.reshape(len(values), -1), given.ravel().astype(np.uint8), truth.ravel())
                self._values = None


def compared(
    case: Case, classes: npt.NDArray[np.uint8], grid: Grid
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """(true, predicted) channels of the image's pixels, or of its cells; the map pixel that a centre lies in counts."""
    places = _places(case, grid)
    if case.dots is not None:
        return case.dots[:, 2].astype(np.int64), classes[places]
    assert case.mask is not None
    return case.mask, classes[places]


def _places(case: Case, grid: Grid) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the map under the image's cells (n,) each, or under its pixels (H, 1) and (1, W)."""
    height, width = grid.size.shape
    if case.dots is not None:
        x = np.minimum(case.dots[:, 0] / grid.step_x, width - 1).astype(np.int64)
        y = np.minimum(case.dots[:, 1] / grid.step_y, height - 1).astype(np.int64)
        return y, x
    assert case.mask is not None
    rows = np.minimum((np.arange(case.mask.shape[0]) + 0.5) / grid.step_y, height - 1).astype(np.int64)
    columns = np.minimum((np.arange(case.mask.shape[1]) + 0.5) / grid.step_x, width - 1).astype(np.int64)
    return rows[:, None], columns[None]
