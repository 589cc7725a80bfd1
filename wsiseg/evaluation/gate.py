"""How good the gate is at saying which classes occur in a tile, and which thresholds it should have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float64Array
from wsiseg.errors import OptionError
from wsiseg.evaluation.figures import Figure, bootstrap, ratio
from wsiseg.system.json_values import JsonObject

BINS = 10


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate on the tiles whose classes are known.

    Attributes:
        tiles: how many.
        thresholds: that were applied, (K,).
        per_class: for each class name recall, specificity, precision, average precision and prevalence.
        reliability: for each of ten equal bins of probability (all classes): low, high, count, mean probability and
            share of them in which the class does occur.
        calibration_error: expected calibration error over these bins.
        brier: mean squared difference of probability and truth.
    """

    tiles: int
    thresholds: tuple[float, ...]
    per_class: dict[str, dict[str, float]]
    reliability: tuple[dict[str, float], ...]
    calibration_error: Figure
    brier: Figure

    def to_json(self) -> JsonObject:
        """Plain JSON, null for NaN."""
        return {
            "tiles": self.tiles,
            "thresholds": [round(value, 6) for value in self.thresholds],
            "classes": {name: _plain(row) for name, row in self.per_class.items()},
            "reliability": [_plain(row) for row in self.reliability],
            "expected_calibration_error": self.calibration_error.to_json(),
            "brier": self.brier.to_json(),
        }


def gate_report(
    probabilities: Float64Array,
    truth: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    thresholds: Float64Array,
    names: tuple[str, ...],
    resamples: int,
    seed: int,
) -> GateReport:
    """Judge the gate.

    Args:
        probabilities: of each class in each tile, (N, K).
        truth: which do occur, (N, K).
        groups: of each tile, (N,), 0 … G - 1.
        thresholds: a class passes above its own, (K,); without the rule that lets the likeliest pass where none does.
        names: of the classes.
        resamples: of the bootstrap over groups.
        seed: of it.
    """
    passed = probabilities > thresholds
    rows = {}
    for k, name in enumerate(names):
        true, given = truth[:, k], passed[:, k]
        rows[name] = {
            "recall": float(ratio((true & given).sum(), true.sum())),
            "specificity": float(ratio((~true & ~given).sum(), (~true).sum())),
            "precision": float(ratio((true & given).sum(), given.sum())),
            "average_precision": average_precision(probabilities[:, k], true),
            "prevalence": float(true.mean()),
        }
    sums = _calibration_sums(probabilities, truth, groups)
    found = bootstrap(sums, _calibration, resamples, seed)
    count, predicted, occurred = sums.sum(axis=0)[:3]
    reliability = tuple(
        {
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "count": float(count[b]),
            "mean_probability": float(probability),
            "share": float(share),
        }
        for b, (probability, share) in enumerate(zip(ratio(predicted, count), ratio(occurred, count), strict=True))
    )
    return GateReport(
        len(truth), tuple(thresholds.tolist()), rows, reliability, found["calibration_error"][0], found["brier"][0]
    )


def average_precision(probabilities: Float64Array, truth: npt.NDArray[np.bool_]) -> float:
    """Sum of precision times gain in recall over falling thresholds; equal probabilities are taken at once.

    NaN where the class never occurs.
    """
    if not truth.any():
        return float("nan")
    order = np.argsort(-probabilities, kind="stable")
    last = np.append(np.diff(probabilities[order]) != 0, True)
    hits = np.cumsum(truth[order])[last]
    taken = np.flatnonzero(last) + 1
    return float((hits / taken * np.diff(hits, prepend=0)).sum() / truth.sum())


def thresholds_for_recall(probabilities: Float64Array, truth: npt.NDArray[np.bool_], recall: float) -> list[float]:
    """For each class the highest threshold that lets this share of the tiles with the class pass; 0 where it has none.

    A class must exceed its threshold, so it is the float32 number below the lowest probability that is to pass.
    """
    if not 0 < recall <= 1:
        raise OptionError(f"the gate's recall is a share, above 0 up to 1, got {recall}")
    chosen = []
    for k in range(truth.shape[1]):
        present = np.sort(probabilities[truth[:, k], k].astype(np.float32))
        lost = int((1 - recall) * len(present) + 1e-9)
        passing = float(np.nextafter(present[lost], np.float32(0))) if len(present) else 0.0
        chosen.append(max(0.0, passing))
    return chosen


def _calibration_sums(
    probabilities: Float64Array, truth: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]
) -> Float64Array:
    """(G, 4, BINS): count, probability, occurrence and squared difference of each group, summed in each bin."""
    count = int(groups.max()) + 1
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    place = (groups[:, None] * BINS + bins).ravel()
    weights = [np.ones_like(probabilities), probabilities, truth.astype(np.float64), (probabilities - truth) ** 2]
    sums = [np.bincount(place, w.ravel(), count * BINS).reshape(count, BINS) for w in weights]
    return np.stack(sums, axis=1)


def _calibration(sums: npt.NDArray[Any]) -> dict[str, Float64Array]:
    count, predicted, occurred, squared = (sums[..., i, :] for i in range(4))
    total = count.sum(axis=-1)
    return {
        "calibration_error": ratio(np.abs(predicted - occurred).sum(axis=-1), total),
        "brier": ratio(squared.sum(axis=-1), total),
    }


def _plain(row: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else round(value, 6) for name, value in row.items()}
