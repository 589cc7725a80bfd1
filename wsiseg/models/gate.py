"""The gate: a class that the classifier does not see in a patch cannot appear in it.

Han et al. 2022, section 3.4. The published program multiplies by a mask of zeros and ones, which is not the same:
a suppressed class keeps a score of 0, and where no class passes, class 0 wins everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor


def allowed_classes(probabilities: Tensor, thresholds: Tensor, floor: float | None = None) -> Tensor:
    """Which classes may occur in each patch, bool (N, K).

    Args:
        probabilities: the classifier's, (N, K).
        thresholds: of each class, (K,) or a single value; a class must exceed its own.
        floor: share of the probability of the patch's most probable class, above 0 up to 1. A class that reaches it is
            allowed whatever its threshold, so that none is shut by a hair while others are hardly more probable; the
            most probable class never is. None for no such rule.

    Returns:
        At least one class a patch: where none passes, the most probable one.
    """
    allowed = probabilities > thresholds
    highest = probabilities.max(dim=1, keepdim=True)
    if floor is not None:
        return allowed | (probabilities >= floor * highest.values)
    likeliest = torch.zeros_like(allowed).scatter_(1, highest.indices, True)
    return torch.where(allowed.any(dim=1, keepdim=True), allowed, likeliest)


def gate_logits(logits: Tensor, allowed: Tensor) -> Tensor:
    """Logits (N, K, H, W) with minus infinity where a class is not `allowed` (N, K): its probability is exactly 0."""
    shut = torch.zeros(allowed.shape, dtype=logits.dtype, device=logits.device).masked_fill_(~allowed, -torch.inf)
    return logits + shut[:, :, None, None]  # a seventh of the time of filling them


def gate_published(scores: Tensor, probabilities: Tensor, thresholds: Tensor) -> Tensor:
    """Scores (N, K, H, W) times 1 where the classifier's probability exceeds the threshold, else times 0.

    On logits this is what the published program does. On softmax probabilities it is what its paper describes,
    and picks the same class as `gate_logits` wherever any class passes.
    """
    return scores * (probabilities > thresholds)[:, :, None, None].to(scores.dtype)
