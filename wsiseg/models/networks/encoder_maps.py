"""What an encoder made of images, in place of the images: a frozen one need not compute the same twice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class EncoderMaps:
    """Feature maps of a lite network's encoder, which `LiteClassifier.features` and `LiteSegmenter.encode` take.

    Attributes:
        maps: as the encoder gives them, each (N, C, h, w); those that the network does not use may be empty.
        shape: of the images that they are of, (N, 3, H, W).
    """

    maps: tuple[Tensor, ...]
    shape: torch.Size

    def __len__(self) -> int:
        return self.shape[0]
