"""Figures of confusion matrices, and their bootstrap intervals over whole groups.

All figures are computed for stacks of matrices (..., K, K) at once, so that the thousands of a bootstrap take one call.
Rows are true classes, columns predicted ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Float64Array

OVERALL = {
    "pixels": ("mean_iou", "frequency_weighted_iou", "pixel_accuracy", "class_accuracy"),
    "cells": ("balanced_accuracy", "accuracy", "mean_f1"),
}
"""Figures of all classes together, by the kind of truth; the first is what one looks at first."""

PER_CLASS = {"pixels": ("iou", "recall", "precision", "f1"), "cells": ("recall", "precision", "f1")}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        value: NaN where it is undefined, as the IoU of a class that is neither true nor predicted anywhere.
        low: lower end of the 95 % bootstrap interval; NaN where there are fewer than two groups.
        high: upper end likewise.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def to_json(self) -> dict[str, float | None]:
        """Plain JSON, null for NaN."""
        return {name: _number(getattr(self, name)) for name in ("value", "low", "high")}


def confusion_figures(confusion: npt.NDArray[Any], compared: Sequence[int] | None = None) -> dict[str, Float64Array]:
    """All figures of matrices (..., K, K): shape (...) for those of all classes, (..., K) for those of each.

    Undefined ones are NaN; means are taken over the classes for which the figure is defined.

    Args:
        confusion: the matrices.
        compared: classes that have figures of their own, all where it is None; pixels of the others count as errors.
    """
    counts = confusion.astype(np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true, given = counts.sum(axis=-1), counts.sum(axis=-2)
    total = true.sum(axis=-1)
    iou, recall = ratio(hits, true + given - hits), ratio(hits, true)
    f1, precision = ratio(2 * hits, true + given), ratio(hits, given)
    if compared is not None:
        others = [k for k in range(confusion.shape[-1]) if k not in compared]
        for figure in (iou, recall, f1, precision):
            figure[..., others] = np.nan
    accuracy, class_accuracy = ratio(hits.sum(axis=-1), total), mean(recall)
    return {
        "iou": iou,
        "recall": recall,
        "precision": precision,
        "f1": f1,
        "mean_iou": mean(iou),
        "frequency_weighted_iou": ratio((true * np.nan_to_num(iou)).sum(axis=-1), total),
        "pixel_accuracy": accuracy,
        "accuracy": accuracy,
        "class_accuracy": class_accuracy,
        "balanced_accuracy": class_accuracy,
        "mean_f1": mean(f1),
    }


def draws(groups: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """How often each group is drawn in each resample, (resamples, groups); every row adds up to `groups`."""
    drawn = np.random.default_rng(seed).integers(groups, size=(resamples, groups))
    flat = (drawn + np.arange(resamples)[:, None] * groups).ravel()
    return np.bincount(flat, minlength=resamples * groups).reshape(resamples, groups)


def bootstrap(
    sums: npt.NDArray[Any],
    figures: Callable[[npt.NDArray[Any]], dict[str, Float64Array]],
    resamples: int,
    seed: int,
) -> dict[str, list[Figure]]:
    """Figures of all groups together, each with the 95 % percentile interval over resampled groups.

    Args:
        sums: (G, ...): what each group adds to the sums that the figures are made of.
        figures: from stacks of such sums to figures, (...) or (..., K).
        resamples: how many; 0 for no intervals.
        seed: of the draws.

    Returns:
        For each name one figure, or one for each class.
    """
    values = figures(sums.sum(axis=0))
    groups = len(sums)
    if resamples < 1 or groups < 2:
        return {name: [Figure(float(v)) for v in np.atleast_1d(value)] for name, value in values.items()}
    weights = draws(groups, resamples, seed).astype(np.float64)
    resampled = figures((weights @ sums.reshape(groups, -1)).reshape(resamples, *sums.shape[1:]))
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a figure that is undefined in every resample stays NaN
        for name, value in values.items():
            low, high = np.nanpercentile(resampled[name], [2.5, 97.5], axis=0)
            rows = zip(np.atleast_1d(value), np.atleast_1d(low), np.atleast_1d(high), strict=True)
            found[name] = [Figure(float(v), float(lo), float(hi)) for v, lo, hi in rows]
    return found


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Float64Array:
    """Part by whole, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    out: Float64Array = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return out


def mean(values: Float64Array) -> Float64Array:
    """Mean over the last axis less the NaN, NaN where there is nothing else."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
