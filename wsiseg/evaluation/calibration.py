"""Whether the map's probabilities mean what they say, and what areas are worth that are made of them.

A calibrated model is right in 80 % of the pixels to which it gives 0.8. Where it is not, areas as sums of probabilities
and areas as counted pixels disagree, and ratios of areas are off by more than any interval over blocks shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float64Array, Int64Array, UInt8Array
from wsiseg.evaluation.figures import Figure, bootstrap, ratio
from wsiseg.evaluation.temperature import BINS, Temperatures, fit_temperatures
from wsiseg.models.calibration import Calibration
from wsiseg.system.json_values import JsonObject

Reliability = tuple[dict[str, float], ...]
"""Of each bin: low, high, count, mean probability and share that is right."""

VALUES = 256
SAMPLE = 2000
"""Pixels of an image that temperatures are fitted to, at most, evenly spread."""


class CalibrationTally:
    """What has been counted of probabilities, group by group.

    Attributes:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._counts: list[Int64Array] = []  # (2, K + 1, 256) of each group; the last row is the winning class
        self._samples: list[tuple[int, UInt8Array, UInt8Array]] = []  # group, (N, K) values, (N,) truth

    def add(self, group: int, values: UInt8Array, given: UInt8Array, truth: npt.NDArray[np.integer[Any]]) -> None:
        """Add pixels or cells of an image.

        Args:
            group: its number.
            values: (K, N) uint8 probabilities, 255 is 1.
            given: (N,) channels that won.
            truth: (N,) true channels; others than 0 to K - 1 are not known.
        """
        known = (truth >= 0) & (truth < self.num_classes) & (given < self.num_classes)
        values, won, true = values[:, known], given[known].astype(np.int64), truth[known].astype(np.int64)
        while len(self._counts) <= group:
            self._counts.append(np.zeros((2, self.num_classes + 1, VALUES), np.int64))
        sums = self._counts[group]
        best = values[won, np.arange(len(won))]
        for row, (probability, right) in enumerate(
            [*((values[k], true == k) for k in range(self.num_classes)), (best, won == true)]
        ):
            sums[0, row] += np.bincount(probability, minlength=VALUES)
            sums[1, row] += np.bincount(probability[right], minlength=VALUES)
        if len(true):
            places = np.unique(np.linspace(0, len(true) - 1, min(SAMPLE, len(true))).astype(np.int64))
            self._samples.append((group, values[:, places].T.copy(), true[places].astype(np.uint8)))

    def report(
        self, confusion: Int64Array, names: Sequence[str], resamples: int, seed: int
    ) -> CalibrationReport | None:
        """What was found; None where nothing is known.

        Args:
            confusion: (K, K) of the same pixels, rows true.
            names: of the classes.
            resamples: of the bootstrap over groups.
            seed: of it.
        """
        if not self._samples:
            return None
        sums = np.stack(self._counts)  # (G, 2, K + 1, 256)
        found = bootstrap(sums, _errors, resamples, seed)
        total = sums.sum(axis=0)
        groups = np.concatenate([np.full(len(true), group) for group, _, true in self._samples])
        values = np.concatenate([values for _, values, _ in self._samples])
        true = np.concatenate([true for _, _, true in self._samples])
        temperatures = fit_temperatures(values, true, groups, tuple(names))
        return CalibrationReport(
            error=found["winner"][0],
            class_errors=dict(zip(names, found["classes"], strict=True)),
            reliability=_table(total[:, -1]),
            class_reliability={name: _table(total[:, k]) for k, name in enumerate(names)},
            areas=_areas(total, confusion, names),
            temperatures=temperatures,
            fitted=None if temperatures is None else (self._sampled(None), self._sampled(temperatures.one)),
        )

    def _sampled(self, temperature: float | None) -> Reliability:
        """Reliability of the winning class in the pixels that temperatures are fitted to, at one of them."""
        tally = CalibrationTally(self.num_classes)
        for _, values, true in self._samples:
            said = values.T if temperature is None else Calibration(temperature, ("", "")).of(values.T)
            tally.add(0, said, values.argmax(axis=1).astype(np.uint8), true)
        return _table(tally._counts[0][:, -1])


