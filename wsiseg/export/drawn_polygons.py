"""What drawing a map's polygons came to: counts, how areas changed, and what a reader of the file should know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from wsiseg.polygons.limits import AREA_CHANGE, REGIONS_AT_MOST
from wsiseg.system.json_values import JsonObject

if TYPE_CHECKING:
    from wsiseg.polygons.drawing import VectorSummary

LEAST_MOVE_UM = 0.01
"""Less is not worth a sentence."""

WARN_VERTICES = 2_000_000
"""Exact polygons with more vertices are warned of: QuPath took 333 s and 3.1 GB for 7.5 million."""


@dataclass(frozen=True, slots=True)
class DrawnClass:
    """The area of one class, in the map and as it was drawn.

    Attributes:
        name: of the class.
        map_um2: its area in the map.
        polygons_um2: that of its polygons.
        min_area_um2: smallest region that was kept of it; None for exact polygons.
    """

    name: str
    map_um2: float
    polygons_um2: float
    min_area_um2: float | None = None

    @property
    def change(self) -> float:
        """How much more the polygons have than the map, as a share of that."""
        return self.polygons_um2 / self.map_um2 - 1 if self.map_um2 > 0 else 0.0

    @property
    def within(self) -> bool:
        """Whether that is within `AREA_CHANGE`."""
        return abs(self.change) <= AREA_CHANGE

    def to_json(self) -> JsonObject:
        """Plain JSON values."""
        least = {} if self.min_area_um2 is None else {"min_area_um2": self.min_area_um2}
        drawn = {"name": self.name, "map_um2": self.map_um2, "polygons_um2": self.polygons_um2}
        return {**drawn, "change": self.change, "within": self.within, **least}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{one.name: row[one.name] for one in fields(cls) if one.name in row})


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplification:
    """What simplifying did, and from which level; more of most of it is said at `VectorSummary`.

    Attributes:
        tolerance_um: tolerance used.
        min_area_um2: minimum area used, that of the class where it is largest.
        moved_um: how far borders were shifted at most, so that classes have their areas.
        polygons: number of polygons, before they were prepared for the file.
        absorbed: small components that took a neighbour's class.
        absorbed_um2: their area.
        dropped_um2: area of the small components that nothing touched.
        within_budget: whether there are no more vertices and polygons than the budget has.
        halvings: how often the map was halved before, since it had too many regions.
        asked: whether minimum area or tolerance was asked for.
        level: of the pyramid that was simplified; 0 unless the map has too many corners for `max_memory`, or too many
            regions.
        level_um: side of its pixels.
        max_memory: bytes that it might take.
    """

    tolerance_um: float
    min_area_um2: float
    moved_um: float
    polygons: int
    absorbed: int
    absorbed_um2: float
    dropped_um2: float
    within_budget: bool
    halvings: int
    asked: bool
    level: int
    level_um: float
    max_memory: int

    @classmethod
    def from_summary(cls, summary: VectorSummary, *, asked: bool, level: int, level_um: float, max_memory: int) -> Self:
        """What a summary of simplified polygons says, and how they were asked for."""
        return cls(
            tolerance_um=summary.tolerance_um,
            min_area_um2=summary.min_area_um2,
            moved_um=summary.moved_um,
            polygons=summary.polygons,
            absorbed=summary.absorbed,
            absorbed_um2=summary.absorbed_um2,
            dropped_um2=summary.dropped_um2,
            within_budget=summary.within_budget,
            halvings=summary.halvings,
            asked=asked,
            level=level,
            level_um=level_um,
            max_memory=max_memory,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnPolygons:
    """What `export_geojson` wrote.

    Attributes:
        classes: their areas, in order.
        annotations: features of the file.
        vertices: their vertices.
        repaired: polygons that were invalid and were made valid.
        dropped: polygons, and small components, that could not be kept.
        simplification: what it did; None for exact polygons.
    """

    classes: Sequence[DrawnClass]
    annotations: int
    vertices: int
    repaired: int
    dropped: int
    simplification: Simplification | None = None

    @property
    def exact(self) -> bool:
        """Whether borders follow every pixel."""
        return self.simplification is None

    def to_json(self) -> JsonObject:
        """Plain JSON values, in one object."""
        counts = {"vertices": self.vertices, "repaired": self.repaired, "dropped": self.dropped}
        rows = [row.to_json() for row in self.classes]
        if self.simplification is None:
            return {"exact": True, "classes": rows, "annotations": self.annotations, **counts}
        found = {**asdict(self.simplification), **counts}
        return {
            "exact": False,
            **{name: found.pop(name) for name in _IN_ORDER},
            **found,
            "classes": rows,
            "annotations": self.annotations,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        simplification = None
        if not found["exact"]:
            simplification = Simplification(**{one.name: found[one.name] for one in fields(Simplification)})
        return cls(
            classes=[DrawnClass.from_json(row) for row in found["classes"]],
            simplification=simplification,
            **{name: found[name] for name in ("annotations", "vertices", "repaired", "dropped")},
        )

    @property
    def notes(self) -> list[str]:
        """What a reader of the file should know, one sentence each."""
        if self.simplification is None:
            return [*area_notes(self.classes, asked=False), *_vertex_notes(self.vertices)]
        return [*_simplified_notes(self, self.simplification), *_budget_notes(self.simplification)]


_IN_ORDER = (
    *("tolerance_um", "min_area_um2", "moved_um", "polygons", "vertices", "absorbed", "absorbed_um2", "dropped"),
    *("dropped_um2", "repaired", "within_budget", "halvings"),
)
"""Of simplified polygons as JSON; what is not named here follows."""


def _simplified_notes(drawn: DrawnPolygons, done: Simplification) -> list[str]:
    """What became of small regions, of borders and of areas."""
    found = []
    if done.absorbed or drawn.dropped:
        less = [row for row in drawn.classes if (row.min_area_um2 or 0) < done.min_area_um2 * 0.99]
        apart = "".join(f", of {row.name} under {row.min_area_um2:.3g}" for row in less)
        found.append(
            f"polygons are simplified by {done.tolerance_um:.3g} um; "
            f"{done.absorbed} regions under {done.min_area_um2:.0f} um²{apart} joined a neighbour "
            f"({done.absorbed_um2 / 1e6:.4f} mm²), {drawn.dropped} were dropped ({done.dropped_um2 / 1e6:.4f} mm²)"
        )
    if done.moved_um >= LEAST_MOVE_UM:
        found.append(f"borders moved by up to {done.moved_um:.2g} um, so that polygons keep each class's area")
    return found + area_notes(drawn.classes, asked=done.asked)


def area_notes(classes: Sequence[DrawnClass], *, asked: bool) -> list[str]:
    """Areas that polygons do not keep: all changes where their making was asked for, else those beyond the limit."""
    changed = [row for row in classes if row.map_um2 > 0 and (asked or not row.within)]
    if not changed:
        return []
    if asked:
        told = ", ".join(f"{row.name} {row.change:+.1%}" for row in changed)
        return [f"with the --min-area and --tolerance given, areas of polygons differ from the map's: {told}"]
    return [
        f"polygons show {row.change:+.1%} of {row.name}'s area ({row.polygons_um2 / 1e6:.4f} mm², in the map "
        f"{row.map_um2 / 1e6:.4f}): more than 2 %, which neither budget nor tolerance allowed to keep"
        for row in changed
    ]


def _budget_notes(done: Simplification) -> list[str]:
    """That polygons are coarser, or more, than they were meant to be."""
    found = [] if (note := coarser_note(done)) is None else [note]
    if not done.within_budget:
        found.append(
            "the polygons are more than QuPath opens with ease; a larger --min-area or --tolerance makes them fewer"
        )
    return found


def coarser_note(done: Simplification) -> str | None:
    """A note on polygons that were made from a coarser level; None for others."""
    if not done.level:
        return None
    if done.halvings:
        return (
            f"polygons are made from a coarser level ({done.level_um:.3g} um/px) since the map has more than "
            f"{REGIONS_AT_MOST:,} regions, as noise has; they show nothing finer, and `wsiseg export --exact` keeps "
            "every pixel"
        )
    return (
        f"polygons are made from a coarser level ({done.level_um:.3g} um/px) since the map has too many corners "
        f"for {done.max_memory / 2**30:.3g} GiB; a larger --max-memory makes them finer, and "
        "`wsiseg export --exact` keeps every pixel"
    )


def _vertex_notes(vertices: int) -> list[str]:
    """That exact polygons have more vertices than are read with ease."""
    if vertices <= WARN_VERTICES:
        return []
    return [
        f"{vertices:,} vertices are much for QuPath (7.5 million take it 333 s and 3.1 GB); leave out "
        "--exact for polygons that open in seconds"
    ]
