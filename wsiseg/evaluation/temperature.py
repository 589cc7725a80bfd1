"""Temperatures: one number, or one for each class, by which the logarithms of probabilities are divided.

Guo et al. (2017) divide all logits by one temperature. Here the logarithms of the map's own probabilities take the
place of logits, so that what several patches say of a pixel together is calibrated, behind the gate and the blending.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsiseg.arrays import Float64Array, Int64Array, UInt8Array
from wsiseg.models.calibration import RANGE
from wsiseg.system.json_values import JsonObject

FOLDS = 5
LEAST = 200
"""Pixels or cells; fewer tell too little of a temperature."""

BINS = 10
"""Of the expected calibration error, of equal width."""

_SMALLEST = 0.5 / 255
"""What a stored probability of 0 may have been."""


@dataclass(frozen=True, slots=True)
class Temperatures:
    """What calibrates the probabilities of these data, and how well, on groups that it was not fitted to.

    Attributes:
        one: a single temperature; above 1 where the model is too sure of itself.
        per_class: by the classes' names.
        error: expected calibration error of the winning class: before, with one, with one for each class; the latter
            two by cross-fitting over groups, NaN with a single group.
        loss: mean negative log-likelihood, likewise.
        pixels: that were fitted to.
    """

    one: float
    per_class: dict[str, float]
    error: tuple[float, float, float]
    loss: tuple[float, float, float]
    pixels: int

    def to_json(self) -> JsonObject:
        """Plain JSON, null for NaN."""
        ways = ("before", "one", "per_class")
        shown = {
            name: {way: None if np.isnan(value) else round(value, 6) for way, value in zip(ways, values, strict=True)}
            for name, values in (("expected_calibration_error", self.error), ("negative_log_likelihood", self.loss))
        }
        per_class = {name: round(value, 4) for name, value in self.per_class.items()}
        return {"one": round(self.one, 4), "per_class": per_class, "pixels": self.pixels, **shown}


def calibrated(probabilities: Float64Array, temperatures: Float64Array) -> Float64Array:
    """Probabilities (..., K), divided by temperatures (K,) in their logarithms, that add up to 1 again."""
    logs = np.log(np.maximum(probabilities, _SMALLEST)) / temperatures
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    found: Float64Array = weights / weights.sum(axis=-1, keepdims=True)
    return found


def fit_temperatures(
    values: UInt8Array, truth: UInt8Array, groups: Int64Array, names: tuple[str, ...]
) -> Temperatures | None:
    """Temperatures of the least loss; None where too little is known, or of one class alone.

    Args:
        values: (N, K) probabilities, 255 is 1.
        truth: (N,) true channels.
        groups: (N,) slide or patient of each.
        names: of the classes.
    """
    if len(truth) < LEAST or len(np.unique(truth)) < 2:
        return None
    probabilities = values / 255.0
    one, per_class = _fit(probabilities, truth, shared=True), _fit(probabilities, truth, shared=False)
    plain = np.ones(len(names))
    error, loss = [_error(probabilities, plain, truth)], [_loss(probabilities, plain, truth)]
    for shared in (True, False):
        found = _cross_fitted(probabilities, truth, groups, shared)
        error.append(float("nan") if found is None else _error(found, plain, truth))
        loss.append(float("nan") if found is None else _loss(found, plain, truth))
    by_name = dict(zip(names, (float(value) for value in per_class), strict=True))
    return Temperatures(float(one[0]), by_name, (error[0], error[1], error[2]), (loss[0], loss[1], loss[2]), len(truth))


def _cross_fitted(
    probabilities: Float64Array, truth: UInt8Array, groups: Int64Array, shared: bool
) -> Float64Array | None:
    """Each group calibrated by temperatures of the others; None with a single group."""
    names = np.unique(groups)
    if len(names) < 2:
        return None
    found = np.empty_like(probabilities)
    fold = np.searchsorted(names, groups) % min(FOLDS, len(names))
    for number in range(min(FOLDS, len(names))):
        held = fold == number
        found[held] = calibrated(probabilities[held], _fit(probabilities[~held], truth[~held], shared=shared))
    return found


def _fit(probabilities: Float64Array, truth: UInt8Array, *, shared: bool) -> Float64Array:
    """Temperatures (K,) of the least loss, all the same where `shared`."""
    from scipy.optimize import minimize  # noqa: PLC0415  (only an evaluation needs it)

    classes = probabilities.shape[1]
    limits = (np.log(RANGE[0]), np.log(RANGE[1]))

    def loss(logs: Float64Array) -> float:
        return _loss(probabilities, np.exp(np.broadcast_to(logs, classes)), truth)

    count = 1 if shared else classes
    best = minimize(loss, np.zeros(count), method="L-BFGS-B", bounds=[limits] * count)
    found: Float64Array = np.exp(np.broadcast_to(best.x, classes)).copy()
    return found


def _loss(probabilities: Float64Array, temperatures: Float64Array, truth: UInt8Array) -> float:
    found = calibrated(probabilities, temperatures)
    return float(-np.log(np.maximum(found[np.arange(len(truth)), truth], 1e-12)).mean())


def _error(probabilities: Float64Array, temperatures: Float64Array, truth: UInt8Array) -> float:
    """Expected calibration error of the winning class."""
    found = calibrated(probabilities, temperatures)
    best, won = found.max(axis=1), found.argmax(axis=1)
    place = np.minimum((best * BINS).astype(np.int64), BINS - 1)
    difference = np.bincount(place, best - (won == truth), minlength=BINS)
    return float(np.abs(difference).sum() / len(truth))
