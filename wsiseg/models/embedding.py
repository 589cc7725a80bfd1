"""What an encoder sees in patches, as one row of numbers a patch: by these, patches are told alike.

The encoder has the weights it was published with; nothing is trained here.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from wsiseg.models.networks.lite import LiteClassifier, encoder_normalisation, load_imagenet_weights
from wsiseg.models.runtime.patch_network import channels, normalise


class Embedder:
    """An encoder that gives features of patches, ready to compute.

    Args:
        encoder: name of a timm encoder.
        device: where it computes.

    Attributes:
        hash: of its name and weights.

    Raises:
        WsisegError: there is no such encoder, or its weights cannot be had.
    """

    def __init__(self, encoder: str, device: str) -> None:
        network = LiteClassifier(1, encoder)
        load_imagenet_weights(network, encoder)
        self._network = network.encoder.eval().to(device)
        mean, std = encoder_normalisation(encoder)
        self._mean, self._std = channels(mean).to(device), channels(std).to(device)
        self._device = torch.device(device)
        digest = hashlib.sha256(encoder.encode())
        for name, tensor in sorted(network.encoder.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        self.hash = digest.hexdigest()

    @torch.inference_mode()
    def __call__(self, patches: Tensor) -> Tensor:
        """The means of the encoder's last three feature maps, (N, D) float32, of patches (N, 3, H, W) uint8."""
        maps: list[Tensor] = self._network(normalise(patches.to(self._device), self._mean, self._std))
        return torch.cat([found.mean(dim=(2, 3)) for found in maps], dim=1).cpu()
