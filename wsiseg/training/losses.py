"""Multi-layer pseudo-supervision: stage 2 learns from the pseudo masks of three depths at once.

Han et al. 2022, section 3.3. The mask of the deepest layer is the guide: where it says background, one more channel
of score 100 takes the pixel out of the loss, since the softmax is then certain of background whatever the
segmenter says; elsewhere that channel is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from wsiseg.errors import OptionError


@dataclass(frozen=True, slots=True)
class SupervisionOptions:
    """How the masks of the depths add up to one loss.

    Attributes:
        weights: of the cross-entropies against the masks, the deepest (the guide) first.
        background_score: of the background channel where the guide is background.
        divide_by_batch: divide the mean over all pixels by the batch size once more, as the published program does,
            which gives an incomplete last batch of 2 patches ten times the weight of a batch of 20.
    """

    weights: tuple[float, ...] = (0.6, 0.2, 0.2)
    background_score: float = 100.0
    divide_by_batch: bool = False

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise OptionError(f"weights must not be negative, and one of them positive, got {self.weights}")

    @classmethod
    def published(cls) -> Self:
        """The options of the published program."""
        return cls(divide_by_batch=True)


def layer_losses(
    logits: Tensor, masks: Sequence[Tensor], options: SupervisionOptions, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy against each mask, float32 (L,), not weighted.

    Args:
        logits: of the segmenter, (N, K, H, W).
        masks: L pseudo masks (N, H, W) of values 0 … K, K for background; the guide first.
        options: see `SupervisionOptions`.
        class_weights: of the K classes and background, (K + 1,); None weighs all alike.
    """
    num_classes = logits.shape[1]
    guide = (masks[0] == num_classes).unsqueeze(1)  # (N, 1, H, W)
    scores = torch.cat([logits.float(), guide.float() * options.background_score], dim=1)  # (N, K + 1, H, W)
    logs = F.log_softmax(scores, dim=1)
    losses = torch.stack([F.nll_loss(logs, mask.long(), class_weights) for mask in masks])
    return losses / logits.shape[0] if options.divide_by_batch else losses


def multilayer_loss(
    logits: Tensor, masks: Sequence[Tensor], options: SupervisionOptions, class_weights: Tensor | None = None
) -> Tensor:
    """The weighted sum of `layer_losses`, a scalar."""
    if len(masks) != len(options.weights):
        raise ValueError(f"{len(options.weights)} weights need as many masks, got {len(masks)}")
    losses = layer_losses(logits, masks, options, class_weights)
    return (losses * losses.new_tensor(options.weights)).sum()
