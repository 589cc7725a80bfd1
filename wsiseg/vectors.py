"""Class map -> polygons of each class, in map pixels: exact ones, or simplified ones that keep shared borders shared.

Both read the map block by block. Exact polygons in memory cost what their vertices take (`exact_geojson` writes them
without having them). Simplified ones are simplified all together, since only then do neighbours keep one common
border; that takes up to 300 bytes for each corner of the exact outlines (`levels` finds a level where they fit).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from wsiseg.class_map import BLOCK, ArrayMap, ClassMapSource
from wsiseg.classes import ClassTable
from wsiseg.components import Components, find_components
from wsiseg.errors import OptionError
from wsiseg.geometry import Mpp
from wsiseg.memory import give_back_memory
from wsiseg.outlines import require_known
from wsiseg.polygonize import Polygons, polygonize
from wsiseg.sieve import Absorption, SievedMap, absorb

__all__ = [
    "ArrayMap",
    "Budget",
    "ClassMapSource",
    "VectorSummary",
    "default_tolerance_um",
    "exact_polygons",
    "simplified_polygons",
]

TOLERANCE_UM = 2.0
"""Default tolerance: under half a lymphocyte's diameter, so no border moves past a cell."""

MIN_AREA_UM2 = 250.0
"""Default smallest region: about 16 x 16 um, five lymphocytes. Labels of whole patches teach nothing finer."""

TOLERANCE_STEP, TOLERANCE_LIMIT = math.sqrt(2), 16.0
"""Per step, and at most, the tolerance grows by these factors to meet a budget of vertices."""

AREA_STEP, AREA_RAISES = 4.0, 3
"""Where the tolerance has reached its limit, the minimum area grows by this factor, this many times at most."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a viewer takes without trouble; QuPath holds the whole file as one tree in memory.

    Attributes:
        max_vertices: vertices of all rings together, the closing ones included.
        max_annotations: number of polygons.
    """

    max_vertices: int = 500_000
    max_annotations: int = 20_000

    def __post_init__(self) -> None:
        if self.max_vertices < 4 or self.max_annotations < 1:
            raise OptionError(
                "a budget needs at least 4 vertices and 1 annotation, "
                f"got {self.max_vertices} and {self.max_annotations}"
            )


@dataclass(frozen=True, slots=True)
class VectorSummary:
    """What became of a class map on its way to simplified polygons.

    Attributes:
        tolerance_um: tolerance used.
        min_area_um2: minimum area used.
        polygons: number of polygons.
        vertices: their vertices, the closing ones included.
        absorbed: small components that took a neighbour's class.
        absorbed_um2: their area.
        dropped: small components that nothing but class 0 touched, and polygons that could not be kept valid.
        dropped_um2: their area.
        repaired: polygons that simplification had made invalid and that were made valid again.
        within_budget: false where neither tolerance nor minimum area could meet the budget; mostly because of many
            holes of class 0, which are never filled.
    """

    tolerance_um: float
    min_area_um2: float
    polygons: int
    vertices: int
    absorbed: int
    absorbed_um2: float
    dropped: int
    dropped_um2: float
    repaired: int
    within_budget: bool


def default_tolerance_um(mpp: Mpp) -> float:
    """The default tolerance: `TOLERANCE_UM`, but at least one map pixel, below which staircases would stay."""
    return max(TOLERANCE_UM, mpp.mean)


def exact_polygons(source: ClassMapSource, classes: ClassTable, block: int = BLOCK) -> dict[int, shapely.MultiPolygon]:
    """One MultiPolygon for each class, in map pixels, that covers exactly the class's pixels.

    Args:
        source: the class map.
        classes: its class table.
        block: side of the blocks that are read, in map pixels; the result does not depend on it.

    Returns:
        By class index, every class of the table; an empty MultiPolygon where the map has none of it. Each is valid,
        without vertices on straight lines or seams.
    """
    found = polygonize(source, len(classes), block)
    return {index: shapely.multipolygons(polygons) for index, polygons in found.items()}


