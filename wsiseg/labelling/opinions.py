"""What a model or an encoder says of candidates: which classes occur, and features by which they are told alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from wsiseg.arrays import Float32Array
from wsiseg.labelling.patch_cache import PatchCache
from wsiseg.labelling.probe import Embeddings
from wsiseg.models.embedding import Embedder
from wsiseg.models.tissue_model import TissueModel

BATCH = 32

Opinion = tuple[Float32Array, Float32Array]
"""Probability of each class (K,), and features (D,)."""


def ask(
    model: TissueModel,
    cache: PatchCache,
    patches: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mapping[str, Opinion]:
    """A model's opinions of the patches whose pixels are cut; those that it gave before come from the cache.

    Args:
        model: ready to compute. Features are the means of the classifier's deepest feature map.
        cache: of the patches.
        patches: ids.
        progress: called with how many were asked about, of how many.

    Returns:
        Patch -> (probabilities (K,), features (D,)), float32; a patch that could not be read has none.
    """
    known = cache.opinions(model.hash)
    missing = [patch for patch in patches if patch not in known]
    done = 0
    for batch in _batches(cache, missing):
        tiles = torch.from_numpy(np.stack([pixels for _, pixels in batch])).permute(0, 3, 1, 2)
        probabilities = model.classify(tiles).cpu().numpy()
        features = model.activations(tiles).mean(dim=(2, 3)).cpu().numpy()
        for (patch, _), says, looks in zip(batch, probabilities, features, strict=True):
            cache.put_opinion(patch, model.hash, says, looks)
            known[patch] = (says, looks)
        done += len(batch)
        progress(done, len(missing))
    return {patch: known[patch] for patch in patches if patch in known}


def embed(
    encoder: Embedder,
    cache: PatchCache,
    patches: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embeddings:
    """What an encoder sees in the patches whose pixels are cut; what it saw before comes from the cache."""
    known = {patch: opinion[1] for patch, opinion in cache.opinions(encoder.hash).items()}
    missing = [patch for patch in patches if patch not in known]
    nothing = np.zeros(0, np.float32)
    done = 0
    for batch in _batches(cache, missing):
        tiles = torch.from_numpy(np.stack([pixels for _, pixels in batch])).permute(0, 3, 1, 2)
        for (patch, _), looks in zip(batch, encoder(tiles).numpy(), strict=True):
            cache.put_opinion(patch, encoder.hash, nothing, looks)
            known[patch] = looks
        done += len(batch)
        progress(done, len(missing))
    return Embeddings(encoder.hash, {patch: known[patch] for patch in patches if patch in known})


def _batches(cache: PatchCache, patches: Sequence[str]) -> Iterator[list[tuple[str, np.ndarray]]]:
    batch = []
    for patch in patches:
        pixels = cache.pixels(patch)
        if pixels is not None:
            batch.append((patch, pixels))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def says(
    opinion: Opinion, names: Sequence[str], thresholds: Sequence[float], floor: float | None = None
) -> dict[str, bool]:
    """Which classes a model says occur, as its gate decides; see `wsiseg.models.gate.allowed_classes`."""
    probabilities = opinion[0]
    passed = probabilities > np.asarray(thresholds, np.float32)
    if floor is not None:
        passed |= probabilities >= floor * probabilities.max()
    elif not passed.any():
        passed[int(probabilities.argmax())] = True
    return {name: bool(value) for name, value in zip(names, passed, strict=True)}
