"""What stage 2 is, whatever the network: an encoder and a decoder, and perhaps a gate on the encoder.

The gate of Han et al. (2022) is a second network, often the dearer one. What it is asked, which tissues occur in a
patch, the segmenter's own encoder knows as well: the shared gate is a 1x1 convolution on its deepest features, whose
mean over a patch is the patch's logit, as a class activation map's is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from wsiseg.errors import BundleError


class Segmenter(nn.Module, ABC):
    """A segmenter whose encoder may carry the gate.

    Attributes:
        feature_channels: of the encoder's deepest map.
        cell_px: pixels that one place of that map stands for, along either side.
        shared_gate: a 1x1 convolution of that map to K scores, or None.
        fixed_px: the largest side that images may have; None for any.
    """

    feature_channels: int
    cell_px: int
    shared_gate: nn.Conv2d | None
    fixed_px: int | None = None

    @abstractmethod
    def encode(self, images: Tensor) -> list[Tensor]:
        """Feature maps of normalised images (N, 3, H, W); the last, (N, feature_channels, h, w), is the deepest.

        Its place (i, j) stands for the pixels from (i, j) * cell_px on; it may reach over the image on the right and
        below.
        """

    @abstractmethod
    def decode(self, features: list[Tensor], images: Tensor) -> Tensor:
        """Logits (N, K, H, W) from what `encode` made of these images (N, 3, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K, H, W) of normalised images (N, 3, H, W)."""
        return self.decode(self.encode(images), images)

    def scored(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K, H, W), and the shared gate's scores (N, K, h, w), whose mean over a patch is its logit.

        Raises:
            BundleError: where there is no shared gate.
        """
        gate = check_shared_gate(self, "this segmenter")
        features = self.encode(images)
        return self.decode(features, images), gate(features[-1])

    def add_shared_gate(self, num_classes: int) -> nn.Conv2d:
        """Put a new gate on the encoder, of zeros: every class is as likely as not."""
        gate = nn.Conv2d(self.feature_channels, num_classes, 1)
        for parameter in gate.parameters():
            nn.init.zeros_(parameter)
        self.shared_gate = gate
        return gate


def check_shared_gate(segmenter: nn.Module, name: str) -> nn.Conv2d:
    """The shared gate of the segmenter of the model `name`.

    Raises:
        BundleError: where it has none.
    """
    gate = segmenter.shared_gate if isinstance(segmenter, Segmenter) else None
    if gate is None:
        raise BundleError(f"{name} has no shared gate: train with --gate shared, or use another gate mode")
    return gate
