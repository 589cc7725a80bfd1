"""The shared gate: a head on the trained segmenter's encoder, taught by the patch labels.

The encoder stays as stage 2 left it. The head's logit is linear in the mean of its features over a patch, so training
is a logistic regression on these means: a few passes of the encoder over augmented patches, then seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.datasets.dataset import Patch, PatchDataset
from wsiseg.errors import OptionError
from wsiseg.models.gate_kinds import MODES
from wsiseg.models.large_tiles import Windows
from wsiseg.models.networks.segmenter import Segmenter
from wsiseg.models.tile_shape import default_tile
from wsiseg.models.tissue_model import normalise
from wsiseg.system.json_values import JsonObject
from wsiseg.training.augment import Augmentation
from wsiseg.training.config import NetworkConfig, TrainingConfig
from wsiseg.training.loading import PatchImages, patch_weights, plain_loader
from wsiseg.training.make_masks import gate_thresholds
from wsiseg.training.stage1 import average_precision

_BATCH = 32
_SEED_OFFSET = 2  # stage 1 has the configuration's seed, stage 2 the next
_STEPS = 200


@dataclass(frozen=True, slots=True)
class SharedGate:
    """The outcome of `train_shared_gate`.

    Attributes:
        gate: the head, on the segmenter's device; it is the segmenter's `shared_gate` now.
        thresholds: (K,), chosen on the validation patches as the classifier's are.
        precision: mean average precision on the validation patches; None where none is labelled.
    """

    gate: nn.Conv2d
    thresholds: list[float]
    precision: float | None


def tile_fields(config: TrainingConfig, patch_px: int) -> JsonObject:
    """Fields of a bundle for a gate mode that needs tiles; empty for patches."""
    if not MODES[config.gate.mode].large_tiles:
        return {}
    tile_px, margin_px = default_tile(patch_px, config.overlap)
    return {"gate_mode": config.gate.mode, "tile_px": tile_px, "tile_margin_px": margin_px}


def check_carries_gate(segmenter: nn.Module, architecture: str) -> Segmenter:
    """The segmenter, where a shared gate can be put on its encoder.

    Raises:
        OptionError: where it cannot.
    """
    if not isinstance(segmenter, Segmenter):
        raise OptionError(f"{architecture} cannot carry a shared gate, use --gate patches or windows")
    return segmenter


def train_shared_gate(
    segmenter: Segmenter, data: PatchDataset, config: TrainingConfig, device: torch.device, progress: bool
) -> SharedGate:
    """Put a gate on a trained segmenter's encoder and teach it the labels of the training patches.

    Args:
        segmenter: on `device`; it gets, or loses and gets, its `shared_gate`. Its other weights are not changed.
        data: patches with labels.
        config: of the training; `gate` says how many passes, how much decay and how thresholds are chosen.
        device: what computes.
        progress: show progress.
    """
    count = len(data.classes)
    segmenter.eval()
    train = [patch for patch in data.train if patch.label]
    features = encoded(segmenter, train, count, config, device, config.gate.shared_passes, progress)
    labels = _labels(train).repeat(max(1, config.gate.shared_passes), 1)
    gate = segmenter.add_shared_gate(count).to(device).requires_grad_(False)
    weight, bias = fit_head(features, labels, config.gate.shared_decay)
    if config.half_weights:
        weight = weight.half().float()  # as the bundle will hold it, so that thresholds fit
    gate.load_state_dict({"weight": weight[:, :, None, None], "bias": bias})
    labelled = [patch for patch in data.val if patch.label]
    if not labelled:
        return SharedGate(gate, [config.gate.threshold] * count, None)
    found = encoded(segmenter, labelled, count, config, device, 0, progress).to(device)
    probabilities = torch.sigmoid(gate(found[:, :, None, None])).flatten(1).float().cpu()
    precision = float(average_precision(probabilities, _labels(labelled).long()))
    return SharedGate(gate, gate_thresholds(probabilities, labelled, config.gate), precision)


def _labels(patches: Sequence[Patch]) -> Tensor:
    return torch.tensor([patch.label for patch in patches], dtype=torch.float32)


@torch.no_grad()
def encoded(
    segmenter: Segmenter,
    patches: Sequence[Patch],
    num_classes: int,
    config: TrainingConfig,
    device: torch.device,
    passes: int,
    progress: bool,
) -> Tensor:
    """Means (passes * N, C), float32 on the CPU, of the encoder's deepest features over each patch.

    Args:
        segmenter: in evaluation mode.
        patches: N.
        num_classes: K.
        config: normalisation, augmentation of stage 2, seed.
        device: what computes.
        passes: over the patches, each augmented otherwise; 0 for one without augmentation.
        progress: show progress.
    """
    augment, generator = Augmentation(config.augmentation2), torch.Generator().manual_seed(config.seed + _SEED_OFFSET)
    norm = _norm(config.segmenter, device)
    batches = plain_loader(PatchImages(patches, num_classes), _BATCH)
    rows = []
    for number in track(range(max(1, passes)), "Shared gate", disable=not progress, transient=True):
        del number
        for batch in batches:
            pixels = batch["pixels"]
            if passes:
                changed, _ = augment(pixels.float() / 255, None, generator)
                images = (changed.to(device) - norm[0]) / norm[1]
            else:
                images = normalise(pixels.to(device), *norm)
            side = images.shape[-1]
            deepest = segmenter.encode(images.contiguous(memory_format=torch.channels_last))[-1]
            rows.append(Windows(side, side, side).means(deepest, segmenter.cell_px).flatten(1).cpu())
    return torch.cat(rows)


def _norm(config: NetworkConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (config.mean, config.std))
    return mean, std


def fit_head(features: Tensor, labels: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Weight (K, C) and bias (K,), float32, of a logistic regression for each class, on the CPU, in float64.

    Patches count by the inverse frequency of their rarest class, as `patch_weights` draws them in stage 1.

    Args:
        features: (N, C).
        labels: 0 or 1, or -1 where a label is unknown and left out, (N, K).
        decay: what half the squared weights of standardised features cost.
    """
    x, y = features.double(), labels.double().clamp_min(0)
    known = (labels >= 0).double()
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0).clamp_min(1e-6)
    x = (x - mean) / deviation
    counts = torch.from_numpy(patch_weights(labels.numpy().astype(np.float64)))[:, None]
    counts = counts / counts.mean()
    weight = torch.zeros(labels.shape[1], x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(labels.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        losses = F.binary_cross_entropy_with_logits(x @ weight.T + bias, y, reduction="none") * known
        cost = (losses * counts).mean(dim=0).sum()
        cost = cost + decay * weight.square().sum() / 2
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scaled = weight / deviation
        return scaled.float(), (bias - scaled @ mean).float()
