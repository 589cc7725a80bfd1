"""A model as prediction uses it: a classifier that gates, a segmenter, and where they compute."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from wsiseg.classes import ClassTable
from wsiseg.errors import DeviceError
from wsiseg.models.classifier import Classifier
from wsiseg.models.spec import BundleSpec


class TissueModel:
    """A classifier that gates and a segmenter, with everything that prediction needs to know of them.

    Attributes:
        spec: what the bundle says about itself.
        hash: SHA-256 of the bundle; see `wsiseg.models.spec.bundle_hash`.
        classifier: stage 1, in evaluation mode.
        segmenter: stage 2, in evaluation mode.
        device: where both are.
    """

    def __init__(self, spec: BundleSpec, digest: str, classifier: Classifier, segmenter: nn.Module) -> None:
        self.spec = spec
        self.hash = digest
        # Channels last, as patches come from the slide: 1.2 times as fast on a CPU (benchmarks/precision.py).
        channels_last = torch.channels_last
        self.classifier = classifier.eval().requires_grad_(False).to(memory_format=channels_last)
        self.segmenter = segmenter.eval().requires_grad_(False).to(memory_format=channels_last)
        self.device = torch.device("cpu")
        self._norms = {
            name: (_channels(network.mean), _channels(network.std))
            for name, network in (("classifier", spec.networks.classifier), ("segmenter", spec.networks.segmenter))
        }

    @property
    def classes(self) -> ClassTable:
        """The tissue classes, in the order of the networks' channels."""
        return self.spec.classes

    @property
    def gate(self) -> Tensor:
        """The gate's thresholds (K,) on the model's device."""
        return torch.tensor(self.spec.gate, dtype=torch.float32, device=self.device)

    def to(self, device: str | torch.device) -> Self:
        """The same model, moved to `device`; raises `DeviceError` where there is none such."""
        self.device = checked_device(device)
        self.classifier.to(self.device)
        self.segmenter.to(self.device)
        self._norms = {name: (m.to(self.device), s.to(self.device)) for name, (m, s) in self._norms.items()}
        return self

    @torch.inference_mode()
    def classify(self, patches: Tensor) -> Tensor:
        """Probability (N, K), float32, that each class occurs in each patch (N, 3, H, W), uint8."""
        return torch.sigmoid(self.classifier(self._normalise("classifier", patches))).float()

    @torch.inference_mode()
    def segment(self, patches: Tensor) -> Tensor:
        """Logits (N, K, H, W), float32, of each pixel of patches (N, 3, H, W), uint8; not gated."""
        logits: Tensor = self.segmenter(self._normalise("segmenter", patches))
        return logits.float()

    def _normalise(self, network: str, patches: Tensor) -> Tensor:
        """Patches as a network sees them; they travel to the device as uint8, a quarter of the bytes."""
        if patches.dtype != torch.uint8 or patches.ndim != 4 or patches.shape[1] != 3:
            raise ValueError(f"patches must be uint8 (N, 3, H, W), got {patches.dtype} {tuple(patches.shape)}")
        mean, std = self._norms[network]
        return normalise(patches.to(self.device, non_blocking=True), mean, std)


def normalise(patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(patches / 255 - mean) / std, float32 (N, 3, H, W), from uint8 patches and mean and std of (3, 1, 1)."""
    return patches.float().div_(255).sub_(mean).div_(std)


def _channels(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(3, 1, 1)


def checked_device(device: str | torch.device) -> torch.device:
    """A device that exists on this machine.

    Raises:
        DeviceError: where it does not.
    """
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        have = "cpu" + (f", cuda (x{torch.cuda.device_count()})" if torch.cuda.is_available() else "")
        raise DeviceError(f"device {str(device)!r} cannot be used on this machine, which has {have}") from error
    if wanted.type == "meta":
        raise DeviceError("device 'meta' computes nothing, use cpu or cuda")
    return wanted
