"""A light model of the labels there are so far: one ridge-logistic regression a class on an encoder's features.

It is fitted in a moment, before each round, and chooses with what was just answered; no network is trained. With few
labels it is rough: it helps to choose, and is no model of the tissue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsiseg.arrays import Float32Array, Float64Array
from wsiseg.labelling.advice import Advice
from wsiseg.labelling.choose import principal

RIDGE = 1.0
"""Strength of the penalty on weights, for features whose first components have a variance of about 1."""

LEAST = 2
"""Patches with a class, and without it, below which nothing is said of it."""

SOUGHT = 10
"""Answers from which on a class is sought although all of them, or all but one, are alike."""

Labels = Mapping[str, Mapping[str, int]]
"""Patch -> class -> 1 or 0; a class that is unknown is not in it."""


@dataclass(frozen=True)
class Embeddings:
    """What an encoder sees in the candidates.

    Attributes:
        encoder_hash: of the encoder.
        features: patch -> (D,).
    """

    encoder_hash: str
    features: Mapping[str, Float32Array]


class Prober:
    """Fits what an encoder sees to labels, again and again.

    Args:
        embeddings: of all candidates.

    Attributes:
        features: patch -> what the encoder sees in it, on the first principal components, (D,).
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self.embeddings = embeddings
        self._row = {patch: row for row, patch in enumerate(embeddings.features)}
        self._points = _points(list(embeddings.features.values()))
        rows = self._points.astype(np.float32)
        self.features: Mapping[str, Float32Array] = {patch: rows[row] for patch, row in self._row.items()}

    def advice(self, labels: Labels, classes: Sequence[str]) -> Advice | None:
        """What the labels so far say of all candidates; None where they are too few to say anything.

        Nothing is said of classes of which there are not `LEAST` patches with and without. They have probabilities
        all the same once there are `SOUGHT` answers: of a class that was not seen yet, these are highest where the
        tissue is least like all that was answered, which is where to look for it.
        """
        names, found, told = [], [], []
        for name in classes:
            rows, truth = self._known(labels, name)
            enough = min(truth.sum(), len(truth) - truth.sum()) >= LEAST
            if enough or len(truth) >= SOUGHT:
                names.append(name)
                found.append(_probabilities(self._points, _fitted(self._points[rows], truth)))
                told.append(enough)
        if not names:
            return None
        table = np.stack(found, axis=1).astype(np.float32)
        probabilities = {patch: table[row] for patch, row in self._row.items()}
        says = {
            patch: {name: bool(v > 0.5) for name, v, tell in zip(names, values, told, strict=True) if tell}
            for patch, values in probabilities.items()
        }
        return Advice(self.embeddings.encoder_hash, tuple(names), says, probabilities, self.features)

    def advice_apart(self, labels: Labels, classes: Sequence[str], folds: int, seed: int = 0) -> Advice:
        """As `advice`, each patch judged by a fit to the others' labels: for looking at labels again.

        Classes without enough patches are 0.5 everywhere, which doubts nothing.
        """
        table = np.full((len(self._row), len(classes)), 0.5, np.float32)
        for k, name in enumerate(classes):
            rows, truth = self._known(labels, name)
            fold = np.random.default_rng(seed).permutation(len(rows)) % folds
            for part in range(folds):
                kept = truth[fold != part]
                if min(kept.sum(), len(kept) - kept.sum()) >= LEAST:
                    held = rows[fold == part]
                    table[held, k] = _probabilities(self._points[held], _fitted(self._points[rows[fold != part]], kept))
        probabilities = {patch: table[row] for patch, row in self._row.items()}
        says = {
            patch: {name: bool(value > 0.5) for name, value in zip(classes, values, strict=True)}
            for patch, values in probabilities.items()
        }
        return Advice(self.embeddings.encoder_hash, tuple(classes), says, probabilities, self.features)

    def _known(self, labels: Labels, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows of patches whose label says something of a class, and what it says."""
        patches = [patch for patch, said in labels.items() if name in said and patch in self._row]
        rows = np.array([self._row[patch] for patch in patches], dtype=int)
        return rows, np.array([labels[patch][name] for patch in patches], dtype=np.float64)


def _points(features: Sequence[Float32Array]) -> Float64Array:
    """Features, each of a variance of 1, on their first principal components, these of 1 on the average."""
    if not features:
        return np.zeros((0, 1))
    table = np.stack(features)
    spread = table.std(axis=0)
    reduced = principal((table / np.where(spread > 0, spread, 1)).astype(np.float32))
    return reduced / max(1e-12, float(np.sqrt((reduced**2).mean())))


def _fitted(points: Float64Array, truth: Float64Array) -> Float64Array:
    """Weights (D + 1,) of a logistic regression with a ridge penalty; the last is the intercept, which has none."""
    from scipy.optimize import minimize  # noqa: PLC0415  (it takes a while to import)

    design = np.column_stack([points, np.ones(len(points))])
    penalty = np.full(design.shape[1], RIDGE)
    penalty[-1] = 1e-3  # keeps it finite where the classes part

    def loss(weights: Float64Array) -> tuple[float, Float64Array]:
        logits = design @ weights
        value = np.logaddexp(0, logits).sum() - truth @ logits + 0.5 * (penalty * weights**2).sum()
        return float(value), design.T @ (_sigmoid(logits) - truth) + penalty * weights

    found: Float64Array = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x
    return found


def _probabilities(points: Float64Array, weights: Float64Array) -> Float64Array:
    return _sigmoid(points @ weights[:-1] + weights[-1])


def _sigmoid(logits: Float64Array) -> Float64Array:
    from scipy.special import expit  # noqa: PLC0415

    found: Float64Array = expit(logits)
    return found
