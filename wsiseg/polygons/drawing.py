"""Simplified polygons: which regions stay, how far borders are simplified, and what that does to each class's area.

What is not asked for is chosen, so that every class keeps its area within a budget of vertices and polygons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import shapely

from wsiseg.arrays import Float64Array
from wsiseg.errors import OptionError
from wsiseg.geometry import Mpp
from wsiseg.polygons.balance import balance
from wsiseg.polygons.class_map import Known
from wsiseg.polygons.components import Components
from wsiseg.polygons.coverage import Coverage
from wsiseg.polygons.frame import Frame
from wsiseg.polygons.limits import AREA_CHANGE
from wsiseg.polygons.polygonize import polygonize
from wsiseg.polygons.sieve import Absorption, SievedMap, absorb, min_areas_px
from wsiseg.system.memory import trim_memory

TOLERANCE_UM = 2.0
"""Default tolerance: under half a lymphocyte's diameter, so no border moves past a cell."""

MIN_AREA_UM2 = 250.0
"""Default smallest region: about 16 x 16 um, five lymphocytes. Labels of whole patches teach nothing finer."""

SHARES = (0.05, 0.1, 0.2, 0.4, 0.8, 0.95)
"""Share of each class that small regions may take, from step to step; the minimum area doubles with each."""

FINER = ((0.01, 0.5), (0.0, 0.25))
"""(share, factor of the tolerance) to try where a class's area still differs too much."""

VERTEX_STEPS, DRAWN_AT_MOST = 2, 4
"""Steps at once where even the largest tolerance leaves too many vertices, and how often: each simplifies anew."""

HOPELESS = 2
"""So many times the budget's polygons that are large enough to stay are not tried: hardly so many of them join."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a viewer can handle; QuPath holds the whole file as one tree in memory.

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


TRIM_PX = 2**22
"""Map pixels from which on freed memory is worth returning between two steps, which takes some time of its own."""


@dataclass(frozen=True, slots=True)
class VectorSummary:
    """A record of how simplified polygons differ from their class map.

    Attributes:
        tolerance_um: tolerance used.
        min_area_um2: minimum area used, that of the class where it is largest.
        class_min_area_um2: minimum area used for each class, in order.
        moved_um: how far borders were shifted at most, so that classes have their areas.
        map_um2: area of each class in the map, in order.
        polygons_um2: area of its polygons.
        polygons: number of polygons.
        vertices: their vertices, the closing ones included.
        absorbed: small components that took a neighbour's class, white ones too.
        absorbed_um2: their area.
        dropped: small components that nothing but class 0 or white touched, and polygons that could not be kept valid.
        dropped_um2: their area.
        repaired: polygons that simplification had made invalid and that were made valid again.
        within_budget: false where there are more vertices or polygons than the budget has; mostly because of many
            holes of class 0, which are never filled, or of a tolerance or minimum area that was asked for.
        halvings: how often the map was halved before, since it had too many regions.
    """

    tolerance_um: float
    min_area_um2: float
    class_min_area_um2: tuple[float, ...]
    moved_um: float
    map_um2: tuple[float, ...]
    polygons_um2: tuple[float, ...]
    polygons: int
    vertices: int
    absorbed: int
    absorbed_um2: float
    dropped: int
    dropped_um2: float
    repaired: int
    within_budget: bool
    halvings: int = 0

    @property
    def worst_change(self) -> float:
        """Largest share by which the area of a class differs from the map's."""
        changes = (abs(p / m - 1) for p, m in zip(self.polygons_um2, self.map_um2, strict=True) if m > 0)
        return max(changes, default=0.0)


Simplified = tuple[dict[int, list[shapely.Polygon]], VectorSummary]


