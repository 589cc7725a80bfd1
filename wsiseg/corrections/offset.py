"""Files whose coordinates were moved, scaled or turned as a whole: by a slide's bounds, a level, another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from wsiseg.arrays import Float64Array
from wsiseg.errors import OptionError
from wsiseg.geojson.annotations import Area
from wsiseg.geometry import Box

SAME_PX = 0.05
"""Coordinates are written to 0.01 px and kept in 32 bits, which is 0.016 px at 200,000."""

MOVED_SHARE = 0.5
"""From this share of the regions on, one movement that all of them made is no correction."""

ALONE = 3
"""A person may move a region or two; fewer than these are only refused if they are all that there is."""


@dataclass(frozen=True, slots=True)
class Movement:
    """A map of the plane: x' = a x + b y + c, y' = d x + e y + f, rows of `matrix` (2, 3)."""

    matrix: Float64Array

    @property
    def is_none(self) -> bool:
        """Whether nothing moves."""
        return bool(np.allclose(self.matrix[:, :2], np.eye(2), atol=1e-6) and np.abs(self.matrix[:, 2]).max() < SAME_PX)

    def fits(self, before: Float64Array, after: Float64Array, within_px: float = 4 * SAME_PX) -> bool:
        """Whether it brings all of one set of points (n, 2) to those of another."""
        moved = before @ self.matrix[:, :2].T + self.matrix[:, 2]
        return bool(np.abs(moved - after).max() <= within_px)

    def __str__(self) -> str:
        (a, b, dx), (d, e, dy) = (np.round(self.matrix, 6) + 0.0).tolist()
        if abs(b) + abs(d) < 1e-4 and abs(a - 1) + abs(e - 1) < 1e-4:
            return f"moved by ({dx:.4g}, {dy:.4g}) px"
        if abs(b) + abs(d) < 1e-4 and a > 0 and e > 0:
            return f"scaled by {a:.4g}" + (f" and moved by ({dx:.4g}, {dy:.4g}) px" if abs(dx) + abs(dy) > 1 else "")
        return "turned or mirrored"


def same_area(before: Area, after: Area) -> bool:
    """Whether two areas are one but for the rounding of their coordinates."""
    one, other = shapely.normalize(before), shapely.normalize(after)
    if shapely.equals_exact(one, other, SAME_PX):
        return True
    if not np.abs(np.subtract(one.bounds, other.bounds)).max() < 1:
        return False
    difference = shapely.symmetric_difference(before, after).area
    return bool(difference <= SAME_PX * max(before.length, after.length))


def require_in_place(pairs: Sequence[tuple[Area, Area]], bounds: Box | None, file: str) -> None:
    """Refuse a file whose regions have all made the same movement.

    Args:
        pairs: each region whose id was found, as it was written and as it is in the file.
        bounds: of the slide, in the file's own level 0; None where the scan is all of it.
        file: its name.

    Raises:
        OptionError: with the movement and what it may come from.
    """
    for order in (shapely.get_coordinates, _sorted_corners):
        corners = [(order(before), order(after)) for before, after in pairs]
        _require_still([(a, b) for a, b in corners if a.shape == b.shape], len(pairs), bounds, file)


def _sorted_corners(area: Area) -> Float64Array:
    """Vertices (n, 2) in an order that does not depend on where a program begins a ring."""
    corners: Float64Array = shapely.get_coordinates(shapely.normalize(area))
    return corners


def _require_still(
    alike: Sequence[tuple[Float64Array, Float64Array]], count_all: int, bounds: Box | None, file: str
) -> None:
    for one, other in alike[:20]:
        movement = _movement(one, other)
        if movement is None or movement.is_none:
            continue
        count = sum(movement.fits(a, b) for a, b in alike)
        if count == count_all or (count >= ALONE and count >= MOVED_SHARE * count_all):
            raise OptionError(
                f"{file}: {count} of {count_all} regions of the map are {movement} as a whole, so this is not a "
                f"correction{_cause(movement, bounds)}; export in level-0 pixels of the slide that the map is of"
            )


def _cause(movement: Movement, bounds: Box | None) -> str:
    if bounds is not None:
        shift = movement.matrix[:, 2]
        if np.abs(np.abs(shift) - np.array([bounds.x, bounds.y])).max() < 1 and "moved" in str(movement):
            return (
                f", but the slide's bounds (they begin at {bounds.x}, {bounds.y}), which one of the programs leaves out"
            )
    if "scaled" in str(movement):
        return ", but another level or unit"
    return ""


def _movement(before: Float64Array, after: Float64Array) -> Movement | None:
    """The affine map from one set of at least three points to another, where there is one."""
    design = np.hstack((before, np.ones((len(before), 1))))
    found, _, rank, _ = np.linalg.lstsq(design, after, rcond=None)
    if rank < 3:
        return None
    movement = Movement(found.T.astype(np.float64))
    return movement if movement.fits(before, after) else None
