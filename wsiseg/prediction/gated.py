"""Patches in, gated probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wsiseg.choices import GateRule
from wsiseg.models import large_tiles as wide
from wsiseg.models.gate import allowed_classes, gate_logits, gate_published
from wsiseg.models.tissue_model import TissueModel
from wsiseg.tiling.reading import Patch

if TYPE_CHECKING:
    from wsiseg.prediction.options import PredictOptions


def batch_tensor(batch: Sequence[Patch], device: torch.device | None = None) -> Tensor:
    """Patches as one tensor (N, 3, H, W) uint8, channels last in memory, as they come from the slide.

    For a GPU it is built in pinned memory and sent while the device still computes.
    """
    first = batch[0].pixels
    pinned = device is not None and device.type == "cuda"
    out = torch.empty((len(batch), *first.shape), dtype=torch.uint8, pin_memory=pinned)
    np.stack([patch.pixels for patch in batch], out=out.numpy())
    pixels = out.permute(0, 3, 1, 2)
    return pixels.to(device, non_blocking=True) if pinned else pixels


@torch.inference_mode()
def predict_patches(
    model: TissueModel,
    patches: Tensor,
    thresholds: Tensor | None,
    rule: GateRule = "exclude",
    seen: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Probabilities of patches, gated.

    Where the gate leaves a single class its probability is 1 whatever the segmenter says, so it is not asked; by the
    published rule it always is.

    Args:
        model: both networks.
        patches: (N, 3, H, W) uint8.
        thresholds: of the gate, (K,); None leaves every class open.
        rule: see `PredictOptions.gate_rule`.
        seen: probabilities (N, K) that the gate goes by; None asks the classifier, about each patch by itself.

    Returns:
        Probabilities (N, K, H, W) float32, and which classes the gate allowed, (N, K) bool.
    """
    count, height, width = patches.shape[0], patches.shape[2], patches.shape[3]
    if thresholds is None:
        allowed = torch.ones(count, len(model.classes), dtype=torch.bool, device=model.device)
        return torch.softmax(model.segment(patches), dim=1), allowed
    seen = model.classify(patches) if seen is None else seen.to(model.device)  # (N, K)
    if rule == "multiply_logits":
        return torch.softmax(gate_published(model.segment(patches), seen, thresholds), dim=1), seen > thresholds
    allowed = allowed_classes(seen, thresholds)
    several = allowed.sum(dim=1) > 1
    if several.all():
        return torch.softmax(gate_logits(model.segment(patches), allowed), dim=1), allowed
    probabilities = allowed[:, :, None, None].float().repeat(1, 1, height, width)
    if several.any():
        logits = model.segment(patches[several.to(patches.device)])  # (n, K, H, W)
        probabilities[several] = torch.softmax(gate_logits(logits, allowed[several]), dim=1)
    return probabilities, allowed


def predict_windows(
    model: TissueModel, tiles: Tensor, thresholds: Tensor | None, options: PredictOptions
) -> tuple[Tensor, Tensor]:
    """Probabilities (N, K, T, T) of large tiles, and the classes (N, K) that the gate left open in any window of each.

    The options' gate mode is not "patches"; their overlap is that of the windows.
    """
    windows = model.spec.tiling("patches", options.overlap)
    stride_px = windows.side_px - windows.overlap_px
    mode = options.gate_mode or model.spec.gate_mode
    probabilities, allowed = wide.predict_tiles(model, tiles, thresholds, windows.side_px, stride_px, mode)
    return probabilities, allowed.any(dim=1)


def gate_thresholds(model: TissueModel, options: PredictOptions) -> Tensor | None:
    """What the gate asks of each class, (K,); None where there is no gate."""
    if not options.gate:
        return None
    if options.gate_threshold is not None:
        return torch.full_like(model.gate, options.gate_threshold)
    values = wide.gate_thresholds(model.spec, options.gate_mode or model.spec.gate_mode)
    return torch.tensor(values, dtype=torch.float32, device=model.device)