@dataclass(frozen=True, slots=True)
class AreaCheck:
    """One class's share of all pixels whose truth is known, three ways.

    Attributes:
        true: of the pixels that truly are it.
        counted: of the pixels that were mapped as it.
        summed: its probabilities, summed.
    """

    true: float
    counted: float
    summed: float

    def to_json(self) -> JsonObject:
        """Plain JSON, with the differences."""
        shares = {"true": self.true, "counted": self.counted, "summed": self.summed}
        shares |= {"counted_minus_true": self.counted - self.true, "summed_minus_true": self.summed - self.true}
        return {name: round(value, 6) for name, value in shares.items()}


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """How far the map's probabilities can be believed.

    Attributes:
        error: expected calibration error of the winning class's probability: mean distance of what it says from how
            often it is right, over ten bins, weighted by pixels.
        class_errors: the same of each class's probability.
        reliability: of the winning class: for each bin low, high, count, mean probability and share that is right.
        class_reliability: of each class's probability: the share is that of pixels which truly are of it.
        areas: of each class.
        temperatures: what calibrates the probabilities that the networks give, None where too little is known.
        fitted: reliability of the winning class in the pixels that these were fitted to: as the networks give it, and
            with the single temperature.
        before: error and reliability of the winning class without the temperature that the model brings with it; None
            where it has none, and all else is of what the networks give.
    """

    error: Figure
    class_errors: dict[str, Figure]
    reliability: Reliability
    class_reliability: dict[str, Reliability]
    areas: dict[str, AreaCheck]
    temperatures: Temperatures | None
    fitted: tuple[Reliability, Reliability] | None = None
    before: tuple[Figure, Reliability] | None = None

    def followed_by(self, after: CalibrationReport | None) -> CalibrationReport:
        """The report `after` a temperature, beside this one, of what the networks give."""
        assert after is not None
        return replace(after, temperatures=self.temperatures, fitted=self.fitted, before=(self.error, self.reliability))

    def to_json(self) -> JsonObject:
        """Plain JSON, null for NaN."""
        return {
            "expected_calibration_error": self.error.to_json(),
            "class_errors": {name: figure.to_json() for name, figure in self.class_errors.items()},
            "reliability": reliability_json(self.reliability),
            "class_reliability": {name: reliability_json(rows) for name, rows in self.class_reliability.items()},
            "areas": {name: area.to_json() for name, area in self.areas.items()},
            "temperatures": None if self.temperatures is None else self.temperatures.to_json(),
            **(
                {}
                if self.before is None
                else {
                    "before_temperature": {
                        "expected_calibration_error": self.before[0].to_json(),
                        "reliability": reliability_json(self.before[1]),
                    }
                }
            ),
        }


def _binned(sums: npt.NDArray[Any]) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Count, summed probability and hits (..., BINS) of sums (..., 2, 256)."""
    probability = np.arange(VALUES) / (VALUES - 1)
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    into = (place[:, None] == np.arange(BINS)).astype(np.float64)
    counts, hits = sums[..., 0, :].astype(np.float64), sums[..., 1, :].astype(np.float64)
    return counts @ into, (counts * probability) @ into, hits @ into


def _errors(sums: npt.NDArray[Any]) -> dict[str, Float64Array]:
    """Expected calibration errors of sums (..., 2, K + 1, 256)."""
    count, said, hits = _binned(np.moveaxis(sums, -2, -3))  # (..., K + 1, BINS)
    errors = ratio(np.abs(said - hits).sum(axis=-1), count.sum(axis=-1))
    return {"winner": errors[..., -1], "classes": errors[..., :-1]}


def reliability_json(rows: Reliability) -> list[dict[str, float | None]]:
    """Plain JSON, null for NaN."""
    return [_plain(row) for row in rows]


def _table(sums: Int64Array) -> Reliability:
    """The bins of sums (2, 256)."""
    count, said, hits = _binned(sums)
    rows = zip(count, ratio(said, count), ratio(hits, count), strict=True)
    return tuple(
        {"low": b / BINS, "high": (b + 1) / BINS, "count": float(n), "mean_probability": float(p), "share": float(s)}
        for b, (n, p, s) in enumerate(rows)
    )


def _areas(total: Int64Array, confusion: Int64Array, names: Sequence[str]) -> dict[str, AreaCheck]:
    pixels = max(1.0, float(confusion.sum()))
    summed = (total[0, :-1] * np.arange(VALUES)).sum(axis=1) / (VALUES - 1) / max(1, int(total[0, 0].sum()))
    true, counted = confusion.sum(axis=1) / pixels, confusion.sum(axis=0) / pixels
    return {name: AreaCheck(float(true[k]), float(counted[k]), float(summed[k])) for k, name in enumerate(names)}


def _plain(row: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else round(value, 6) for name, value in row.items()}