def simplified_polygons(
    source: ClassMapSource,
    classes: ClassTable,
    mpp: Mpp,
    tolerance_um: float | None = None,
    min_area_um2: float = MIN_AREA_UM2,
    *,
    budget: Budget | None = None,
    block: int = BLOCK,
) -> tuple[dict[int, list[shapely.Polygon]], VectorSummary]:
    """Polygons of each class, in map pixels, with small regions absorbed and borders simplified together.

    Components below `min_area_um2` take the class with which they share the longest border (`sieve.absorb`). Then all
    borders are simplified as one coverage (Visvalingam-Whyatt: a vertex goes while the triangle it spans is smaller
    than the tolerance squared), so that neighbours neither gap nor overlap. Tolerance and minimum area are raised step
    by step until the budget is met.

    Args:
        source: the class map.
        classes: its class table.
        mpp: microns per map pixel.
        tolerance_um: tolerance in um, None for `default_tolerance_um`; 0 keeps every corner (and QuPath mishandles
            single polygons with long staircases: write `exact_polygons` instead).
        min_area_um2: smallest component that stays, in um2; 0 keeps all.
        budget: most vertices and polygons; None for the defaults of `Budget`.
        block: side of the blocks that are read, in map pixels; the result does not depend on it.

    Returns:
        The polygons by class index (every class of the table), and what was done to reach them.
    """
    budget = budget or Budget()
    tolerance_um = default_tolerance_um(mpp) if tolerance_um is None else tolerance_um
    for name, value in (("tolerance", tolerance_um), ("minimum area", min_area_um2)):
        if not (math.isfinite(value) and value >= 0):
            raise OptionError(f"the {name} must be 0 or more, got {value}")
    components = find_components(source, block)
    require_known(int(components.classes.max(initial=0)), len(classes))
    for raises in range(AREA_RAISES + 1):
        absorption, min_area_um2 = _absorb_to(components, mpp, min_area_um2, budget.max_annotations)
        found = polygonize(SievedMap(source, components, absorption), len(classes), block)
        give_back_memory()  # uniting held as much again as what comes now
        coverage = _Coverage.of(found)
        used_um = coverage.simplify_to(tolerance_um, mpp, budget.max_vertices)
        if coverage.vertices <= budget.max_vertices or raises == AREA_RAISES:
            break
        min_area_um2 = max(min_area_um2, mpp.pixel_area_um2) * AREA_STEP
    dropped_px, dropped, repaired = coverage.repair()
    summary = VectorSummary(
        tolerance_um=used_um,
        min_area_um2=min_area_um2,
        polygons=len(coverage.polygons),
        vertices=coverage.vertices,
        absorbed=absorption.absorbed,
        absorbed_um2=absorption.absorbed_px * mpp.pixel_area_um2,
        dropped=absorption.dropped + dropped,
        dropped_um2=(absorption.dropped_px + dropped_px) * mpp.pixel_area_um2,
        repaired=repaired,
        within_budget=coverage.vertices <= budget.max_vertices and len(coverage.polygons) <= budget.max_annotations,
    )
    return coverage.by_class(len(classes)), summary


def _absorb_to(components: Components, mpp: Mpp, min_area_um2: float, max_annotations: int) -> tuple[Absorption, float]:
    """Absorb with the first minimum area, doubling from the given one, that leaves few enough regions."""
    while True:
        absorption = absorb(components, min_area_um2 / mpp.pixel_area_um2)
        if absorption.regions <= max_annotations:
            return absorption, min_area_um2
        min_area_um2 = max(min_area_um2, mpp.pixel_area_um2) * 2


