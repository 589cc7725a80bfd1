"""A map's endpoints, each with its interval: counted, by its probabilities, and corrected by a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely

from wsiseg.arrays import BoolArray, Float64Array
from wsiseg.errors import OptionError
from wsiseg.geometry import Size
from wsiseg.polygons.fill import fill_areas
from wsiseg.report.bulk import Bulk, BulkOptions, find_bulk
from wsiseg.report.coarse import CELL_UM, CoarseMap
from wsiseg.report.confusion import ErrorMatrix
from wsiseg.report.discs import without_small
from wsiseg.report.endpoints import ENDPOINTS, PLACES, Endpoint, Measured, Parameters, percent
from wsiseg.report.hot_spot import Field, check_diameter, find_field
from wsiseg.report.intervals import LEAST_BLOCKS, effective, likeness, spatial
from wsiseg.report.roles import RoleTable
from wsiseg.report.tally import Zone, ZoneTally, tally

PROBABILITY, CONFUSION = "+probability", "+confusion"
"""What the method's id ends with where a figure is not of counted cells."""

MOST_RESAMPLES = 100_000


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """How endpoints are measured.

    Attributes:
        bulk: how the tumour bulk is found.
        field_um: diameter of the hot spot field.
        block_um: side of the blocks that intervals are resampled over.
        resamples: of every interval; 0 for none.
        seed: of the draws.
        cell_um: microns along a cell, at most.
    """

    bulk: BulkOptions = field(default_factory=BulkOptions)
    field_um: float = 2000.0
    block_um: float = 1000.0
    resamples: int = 2000
    seed: int = 0
    cell_um: float = CELL_UM

    def __post_init__(self) -> None:
        check_diameter(self.field_um)
        if not (math.isfinite(self.block_um) and 100 <= self.block_um <= 100_000):
            raise OptionError(f"blocks must be 100 to 100000 um wide, got {self.block_um:g}")
        if not 0 <= self.resamples <= MOST_RESAMPLES:
            raise OptionError(f"expected 0 to {MOST_RESAMPLES} resamples, got {self.resamples}")
        if self.seed < 0:
            raise OptionError(f"a seed is a whole number from 0, got {self.seed}")


@dataclass(frozen=True, eq=False)
class Measures:
    """What was measured on one map.

    Attributes:
        counted: one for each endpoint that applies, in order; those without a value say why.
        variants: the same endpoints by other estimators, by name of the endpoint.
        bulk: the tumour bulk, None where there is none.
        field: the hot spot field, None where none qualifies.
        bulk_mm2: classified area of the bulk, and of the bed where one was given, by zone.
        cell_um: microns along a cell.
        worst_area_change: largest difference of a class's area at this scale from the map's own table, as a share.
    """

    counted: list[Measured]
    variants: dict[str, list[Measured]]
    bulk: Bulk | None
    field: Field | None
    zone_mm2: dict[Zone, float]
    cell_um: float
    worst_area_change: float

    def of(self, name: str) -> Measured | None:
        """An endpoint by its name; None where it does not apply."""
        return next((one for one in self.counted if one.name == name), None)


