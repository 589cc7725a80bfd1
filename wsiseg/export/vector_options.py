"""How polygons are made, as a caller says it; apart from what makes them, so that saying it loads no library."""

from __future__ import annotations

from dataclasses import dataclass

from wsiseg.errors import OptionError

MAX_MEMORY, LEAST_MEMORY = 1536 * 2**20, 64 * 2**20
"""Bytes that simplified polygons may take, by default and at least."""


@dataclass(frozen=True, slots=True)
class VectorOptions:
    """How polygons are made.

    Attributes:
        exact: every pixel's border, one MultiPolygon a class; the other values but `qupath_names` do not matter then.
        tolerance_um: about how far simplified borders may move; None fits it to the map's mpp, its areas and the
            budget of vertices.
        min_area_um2: regions below it join the neighbour that they touch most, whatever that does to the areas; None
            chooses class by class, so that areas stay.
        max_memory: bytes that simplifying may take; None takes `MAX_MEMORY`. A map with more corners is simplified
            from a coarser level of its pyramid. Exact polygons take less in any case.
        qupath_names: spell classes as QuPath's own list does, see `polygon_facts.QUPATH_NAMES`.
    """

    exact: bool = False
    tolerance_um: float | None = None
    min_area_um2: float | None = None
    max_memory: int | None = None
    qupath_names: bool = False

    def __post_init__(self) -> None:
        for name, value in (("tolerance", self.tolerance_um), ("minimum area", self.min_area_um2)):
            if value is not None and not 0 <= value < float("inf"):
                raise OptionError(f"the {name} must be 0 or more, got {value}")
        if self.max_memory is not None and self.max_memory < LEAST_MEMORY:
            raise OptionError(f"polygons need at least 64M of memory, got {self.max_memory} bytes; give more")
