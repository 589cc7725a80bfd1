"""What stage 1 is, whatever the network: a classifier whose class activation maps are read at three depths."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module, ABC):
    """A multilabel patch classifier: a feature extractor, global average pooling, and a 1x1 convolution.

    Attributes:
        depths: names of the three feature maps that pseudo masks come from, shallow to deep; the last one, behind
            its ReLU, is what `fc8` sees.
        fc8: the class weights, a 1x1 convolution without bias.
        feature_dropout: applied to the deepest map before it is averaged.
        taps: whether `features` passes its first map through `tap`, so that gradients of the maps alone cost nothing
            in front of it.
        cell_px: pixels that one place of the deepest map stands for, where they do not follow from the sizes of map
            and image because images are filled up; else None.
        fixed_px: the largest side that images may have; None for any.
    """

    depths: tuple[str, str, str]
    fc8: nn.Conv2d
    feature_dropout: nn.Module
    taps: bool = False
    cell_px: float | None = None
    fixed_px: int | None = None

    @staticmethod
    def tap(x: Tensor) -> Tensor:
        """`x`, where autograd's graph begins if gradients are on and nothing before `x` asks for any.

        The layers in front of it then keep no activations, which are most of a network's memory.
        """
        return x.detach().requires_grad_() if torch.is_grad_enabled() and not x.requires_grad else x

    @abstractmethod
    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The three feature maps of `depths`, each (N, C, h, w), from normalised images (N, 3, H, W)."""

    def forward(self, images: Tensor, drop_above: float | None = None) -> Tensor:
        """Logits (N, K); `drop_above` is PDA's mu in (0, 1], None switches it off."""
        return self.head(self.features(images)[self.depths[-1]], drop_above)

    def head(self, deepest: Tensor, drop_above: float | None = None, normalise_attention: bool = False) -> Tensor:
        """Logits (N, K) from the deepest feature map (N, C, h, w)."""
        if drop_above is not None:
            deepest = deepest * self.dropout_attention(deepest, drop_above, normalise_attention)
        pooled = F.adaptive_avg_pool2d(self.feature_dropout(deepest), 1)  # (N, C, 1, 1)
        logits: Tensor = self.fc8(pooled)
        return logits.flatten(1)

    def activation_maps(self, deepest: Tensor) -> Tensor:
        """Class activation maps ReLU(w_k . m), (N, K, h, w), of the deepest feature map m (N, C, h, w)."""
        return F.relu(self.fc8(deepest))

    def dropout_attention(self, deepest: Tensor, drop_above: float, normalise: bool = False) -> Tensor:
        """Progressive dropout attention (Han et al. 2022, section 3.2): (N, 1, h, w).

        A = (1/K) sum_k M_k where M_k <= mu * max(M_k), else 0: what discriminates most is dropped, so that the
        rest of a tissue has to be learned as well.

        Args:
            deepest: the deepest feature map m (N, C, h, w).
            drop_above: mu.
            normalise: divide A by its maximum in each patch, so that features keep their scale. The published
                program does not.
        """
        maps = self.activation_maps(deepest)
        peak = maps.amax(dim=(2, 3), keepdim=True)  # (N, K, 1, 1)
        attention = torch.where(maps <= drop_above * peak, maps, 0).mean(dim=1, keepdim=True)
        if normalise:
            attention = attention / attention.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)
        return attention
