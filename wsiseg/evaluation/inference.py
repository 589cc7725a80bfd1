"""From a model and patches to probabilities, under one of the gates that are compared."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wsiseg.models.gate import allowed_classes, gate_published
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gated import predict_patches

Gate = Literal["none", "predicted", "oracle"]


@torch.inference_mode()
def tile_probabilities(
    model: TissueModel,
    patches: Tensor,
    gate: Gate,
    *,
    thresholds: Tensor | None = None,
    truth: Tensor | None = None,
    flips: bool = False,
    seen: Tensor | None = None,
) -> Tensor:
    """Probabilities (N, K, H, W) float32 of patches.

    Args:
        model: both networks.
        patches: (N, 3, H, W) uint8, square.
        gate: "none" leaves every class open, "predicted" asks the classifier, "oracle" allows the true classes.
        thresholds: of the predicted gate, (K,); None takes the model's.
        truth: the true classes, (N, K) bool, for the oracle; a patch without any has all of them open.
        flips: average the segmenter's softmax and the classifier's probabilities over the eight orientations; the
            gate is applied to the averages.
        seen: probabilities (N, K) that the predicted gate goes by; None asks the classifier about each patch by itself.
    """
    limits = model.gate if thresholds is None else thresholds
    rule = model.spec.gate_rule
    if gate != "oracle" and not flips:
        return predict_patches(model, patches, limits if gate == "predicted" else None, rule, seen)[0]
    turned = orientations(patches) if flips else [patches]
    if gate == "predicted" and seen is None:
        seen = classified(model, patches, flips)
    if gate == "predicted" and rule == "multiply_logits":
        assert seen is not None
        logits = torch.stack([undone(model.segment(view), index) for index, view in enumerate(turned)]).mean(dim=0)
        return torch.softmax(gate_published(logits, seen.to(model.device), limits), dim=1)
    softmax = [torch.softmax(model.segment(view), dim=1) for view in turned]
    if flips:
        softmax = [undone(values, index) for index, values in enumerate(softmax)]
    probabilities = torch.stack(softmax).mean(dim=0)
    if gate == "none":
        return probabilities
    if gate == "oracle":
        assert truth is not None
        known = truth.to(model.device)
        allowed = known | ~known.any(dim=1, keepdim=True)
    else:
        assert seen is not None
        allowed = allowed_classes(seen.to(model.device), limits)
    masked = probabilities * allowed[:, :, None, None]
    total = masked.sum(dim=1, keepdim=True)
    # Where the allowed classes underflow together they share what is left equally.
    even = allowed / allowed.sum(dim=1, keepdim=True)
    return torch.where(total > 0, masked / total.clamp_min(torch.finfo(total.dtype).tiny), even[:, :, None, None])


@torch.inference_mode()
def classified(model: TissueModel, patches: Tensor, flips: bool) -> Tensor:
    """The classifier's probabilities (N, K), averaged over the eight orientations where `flips`."""
    turned = orientations(patches) if flips else [patches]
    return torch.stack([model.classify(view) for view in turned]).mean(dim=0)


def orientations(patches: Tensor) -> list[Tensor]:
    """The eight flips and rotations of square patches (N, C, P, P)."""
    return [
        torch.rot90(patches.flip(3) if index >= 4 else patches, index % 4, (2, 3)).contiguous() for index in range(8)
    ]


def undone(values: Tensor, index: int) -> Tensor:
    """What was computed on `orientations(…)[index]`, turned back."""
    back = torch.rot90(values, -(index % 4), (2, 3))
    return back.flip(3) if index >= 4 else back
