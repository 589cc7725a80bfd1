"""How far a patch is from what a model was trained on, in the features of its own classifier.

A softmax is sure of itself anywhere. But what the classifier's early layers say of a patch, on average over it, differs
by stain, scanner and texture, and lies elsewhere for tissue that the model never saw. (Its last layers have forgotten
what did not tell its classes apart.) The Mahalanobis distance from the mean of the training patches (Lee et al. 2018)
says how far: in the directions in which training patches vary most each by its own variance, in all others by their
common one, as probabilistic principal components have it. So a few kilobytes hold it. They lie in a file of their own,
which a bundle may lack: then the distance is not known. Programs that do not know the file read the bundle as before.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wsiseg.arrays import Float32Array, Float64Array
from wsiseg.errors import BundleError
from wsiseg.models.folder import file_inside
from wsiseg.system.files import whole_file
from wsiseg.system.json_values import is_number, is_whole

DISTANCE_FILE = "distance.safetensors"
MAX_BYTES = 4 * 2**20
LEAST_PATCHES = 50
"""Fewer tell nothing of how training patches vary."""

COMPONENTS = 16
LIMIT_SHARE = 0.99
"""Share of the patches of images that were not fitted to that are nearer than the limit, but for the margin."""

MARGIN = 1.1
"""What the limit is multiplied by: slides of other laboratories than the training's are a little farther."""

FOLDS = 5
FORMAT = 1


@dataclass(frozen=True, eq=False)
class TrainingDistance:
    """Where the features of training patches lie, and how far from there a patch may be.

    Attributes:
        mean: (C,) float32, of the features.
        axes: (C, R) float32, orthonormal: in which they vary most.
        variance: (R + 1,) float32, along each of these, and along any other.
        limit: the distance that counts as 1.
        network_sha256: of the classifier's weights whose features these are.
        patches: that it was fitted to.
        groups: slides or patients that they came from.
        sha256: of all of the above.
    """

    mean: Float32Array
    axes: Float32Array
    variance: Float32Array
    limit: float
    network_sha256: str
    patches: int
    groups: int

    @property
    def sha256(self) -> str:
        """See above."""
        digest = hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode())
        for array in (self.mean, self.axes, self.variance):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _facts(self) -> dict[str, str | int | float]:
        return {
            "format": FORMAT, "network_sha256": self.network_sha256, "limit": self.limit, "patches": self.patches,
            "groups": self.groups,
        }  # fmt: skip

    def of(self, features: Float32Array) -> Float32Array:
        """How far patches are, (N,), in limits, by their features (N, C).

        Raises:
            BundleError: for features of another number.
        """
        if features.shape[1] != len(self.mean):
            raise BundleError(
                f"{DISTANCE_FILE} is of {len(self.mean)} features, the classifier has {features.shape[1]}; copy or "
                "download the bundle again, or remove the file, and distances are not known"
            )
        return (distances(features, self.mean, self.axes, self.variance) / self.limit).astype(np.float32)


def distances(features: Float32Array, mean: Float32Array, axes: Float32Array, variance: Float32Array) -> Float64Array:
    """Of features (N, C), from what `placed` found of others."""
    centred = features.astype(np.float64) - mean
    # Without a matrix library: its sums depend on how many patches come at once, and the map's bytes must not.
    along = np.einsum("nc,cr->nr", centred, axes.astype(np.float64))
    rest = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
    found: Float64Array = np.sqrt((along**2 / variance[:-1]).sum(axis=1) + rest / variance[-1])
    return found


def fit(
    features: Float32Array,
    groups: Sequence[str],
    network_sha256: str,
    others: Float32Array | None = None,
) -> TrainingDistance | None:
    """Where training patches lie; None where there are too few of them.

    The limit is set by patches that are not fitted to: each fold of the groups by the patches of the others.

    Args:
        features: (N, C) of the training patches, as prediction computes them.
        groups: slide or patient of each.
        network_sha256: of the classifier's weights.
        others: (M, C) of patches that were not learned from, such as those of validation.
    """
    names = sorted(set(groups))
    if len(features) < LEAST_PATCHES or len(names) < 2:
        return None
    fold_of = {name: number % FOLDS for number, name in enumerate(names)}
    folds = np.array([fold_of[name] for name in groups])
    unseen = [
        distances(features[folds == fold], *placed(features[folds != fold])) for fold in range(min(FOLDS, len(names)))
    ]
    whole = placed(features)
    limit = float(np.quantile(np.concatenate(unseen), LIMIT_SHARE))
    if others is not None and len(others) >= LEAST_PATCHES:
        limit = max(limit, float(np.quantile(distances(others, *whole), LIMIT_SHARE)))
    if not math.isfinite(limit) or limit <= 0:
        return None
    return TrainingDistance(*whole, MARGIN * limit, network_sha256, len(features), len(names))