def default_tolerance_um(mpp: Mpp) -> float:
    """The default tolerance: `TOLERANCE_UM`, but at least one map pixel, below which staircases would stay."""
    return max(TOLERANCE_UM, mpp.mean)


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to simplify a map: minimum areas and tolerance.

    Attributes:
        tolerance_um: to begin with.
        min_area_um2: the largest minimum area.
        share: of each class, what regions below the minimum area may take.
        raises: whether the tolerance may grow to meet the budget.
        balanced: whether borders are shifted.
    """

    tolerance_um: float
    min_area_um2: float
    share: float
    raises: bool
    balanced: bool


@dataclass(frozen=True, eq=False)
class Drawing:
    """Simplifying one map, with one choice or another.

    Attributes:
        source: the class map, white as the value behind its classes.
        components: of it.
        mpp: microns per pixel.
        budget: most vertices and polygons.
        block: side of the blocks that are read.
        frame: where the slide ends.
        map_px: (256,) the area that each class should have, in pixels.
    """

    source: Known
    components: Components
    mpp: Mpp
    budget: Budget
    block: int
    frame: Frame
    map_px: Float64Array

    def best(self, tolerance_um: float | None, min_area_um2: float | None) -> Simplified:
        """The finest choice that meets the budget and keeps areas; what is stated (not None) is taken as it is."""
        tolerance = default_tolerance_um(self.mpp) if tolerance_um is None else tolerance_um
        free = tolerance_um is None
        if min_area_um2 is not None:
            choice = Choice(tolerance, min_area_um2, 1.0, free, balanced=False)
            absorption, areas_px = self._absorb(choice)
            return self._draw(choice, self._cover(absorption), absorption, areas_px)
        choice, found = self._within_budget(Choice(tolerance, MIN_AREA_UM2, SHARES[0], free, balanced=True))
        for share, factor in FINER if choice.share == SHARES[0] else ():
            if found[1].worst_change <= AREA_CHANGE:
                break
            finer = replace(choice, share=share, tolerance_um=tolerance * (factor if free else 1), raises=False)
            absorption, areas_px = self._absorb(finer)
            if absorption.regions > self.budget.max_annotations:
                break
            other = self._draw(finer, self._cover(absorption), absorption, areas_px)
            if not other[1].within_budget:
                break
            found = min(found, other, key=lambda one: one[1].worst_change)
        return found

    def _within_budget(self, finest: Choice) -> tuple[Choice, Simplified]:
        """The first choice from `finest` on that meets the budget, or the last one there is."""
        choices = list(self._coarser(finest))
        step, drawn = 0, 0
        while True:
            choice, last = choices[step], step == len(choices) - 1
            if self._staying(choice) > HOPELESS * self.budget.max_annotations and not last:
                step += 1
                continue
            absorption, areas_px = self._absorb(choice)
            if absorption.regions > self.budget.max_annotations and not last:
                step += 1
                continue
            coverage = self._cover(absorption)
            if not last and coverage.least_vertices(self.source.class_count) > self.budget.max_vertices:
                step += 1
                continue
            found = self._draw(choice, coverage, absorption, areas_px)
            drawn += 1
            if found[1].vertices <= self.budget.max_vertices or last or drawn == DRAWN_AT_MOST:
                return choice, found
            step = min(step + VERTEX_STEPS, len(choices) - 1)

    def _coarser(self, choice: Choice) -> Iterator[Choice]:
        """The choice, and ever coarser ones, up to a minimum area that nothing but the largest regions reaches."""
        yield choice
        largest_um2 = float(self.components.areas_px.max(initial=0)) * self.mpp.pixel_area_um2
        area_um2 = max(choice.min_area_um2, self.mpp.pixel_area_um2)
        step = 0
        # Shares grow to their last one even where no region is as large as the minimum area: of noise, say.
        while area_um2 < largest_um2 or step < len(SHARES) - 1:
            step, area_um2 = step + 1, area_um2 * 2
            yield replace(choice, min_area_um2=area_um2, share=SHARES[min(step, len(SHARES) - 1)])

    def _staying(self, choice: Choice) -> int:
        """Components of classes that are large enough to stay by themselves."""
        least_px = choice.min_area_um2 / self.mpp.pixel_area_um2
        areas_px = min_areas_px(self.components, least_px, choice.share)
        stay = self.components.areas_px >= areas_px[self.components.classes]
        return int(np.count_nonzero(stay & (self.components.classes <= self.source.class_count)))

    def _absorb(self, choice: Choice) -> tuple[Absorption, Float64Array]:
        """The components that give way with this choice, and the minimum area of each class in pixels, (256,)."""
        least_px = choice.min_area_um2 / self.mpp.pixel_area_um2
        areas_px = min_areas_px(self.components, least_px, choice.share)
        return absorb(self.components, areas_px, self.source.white), areas_px

    def _cover(self, absorption: Absorption) -> Coverage:
        """Exact polygons of what is left, white ones too."""
        sieved = SievedMap(self.source, self.components, absorption)
        found = polygonize(sieved, self.source.class_count + 1, self.block)
        if self.source.size.area >= TRIM_PX:
            trim_memory()  # uniting held as much again as what comes now
        return Coverage.from_polygons(found, self.frame)

    def _draw(self, choice: Choice, coverage: Coverage, absorption: Absorption, areas_px: Float64Array) -> Simplified:
        """Simplify the coverage, shift its borders, and sum up what that did."""
        last = self.source.class_count
        used_um = choice.tolerance_um
        if choice.raises:
            used_um = coverage.simplify_to(used_um, self.mpp, self.budget.max_vertices, last)
        else:
            coverage.simplify(used_um / self.mpp.mean)
        moved_px = 0.0
        if choice.balanced and coverage.vertices(last) <= self.budget.max_vertices:
            moved_px = balance(coverage, self.map_px, used_um / self.mpp.mean, self.frame)
        dropped_px, dropped, repaired = coverage.repair()
        pixel = self.mpp.pixel_area_um2
        vertices, polygons = coverage.vertices(last), coverage.count(last)
        summary = VectorSummary(
            tolerance_um=used_um,
            min_area_um2=float(areas_px[1 : last + 1].max()) * pixel,
            class_min_area_um2=tuple((areas_px[1 : last + 1] * pixel).tolist()),
            moved_um=moved_px * self.mpp.mean,
            map_um2=tuple((self.map_px[1 : last + 1] * pixel).tolist()),
            polygons_um2=tuple((coverage.areas_px()[1 : last + 1] * pixel).tolist()),
            polygons=polygons,
            vertices=vertices,
            absorbed=absorption.absorbed,
            absorbed_um2=absorption.absorbed_px * pixel,
            dropped=absorption.dropped + dropped,
            dropped_um2=(absorption.dropped_px + dropped_px) * pixel,
            repaired=repaired,
            within_budget=vertices <= self.budget.max_vertices and polygons <= self.budget.max_annotations,
        )
        return coverage.by_class(last), summary
