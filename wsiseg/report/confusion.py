"""Areas corrected by a confusion matrix of `wsiseg evaluate`: what was mapped as one class is in part another."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsiseg.arrays import Float64Array
from wsiseg.errors import OptionError
from wsiseg.models.folder import BUNDLES_FOLDER, EVALUATION_FILE, list_bundles
from wsiseg.models.spec import bundle_hash
from wsiseg.system.json_values import JsonObject, is_whole
from wsiseg.system.printable import printable

MAX_BYTES = 64 * 2**20
LEAST_SAMPLE = 5.0


@dataclass(frozen=True, eq=False)
class ErrorMatrix:
    """How much of what is mapped as one class is truly which.

    Attributes:
        classes: names, in the order of both axes.
        truth: (K, K): row i, column j is the share of what was mapped as class i that truly is j; rows add up to 1.
        sample: (K,) independent observations that row i is worth: fewer than its pixels, which lie in a few images.
        model_hash: of the model that was evaluated.
        kind: of the truth: "pixels" or "cells".
        data: name of the data set.
        file: name of the file.
        images: that were measured; 0 where the file does not say.
    """

    classes: tuple[str, ...]
    truth: Float64Array
    sample: Float64Array
    model_hash: str
    kind: str
    data: str
    file: str
    images: int = 0

    def for_classes(self, names: Sequence[str]) -> ErrorMatrix | None:
        """The same in the order of a map's classes; None where the classes are others."""
        if sorted(names) != sorted(self.classes):
            return None
        order = [self.classes.index(name) for name in names]
        truth, sample = self.truth[np.ix_(order, order)], self.sample[order]
        return replace(self, classes=tuple(names), truth=truth, sample=sample)

    def usable(self, mapped: Float64Array) -> str:
        """Why areas mapped as (K,) cannot be corrected; "" where they can."""
        for name, area, sample in zip(self.classes, mapped, self.sample, strict=True):
            if area > 0 and not sample >= LEAST_SAMPLE:
                return f"the evaluation has too little of what is mapped as {printable(name, 40)}"
        return ""

    def draws(self, count: int, seed: int) -> Float64Array:
        """Matrices as other samples of the same sizes would give them, (count, K, K)."""
        rng = np.random.default_rng(seed)
        found = np.zeros((count, *self.truth.shape))
        for row, (shares, sample) in enumerate(zip(self.truth, self.sample, strict=True)):
            some = shares > 0
            if some.any() and sample > 0:
                found[:, row, some] = rng.dirichlet(shares[some] * sample, size=count)
        return found


def corrected_shares(mapped: Float64Array, counts: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Shares of true classes and their standard errors, by the stratified estimator of Olofsson et al. (2014).

    Args:
        mapped: (K,) areas as mapped.
        counts: (K, K) samples, row i mapped as class i, column j truly j; each row that is mapped needs at least two.

    Returns:
        p_j = sum_i W_i n_ij / n_i, and its standard error.
    """
    weights = mapped / mapped.sum()
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros_like(counts, dtype=np.float64), where=total > 0)
    estimate = weights @ shares
    spread = np.divide(shares * (1 - shares), total - 1, out=np.zeros_like(shares), where=total > 1)
    return estimate, np.sqrt(weights**2 @ spread)


def read_evaluation(path: Path, column: str = "predicted_gate") -> ErrorMatrix:
    """The matrix of what `wsiseg evaluate --json FILE` wrote.

    Args:
        path: the file, or the folder of a bundle that it was put into.
        column: the way of predicting that the maps were made with.

    Raises:
        OptionError: it cannot be read, or holds no confusion matrix.
    """
    path = path / EVALUATION_FILE if path.is_dir() else path
    content = _read(path)
    try:
        names = content["classes"]
        found = content["columns"][column]
        confusion = np.array(found["confusion"], np.float64)
        rows = [found["classes"][name]["precision"] for name in names]
        model_hash, kind, data = content["model"]["hash"], content["truth"], content["data"].get("name", "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unfit(path) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in [*names, model_hash, kind]):
        raise _unfit(path)
    if confusion.shape != (len(names), len(names)) or not np.isfinite(confusion).all() or (confusion < 0).any():
        raise _unfit(path)
    mapped = confusion.T
    total = mapped.sum(axis=1)
    shares = np.divide(mapped, total[:, None], out=np.zeros_like(mapped), where=total[:, None] > 0)
    sample = np.array([_sample(row, count) for row, count in zip(rows, total, strict=True)])
    images = content["data"].get("images", 0)
    return ErrorMatrix(
        tuple(names), shares, sample, model_hash, kind, str(data), path.name, images if is_whole(images) else 0
    )


def evaluation_of_shipped(hashes: Collection[str]) -> ErrorMatrix | None:
    """The matrix that a model of these hashes brings with it, of those that come with the program; None without one."""
    for name in list_bundles():
        path = BUNDLES_FOLDER / name / EVALUATION_FILE
        if path.is_file() and bundle_hash(name) in hashes:
            found = read_evaluation(path)
            if found.model_hash in hashes:
                return replace(found, file=f"{name}/{path.name}")
    return None


def _read(path: Path) -> JsonObject:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise OptionError(f"{path} is larger than any evaluation; give what `wsiseg evaluate --json FILE` wrote")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}; expected a file of evaluate --json") from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{path} is not JSON; expected what `wsiseg evaluate --json FILE` wrote") from error
    if not isinstance(content, dict):
        raise _unfit(path)
    return content


def _unfit(path: Path) -> OptionError:
    return OptionError(
        f"{path} holds no confusion matrix with classes and model; expected what `wsiseg evaluate --json FILE` wrote "
        "of masks or cells"
    )


def _sample(precision: JsonObject, count: float) -> float:
    """Independent observations that a row is worth, by the interval that evaluate found over whole groups.

    A share p with a standard error s is as sure as p (1 - p) / s^2 observations make it.
    """
    value, low, high = (precision.get(key) for key in ("value", "low", "high"))
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in (value, low, high)):
        return 0.0
    assert value is not None and low is not None and high is not None
    error = (high - low) / (2 * 1.96)
    if error <= 0:
        return 0.0
    return float(min(count, max(0.0, value * (1 - value) / error**2)))