def placed(features: Float32Array, components: int = COMPONENTS) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Mean, axes and variances of features (N, C)."""
    centred = features.astype(np.float64) - (mean := features.astype(np.float64).mean(axis=0))
    count, channels = centred.shape
    components = min(components, channels - 1, count - 2)
    values, vectors = np.linalg.eigh(centred.T @ centred / (count - 1))  # ascending
    rest = max(float(values[: channels - components].mean()), 1e-9 * max(float(values[-1]), 1e-12))
    largest = np.maximum(values[::-1][:components], rest)
    axes = vectors[:, ::-1][:, :components]
    # What is stored has 16 bits; so that the same is fitted to and used, it is rounded here.
    halved = axes.astype(np.float16).astype(np.float32)
    return mean.astype(np.float32), halved, np.append(largest, rest).astype(np.float32)


def save(distance: TrainingDistance, folder: Path) -> Path:
    """Write it into a bundle's folder, in place of what is there; the file's path."""
    path = folder / DISTANCE_FILE
    facts = {name: json.dumps(value) for name, value in {**distance._facts(), "sha256": distance.sha256}.items()}
    arrays = {"mean": distance.mean, "axes": distance.axes.astype(np.float16), "variance": distance.variance}
    with whole_file(path) as part:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part, metadata=facts)
        part.chmod(0o644)  # the library makes it private, a bundle is as public as its folder
    return path


def load(folder: Path, network_sha256: str) -> TrainingDistance | None:
    """That of a bundle, or None where it has none.

    Args:
        folder: of the bundle.
        network_sha256: of its classifier's weights.

    Raises:
        BundleError: the file is damaged, was altered, or belongs to other weights.
    """
    if not (folder / DISTANCE_FILE).exists() and not (folder / DISTANCE_FILE).is_symlink():
        return None
    path = file_inside(folder, DISTANCE_FILE, MAX_BYTES)
    advice = "copy or download the bundle again, or remove the file, and distances are not known"
    try:
        with safe_open(path, framework="numpy") as file:
            facts = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError, TypeError) as error:
        raise BundleError(f"{path} is not a whole safetensors file; {advice}") from error
    if is_whole(facts.get("format")) and facts["format"] > FORMAT:
        raise BundleError(f"{path} was made by a newer wsiseg; update this one, or remove the file")
    found = _checked(facts, arrays)
    if found is None or found.sha256 != facts.get("sha256"):
        raise BundleError(f"{path} was altered or is damaged; {advice}")
    if found.network_sha256 != network_sha256:
        raise BundleError(f"{path} belongs to other weights than this bundle's classifier has; {advice}")
    return found


def _checked(facts: Mapping[str, object], arrays: Mapping[str, npt.NDArray[Any]]) -> TrainingDistance | None:
    """What a file holds; None where it is no such thing."""
    limit, patches, groups, digest = (facts.get(name) for name in ("limit", "patches", "groups", "network_sha256"))
    if facts.get("format") != FORMAT or set(arrays) != {"mean", "axes", "variance"}:
        return None
    if not is_number(limit) or not math.isfinite(limit) or limit <= 0 or not is_whole(patches) or not is_whole(groups):
        return None
    mean, axes, variance = (arrays[name] for name in ("mean", "axes", "variance"))
    if mean.dtype != np.float32 or axes.dtype != np.float16 or variance.dtype != np.float32 or axes.ndim != 2:
        return None
    if mean.shape != axes.shape[:1] or variance.shape != (axes.shape[1] + 1,) or not isinstance(digest, str):
        return None
    if not all(np.isfinite(array).all() for array in (mean, axes, variance)) or not (variance > 0).all():
        return None
    return TrainingDistance(mean, axes.astype(np.float32), variance, float(limit), digest, patches, groups)