def add_shared_vertices(polygons: Polygons) -> Polygons:
    """Give each outline a vertex wherever another polygon has one on it.

    Where three regions meet, one of them may pass in a straight line, without a vertex; as a coverage that is invalid.
    So a vertex is set at every pixel corner of every outline, and those stay at which any polygon has a corner.

    Args:
        polygons: (N,) polygons with upright and level edges between whole numbers, not negative.
    """
    if not len(polygons):
        return polygons
    # Rounded: the points of `segmentize` miss the pixel corners by an ulp.
    dense = shapely.transform(shapely.segmentize(polygons, 1.0), np.round)
    kind, xy, (ring_starts, polygon_starts) = shapely.to_ragged_array(dense)
    corners, points = (_keys(coordinates) for coordinates in (shapely.get_coordinates(polygons), xy))
    kept = np.isin(points, corners)
    before = np.concatenate([[0], np.cumsum(kept)])  # kept points before each point
    return np.asarray(shapely.from_ragged_array(kind, xy[kept], (before[ring_starts], polygon_starts)))


def _keys(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """One whole number for each point (N, 2) of whole numbers."""
    whole = xy.astype(np.int64)
    return (whole[:, 1] << 32) | whole[:, 0]


class _Coverage:
    """Polygons of all classes that share their borders.

    Attributes:
        polygons: (N,) the polygons.
        indices: (N,) their classes.
    """

    def __init__(self, polygons: Polygons, indices: npt.NDArray[np.uint8]) -> None:
        self.polygons = polygons
        self.indices = indices

    @classmethod
    def of(cls, found: dict[int, Polygons]) -> _Coverage:
        """A valid coverage from exact polygons: every vertex of one is a vertex of all whose outline it lies on."""
        polygons = np.concatenate([np.empty(0, object), *found.values()])
        indices = np.concatenate([np.full(len(part), index, np.uint8) for index, part in found.items()])
        return cls(add_shared_vertices(polygons), indices)

    @property
    def vertices(self) -> int:
        """Vertices of all rings, the closing ones included."""
        return int(shapely.get_num_coordinates(self.polygons).sum())

    def simplify_to(self, tolerance_um: float, mpp: Mpp, max_vertices: int) -> float:
        """Simplify, raising the tolerance until few enough vertices are left; the tolerance reached, in um.

        Each step goes on from the one before: removing the smallest triangles up to a larger one is the same work.
        """
        limit = max(tolerance_um, mpp.mean / 2) * TOLERANCE_LIMIT
        while len(self.polygons):
            self.polygons = shapely.coverage_simplify(self.polygons, tolerance_um / mpp.mean)
            larger = max(tolerance_um, mpp.mean / 2) * TOLERANCE_STEP
            if self.vertices <= max_vertices or larger > limit * 1.001:
                break
            tolerance_um = larger
        return tolerance_um

    def repair(self) -> tuple[float, int, int]:
        """Make what is invalid valid, drop what has no area: (px2 dropped, number dropped, number repaired)."""
        wrong = ~shapely.is_valid(self.polygons) | (shapely.area(self.polygons) == 0)
        if not wrong.any():
            return 0.0, 0, 0
        dropped_px, dropped, repaired = 0.0, 0, 0
        polygons, indices = list(self.polygons[~wrong]), list(self.indices[~wrong])
        for polygon, index in zip(self.polygons[wrong], self.indices[wrong], strict=True):
            parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(polygon, method="structure")))
            parts = [p for p in parts if p.geom_type == "Polygon" and p.area > 0]
            repaired += bool(parts)
            dropped += not parts
            dropped_px += 0.0 if parts else abs(polygon.area)
            polygons += parts
            indices += [index] * len(parts)
        self.polygons, self.indices = np.array(polygons, object), np.array(indices, np.uint8)
        return dropped_px, dropped, repaired

    def by_class(self, class_count: int) -> dict[int, list[shapely.Polygon]]:
        """The polygons of each class."""
        return {index: list(self.polygons[self.indices == index]) for index in range(1, class_count + 1)}
