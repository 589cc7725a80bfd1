"""The images of a data set as slides: planned as `predict` plans them, with what is known of their patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float32Array
from wsiseg.datasets.dataset import Patch
from wsiseg.datasets.dots import DottedFile
from wsiseg.evaluation.truth import Case, Source
from wsiseg.geometry import Box, Mpp
from wsiseg.models.large_tiles import Windows
from wsiseg.prediction.gate_field import GateField
from wsiseg.prediction.plan import Plan, plan
from wsiseg.slides.array import ArrayReader
from wsiseg.system.threads import read_ahead
from wsiseg.tiling.grid import Tile, Tiling
from wsiseg.tiling.pieces import Piece, pieces_of

CASES_AHEAD = 2
"""Images that are read before they are asked for."""


@dataclass(frozen=True, slots=True)
class OpenedCase:
    """An image and what `predict` would read of it.

    Attributes:
        case: the image with its truth.
        reader: of its pixels.
        plan: its grid and patches.
        pieces: all of its map.
    """

    case: Case
    reader: ArrayReader
    plan: Plan
    pieces: list[Piece]


def opened_cases(source: Source, mpp: float, tiling: Tiling, piece_px: int) -> Iterator[OpenedCase]:
    """The images of a data set, in order, read ahead.

    Args:
        source: the data set.
        mpp: microns per pixel that the model wants.
        tiling: of its patches.
        piece_px: side of a piece of the map.
    """
    entries: Iterable[Patch | DottedFile] = source.entries
    with closing(read_ahead(entries, source.case, workers=1, ahead=CASES_AHEAD)) as cases:
        for _, case in cases:
            reader = ArrayReader(case.pixels, path=case.name, stated_mpp=Mpp(source.mpp, source.mpp))
            planned = plan(reader, mpp, tiling, "none")
            yield OpenedCase(case, reader, planned, pieces_of(planned.tiles, planned.selected, piece_px))


class Known:
    """What is known of an image's patches before the networks see them; see `Field`.

    For each patch it holds the truth of its windows, (W, K), 1 where a class occurs, NaN where nothing is known of the
    window; and behind it the means in context of what the gate sees, where it looks beyond a patch.

    Args:
        opened: the image.
        windows: of a patch.
        num_classes: K.
        means: of the gate in context.
    """

    def __init__(self, opened: OpenedCase, windows: Windows, num_classes: int, means: GateField | None) -> None:
        self._opened = opened
        self._windows = windows
        self._num_classes = num_classes
        self._means = means

    def put(self, patches: list[Tile], values: Float32Array) -> None:
        """See `Field`."""
        assert self._means is not None
        self._means.put(patches, values)

    def of(self, piece: Piece) -> Float32Array:
        """See `Field`."""
        tiles = self._opened.plan.tiles
        truth = [[self._truth(tiles.box(row, column)) for column in piece.columns] for row in piece.rows]
        known = np.array(truth, np.float32).reshape(len(piece.rows), len(piece.columns), -1)
        return known if self._means is None else np.concatenate([known, self._means.of(piece)], axis=2)

    def _truth(self, patch: Box) -> npt.NDArray[np.float32]:
        """Which classes truly occur in the windows of a patch, (W, K)."""
        step, side, rows = self._windows.stride_px, self._windows.patch_px, range(self._windows.side)
        boxes = [Box(patch.x + step * column, patch.y + step * row, side, side) for row in rows for column in rows]
        unknown = np.full(self._num_classes, np.nan, np.float32)
        found = [true_classes(self._opened, box, self._num_classes) for box in boxes]
        return np.stack([unknown if classes is None else classes.astype(np.float32) for classes in found])


def true_classes(opened: OpenedCase, box: Box, num_classes: int) -> npt.NDArray[np.bool_] | None:
    """Which classes truly occur in a box of the map, (K,); None where nothing is known of it, or it lies beside it."""
    case, grid = opened.case, opened.plan.grid
    if case.label is not None:
        return case.label
    if box.intersect(Box.from_size(grid.size)).is_empty:
        return None
    left, top, right, bottom = (
        box.x * grid.step_x, box.y * grid.step_y, box.right * grid.step_x, box.bottom * grid.step_y,
    )  # fmt: skip
    if case.dots is not None:
        x, y = case.dots[:, 0], case.dots[:, 1]
        values = case.dots[(x >= left) & (x < right) & (y >= top) & (y < bottom), 2].astype(np.int64)
    else:
        assert case.mask is not None
        # Pixels whose centre lies in the box.
        rows, columns = (slice(round(a), max(round(a) + 1, round(b))) for a, b in ((top, bottom), (left, right)))
        values = case.mask[rows, columns].ravel().astype(np.int64)
        if not (values < num_classes).any():
            return None
    return np.bincount(values, minlength=num_classes + 1)[:num_classes] > 0