def measure(
    coarse: CoarseMap,
    roles: RoleTable,
    options: MeasureOptions,
    bed: list[Any] | None = None,
    matrix: ErrorMatrix | None = None,
) -> Measures:
    """Measure all endpoints of a map that its classes allow.

    Args:
        coarse: the map at about 8 um.
        roles: of its classes.
        options: see `MeasureOptions`.
        bed: areas of the tumour bed, in level-0 pixels of the slide; None where nobody drew one.
        matrix: of the model's evaluation, its classes in the map's order; None leaves confusion out.
    """
    tumour = coarse.mask(*roles.indices("tumour"))
    bulk = find_bulk(tumour, coarse.tissue, coarse.mpp, options.bulk) if roles.has("tumour") else None
    zones: dict[Zone, BoolArray] = {}
    hot_spot = None
    if bulk is not None:
        zones["bulk"] = bulk.bulk
        stroma = coarse.mask(*roles.indices("stroma"), *roles.indices("lymphocytes"))
        nests = without_small(tumour, options.bulk.speck_mm2, coarse.mpp)
        hot_spot = find_field(nests, stroma, bulk.outline, coarse.mpp, options.field_um)
        if hot_spot is not None:
            zones["field"] = hot_spot.mask(coarse.classes.shape, coarse.mpp)
        if options.bulk.specimen == "resection":
            zones |= {"core": bulk.core, "inner": bulk.inner, "outer": bulk.outer}
    if bed is not None:
        zones["bed"] = _drawn(bed, coarse)
    tallies = tally(coarse, zones, options.block_um)
    found: list[Measured] = []
    variants: dict[str, list[Measured]] = {}
    for endpoint in ENDPOINTS:
        if endpoint.missing(roles) or (endpoint.zone == "bed" and bed is None):
            continue
        if endpoint.zone not in tallies:
            found.append(_without(endpoint, bulk, options, np.count_nonzero(tumour) * coarse.cell_mm2))
            continue
        estimator = _Estimator(endpoint, roles, tallies[endpoint.zone], options)
        found.append(estimator.counted())
        variants[endpoint.name] = estimator.variants(matrix)
    areas = {zone: one.classified_mm2 for zone, one in tallies.items()}
    return Measures(found, variants, bulk, hot_spot, areas, coarse.mpp.mean, _area_change(coarse))


@dataclass(frozen=True, eq=False)
class _Estimator:
    """One endpoint in one zone."""

    endpoint: Endpoint
    roles: RoleTable
    zone: ZoneTally
    options: MeasureOptions

    def counted(self) -> Measured:
        """By counted cells, with the interval over blocks."""
        return self._measured(self.zone.counted, "", "spatial", None)

    def variants(self, matrix: ErrorMatrix | None) -> list[Measured]:
        """By probabilities, and corrected by a confusion matrix, where there are such."""
        found = []
        if self.zone.summed is not None:
            found.append(self._measured(self.zone.summed, PROBABILITY, "spatial", None))
        if matrix is not None:
            why = matrix.usable(self.zone.counted.sum(axis=0))
            if why:
                found.append(replace(_blank(self.endpoint, CONFUSION), reason=why))
            else:
                found.append(self._measured(self.zone.counted, CONFUSION, "spatial + confusion", matrix))
        return found

    def _measured(self, blocks: Float64Array, suffix: str, includes: str, matrix: ErrorMatrix | None) -> Measured:
        def share(areas: Float64Array) -> Float64Array:
            return percent(*self.endpoint.parts(areas, self.roles))

        total = blocks.sum(axis=0) if matrix is None else blocks.sum(axis=0) @ matrix.truth
        value = float(share(total))
        denominator = float(self.endpoint.parts(total, self.roles)[1])
        found = replace(
            _blank(self.endpoint, suffix), value=value, denominator_mm2=denominator, parameters=self._parameters(matrix)
        )
        if math.isnan(value):
            return replace(found, reason=f"nothing to divide by {PLACES[self.endpoint.zone]}")
        low, high, reason = self._interval(blocks, share, matrix)
        return replace(found, low=low, high=high, includes="" if reason else includes, reason=reason)

    def _interval(
        self,
        blocks: Float64Array,
        share: Callable[[Float64Array], Float64Array],
        matrix: ErrorMatrix | None,
    ) -> tuple[float, float, str]:
        """Low, high, and why there is none."""
        if self.endpoint.zone == "field":
            return math.nan, math.nan, "no interval: one field, chosen for its stroma"
        if self.options.resamples == 0:
            return math.nan, math.nan, "no interval was asked for"
        over, under = self.endpoint.parts(blocks if matrix is None else blocks @ matrix.truth, self.roles)
        count = effective(under)
        if count < LEAST_BLOCKS:
            held = int(np.count_nonzero(under))
            return math.nan, math.nan, (
                f"interval not estimable: {held} block{'' if held == 1 else 's'} of {self.options.block_um / 1000:g} mm"
                f"{'' if held < LEAST_BLOCKS else f', as good as {count:.1f} of equal size'}, "
                f"{LEAST_BLOCKS:g} are needed"
            )  # fmt: skip
        statistic = share
        if matrix is not None:
            truths = matrix.draws(self.options.resamples, self.options.seed + 1)
            used = 0

            def statistic(areas: Float64Array) -> Float64Array:
                nonlocal used
                part = truths[used : used + len(areas)]
                used += len(areas)
                return share(np.einsum("ri,rij->rj", areas, part))

        alike = likeness(over - under * (over.sum() / under.sum()), self.zone.places)
        low, high = spatial(blocks, statistic, self.options.resamples, self.options.seed, count, alike)
        return low, high, ""

    def _parameters(self, matrix: ErrorMatrix | None) -> Parameters:
        """What the figure depends on besides the map."""
        bulk = self.options.bulk
        found: Parameters = {"block_um": self.options.block_um, "resamples": self.options.resamples}
        found |= {"cell_um": self.options.cell_um, "seed": self.options.seed}
        if self.endpoint.zone != "bed":
            found |= {
                "bulk_diameter_um": bulk.diameter_um, "bulk_speck_mm2": bulk.speck_mm2,
                "bulk_least_mm2": bulk.least_mm2, "bulk_buffer_um": bulk.buffer_um,
            }  # fmt: skip
        if self.endpoint.zone == "field":
            found["field_um"] = self.options.field_um
        if self.endpoint.zone in ("core", "inner", "outer"):
            found["margin_um"] = bulk.margin_um
        if matrix is not None:
            found |= {"evaluation": matrix.file, "evaluation_truth": matrix.kind, "evaluation_data": matrix.data}
        return found


