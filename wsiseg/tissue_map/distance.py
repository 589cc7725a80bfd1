"""How far from the model's training data the places of a map look: a number for each patch, beside the classes.

The number is a distance in the features of the model's classifier, in limits of the model: at 1 a patch is as far as
hardly any of what the model was trained for. `wsiseg.models.distance` says how it is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from wsiseg.arrays import BoolArray, Float32Array, Int64Array, UInt8Array
from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size
from wsiseg.system.json_values import JsonObject, is_number, is_whole

DISTANCE = "distance"
"""Name of the group, whose array `0` is (row, column) of patches, and of what the map's metadata say of it."""

LIMIT = 100
"""The value of a patch that is just at the limit; 0 is one that nobody measured."""

FAR_SHARE = 0.2
"""Of the classified tissue, from which on a person is warned."""

MOST_PATCHES = 2**28
"""Of a map."""

_CELLS_ALONG = 4
"""Pixels of the level along a patch's step, at least, by which tissue is weighed."""

_ROWS = 1024


def coded(distances: Float32Array) -> UInt8Array:
    """Distances in limits (N,) as values of the array: 1 to 255."""
    return np.clip(np.rint(distances * LIMIT), 1, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class DistanceGrid:
    """Where the patches lie: their corners are `stride_px` apart, from the map's corner on.

    Attributes:
        rows: of patches.
        columns: of patches.
        patch_px: side of a patch in map pixels.
        stride_px: from one patch to the next.
    """

    rows: int
    columns: int
    patch_px: int
    stride_px: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not is_whole(value) or not 1 <= value < 2**31:
                raise OptionError(f"the {name} of distances must be a whole number from 1, got {value!r:.40}")

    def to_json(self) -> JsonObject:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> DistanceGrid:
        """The inverse of `to_json`; raises `OptionError` on anything else."""
        names = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping) or set(value) != set(names):
            raise OptionError(f"the grid of distances must state {', '.join(names)}, got {value!r:.100}")
        return cls(**{name: value[name] for name in names})

    def checked(self, array: Any) -> Any:
        """An array as it was found; raises `OptionError` where it cannot hold these patches."""
        shape = getattr(array, "shape", None)
        if shape != (self.rows, self.columns) or self.rows * self.columns > MOST_PATCHES:
            raise OptionError(f"expected {self.rows} x {self.columns} distances, got {shape}")
        return array

    def nearest(self, first: int, count: int, along: int, level: int) -> Int64Array:
        """The row (or column) of patches whose middle is nearest to each of some pixels.

        Args:
            first: pixel of the level.
            count: of pixels.
            along: rows (or columns) of patches.
            level: of the map's pyramid.
        """
        middle = (np.arange(first, first + count) + 0.5) * 2**level
        found: Int64Array = ((middle - (self.patch_px - self.stride_px) / 2) // self.stride_px).astype(np.int64)
        return np.clip(found, 0, along - 1)

    def level(self, levels: int) -> int:
        """The coarsest of a map's levels that still has some pixels in each cell."""
        return max(n for n in range(levels) if n == 0 or 2**n * _CELLS_ALONG <= self.stride_px)


@dataclass(frozen=True, slots=True)
class Far:
    """How much of a map looks unlike the model's training data.

    Attributes:
        share: of the classified tissue that was measured, 0 to 1; NaN where there is none.
        known: share of the classified tissue that was measured.
    """

    share: float
    known: float

    def to_json(self) -> JsonObject:
        """Plain JSON values, null where there is no number."""
        return {"share": None if self.share != self.share else self.share, "known": self.known}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Far | None:
        """What a map says of itself; None where it says nothing, or nothing that could be so."""
        found = metadata.get(DISTANCE)
        if not isinstance(found, Mapping):
            return None
        share, known = found.get("share"), found.get("known", -1)
        if not all(is_number(value) and 0 <= value <= 1 for value in (known, 0 if share is None else share)):
            return None
        return cls(float("nan") if share is None else float(share), float(known))

    @property
    def warning(self) -> str | None:
        """One sentence where a person should be told; else None."""
        if not self.share >= FAR_SHARE:
            return None
        return f"{self.share:.0%} of the tissue looks unlike this model's training data; do not trust the map there"


def far_of(values: UInt8Array, grid: DistanceGrid, level: int, strips: Iterator[tuple[Box, UInt8Array]]) -> Far:
    """How much of a map is farther than the limit.

    Args:
        values: (rows, columns) of patches.
        grid: where they lie.
        level: of the map, whose classes are given.
        strips: boxes of that level, and their classes (height, width) uint8.
    """
    tissue = known = far = 0
    for box, classes in strips:
        rows = grid.nearest(box.y, box.height, grid.rows, level)
        columns = grid.nearest(box.x, box.width, grid.columns, level)
        found = values[rows[:, None], columns[None]]
        classified: BoolArray = (classes > 0) & (classes != WHITE_VALUE)
        tissue += int(np.count_nonzero(classified))
        known += int(np.count_nonzero(classified & (found > 0)))
        far += int(np.count_nonzero(classified & (found > LIMIT)))
    return Far(far / known if known else float("nan"), known / tissue if tissue else 0.0)


def strips_of(size: Size) -> Iterator[Box]:
    """Bands of rows of a level, so that little of it is in memory."""
    for y in range(0, size.height, _ROWS):
        yield Box(0, y, size.width, min(_ROWS, size.height - y))
