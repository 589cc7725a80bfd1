"""What a report says of one slide, and of many together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsiseg.report.endpoints import ENDPOINTS, MAIN, Measured
from wsiseg.report.intervals import LEAST_PATIENTS, nested
from wsiseg.report.quality import Flag
from wsiseg.report.roles import RoleTable


@dataclass(frozen=True, slots=True)
class ModelName:
    """Which model made a map."""

    name: str
    hash: str


@dataclass(frozen=True, eq=False)
class SlideReport:
    """One map's part of a report.

    Attributes:
        slide: name of the slide.
        patient: whose it is; the slide's own name where no table says.
        further: cells of the table's further columns.
        map_name: name of the map's folder.
        quick_hash: of the slide.
        model: which made the map.
        roles: of its classes.
        areas: mm2 of each class, of tissue, white and unread, as the map's own table has them.
        colors: of each class, by its name, as CSS has them.
        measures: endpoints, those of other estimators among them, in order.
        zone_mm2: classified areas by zone.
        real_outline: share of the bulk's outline outside of which tissue goes on; NaN without one.
        cell_um: microns along a cell.
        area_change: see `Measures.worst_area_change`.
        flags: of its quality.
        notes: what else should be known, one sentence each.
        picture: file of its picture.
        has_slide: whether the picture is drawn on the slide.
    """

    slide: str
    patient: str
    further: tuple[str, ...]
    map_name: str
    quick_hash: str
    model: ModelName
    roles: RoleTable
    areas: tuple[Measured, ...]
    colors: dict[str, str]
    measures: tuple[Measured, ...]
    zone_mm2: dict[str, float]
    real_outline: float
    cell_um: float
    area_change: float
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
    picture: Path
    has_slide: bool

    def of(self, name: str) -> Measured | None:
        """A measure by its name."""
        return next((one for one in self.measures if one.name == name), None)

    def by_probability(self, name: str) -> Measured | None:
        """The same endpoint by summed probabilities."""
        return self.of(f"{name}_by_probability")

    def corrected(self, name: str) -> Measured | None:
        """The same endpoint corrected by a confusion matrix."""
        return self.of(f"{name}_confusion_corrected")

    @property
    def endpoints(self) -> list[Measured]:
        """The measures by counted cells."""
        names = {endpoint.name for endpoint in ENDPOINTS}
        return [one for one in self.measures if one.name in names]

    @property
    def flagged(self) -> list[Flag]:
        """What a person should look at."""
        return [flag for flag in self.flags if flag.state == "flagged"]


def cohort(slides: Sequence[SlideReport], resamples: int, seed: int) -> list[tuple[Measured, int, int, float, float]]:
    """Each main endpoint over patients: its mean with the interval, slides, patients, and the quartiles of patients."""
    found = []
    for endpoint in ENDPOINTS:
        if endpoint.name not in MAIN:
            continue
        values: dict[str, list[float]] = {}
        for slide in slides:
            one = slide.of(endpoint.name)
            if one is not None and one.known:
                values.setdefault(slide.patient, []).append(one.value)
        if not values:
            continue
        groups = [np.array(values[patient]) for patient in sorted(values)]
        means = np.array([group.mean() for group in groups])
        low = high = float("nan")
        includes, reason = "", ""
        if resamples == 0:
            reason = "no interval was asked for"
        elif len(groups) < LEAST_PATIENTS:
            count = f"{len(groups)} patient{'' if len(groups) == 1 else 's'}"
            reason = f"interval not estimable: {count}, {LEAST_PATIENTS} are needed"
        else:
            low, high = nested(groups, resamples, seed)
            includes = "patients + slides within patients"
        measured = Measured(
            f"cohort_{endpoint.name}", endpoint.title, float(means.mean()), low, high,
            method=f"{endpoint.method}+cohort", includes=includes, reason=reason,
            parameters={"resamples": resamples, "statistic": "mean over patients of the mean over slides"},
        )  # fmt: skip
        quartiles = np.percentile(means, [25, 75])
        slides_used = sum(len(group) for group in groups)
        found.append((measured, slides_used, len(groups), float(quartiles[0]), float(quartiles[1])))
    return found