def _blank(endpoint: Endpoint, suffix: str) -> Measured:
    """An endpoint by an estimator, without a value yet."""
    said = {"": "", PROBABILITY: ", by probabilities", CONFUSION: ", corrected by the confusion matrix"}[suffix]
    kind = {"": "", PROBABILITY: "_by_probability", CONFUSION: "_confusion_corrected"}[suffix]
    return Measured(endpoint.name + kind, endpoint.title + said, math.nan, method=endpoint.method + suffix)


def _without(endpoint: Endpoint, bulk: Bulk | None, options: MeasureOptions, tumour_mm2: float) -> Measured:
    """An endpoint whose zone the map has not."""
    if bulk is None:
        least = options.bulk.least_mm2
        reason = f"no tumour bulk of {least:g} mm² or more in {tumour_mm2:.3g} mm² of tumour"
    elif endpoint.zone == "field":
        reason = f"no field of {options.field_um / 1000:g} mm has tumour on all sides of its border"
    else:
        reason = "there is no invasive margin on a biopsy"
    return Measured(endpoint.name, endpoint.title, math.nan, method=endpoint.method, reason=reason)


def _drawn(areas: list[Any], coarse: CoarseMap) -> BoolArray:
    """The cells whose centres lie in areas of level-0 pixels, (height, width) bool."""
    scaled = [shapely.transform(area, lambda points: points / coarse.step) for area in areas]
    return fill_areas(scaled, Size(coarse.classes.shape[1], coarse.classes.shape[0]), 1.0)


def _area_change(coarse: CoarseMap) -> float:
    """How far the class that differs most is from the map's own table, of classes that are 1 % of all or more."""
    rows: list[Mapping[str, Any]] = list(coarse.source.metadata.get("areas", []))
    exact = np.array([float(row["area_mm2"]) for row in rows])
    if len(exact) != len(coarse.source.classes) or exact.sum() <= 0:
        return math.nan
    found = np.bincount(coarse.classes.ravel(), minlength=256)[1 : len(exact) + 1] * coarse.cell_mm2
    large = exact >= 0.01 * exact.sum()
    return float(np.abs(found[large] / exact[large] - 1).max())
