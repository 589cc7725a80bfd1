"""Where a finished model's training patches lie in its features: measured once, by the networks as they predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from wsiseg.arrays import Float32Array
from wsiseg.datasets.dataset import PatchDataset, read_dataset
from wsiseg.datasets.patch import Patch
from wsiseg.errors import DatasetError
from wsiseg.models.bundle import load_model
from wsiseg.models.devices import pick_device
from wsiseg.models.distance import LEAST_PATCHES, TrainingDistance, fit, save
from wsiseg.models.folder import find_bundle
from wsiseg.models.tissue_model import TissueModel
from wsiseg.training.loading import PatchImages, plain_loader
from wsiseg.training.origin import Origin

_BATCH = 32

MOST_PATCHES = 4000
"""Of a part of the data set; more tell no more of a mean and a few axes."""


def features_of(
    model: TissueModel, patches: Sequence[Patch], progress: Callable[[int, int], None] = lambda done, total: None
) -> Float32Array:
    """The features (N, C) of patches, as `wsiseg.prediction` computes them."""
    rows, done = [], 0
    for batch in plain_loader(PatchImages(patches, len(model.classes)), _BATCH):
        rows.append(model.classify_with_features(batch["pixels"])[1].cpu().numpy())
        done += len(rows[-1])
        progress(done, len(patches))
    return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def measured(model: TissueModel, data: PatchDataset) -> TrainingDistance | None:
    """The distance from a data set's training patches; its validation patches take part in the limit.

    Returns:
        None where there are too few patches, or of a single group.
    """
    train, val = _some(data.train), _some(data.val)
    if len(train) < LEAST_PATCHES:
        return None
    others = features_of(model, val) if len(val) >= LEAST_PATCHES else None
    digest = model.spec.networks.classifier.sha256
    return fit(features_of(model, train), [patch.group for patch in train], digest, others)


def _some(patches: Sequence[Patch]) -> list[Patch]:
    """At most `MOST_PATCHES`, spread over all."""
    if len(patches) <= MOST_PATCHES:
        return list(patches)
    return [patches[int(place)] for place in np.linspace(0, len(patches) - 1, MOST_PATCHES)]


def add_distance(folder: Path, data: PatchDataset, device: torch.device) -> TrainingDistance | None:
    """Measure the distance of a bundle that was just trained, and store it there; None where it cannot be."""
    found = measured(load_model(folder, device, "torch"), data)
    if found is not None:
        save(found, folder)
    return found


def fit_distance(
    model: str | Path, dataset: str | Path, *, device: str = "auto", mpp: float | None = None
) -> tuple[Path, TrainingDistance]:
    """Store in a finished bundle how far its training data reach; weights and `model.json` stay as they are.

    Args:
        model: a shipped model's name or a bundle's folder.
        dataset: the patches that it was trained on.
        device: "auto", "cpu", "cuda", …
        mpp: microns per pixel of the patches, if the data set does not say.

    Returns:
        The file, and what it holds.

    Raises:
        DatasetError: it cannot be read, has other classes or patches, or too few of them.
        BundleError: there is no such model.
    """
    origin = Origin.of(model)
    data = read_dataset(dataset, mpp)
    origin.require_fits(data)
    loaded = load_model(find_bundle(model), pick_device(device), "torch")
    found = measured(loaded, data)
    if found is None:
        raise DatasetError(
            f"{data.root} has {len(data.train)} training patches of {len({p.group for p in data.train})} groups; "
            f"expected at least {LEAST_PATCHES} of two groups or more"
        )
    return save(found, find_bundle(model)), found
