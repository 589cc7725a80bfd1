"""A network from uint8 patches to values: normalisation, layers and sigmoid in one module, so that one graph is all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.networks.segmenter import Segmenter
from wsiseg.models.networks.timm_encoders import TimmEncoder

Task = Literal["classify", "classify_with_features", "activations", "segment", "segment_scored"]
"""What is asked of a network: probabilities (N, K); the same, and the means (N, C) over the shallowest of its three
feature maps; the deepest of them (N, C, h, w), which a classifier's head averages; logits (N, K, H, W); logits and the
shared gate's maps of scores (N, K, h, w)."""

Values = tuple[Tensor, ...]

_TOLERANCE = 1e-4
"""Of a folded network's values, as a share of the largest one."""


class PatchNetwork(nn.Module):
    """Patches (N, H, W, 3), uint8, to values, float32; an inference-only module on the CPU or a GPU.

    Pixels come as a slide gives them: a quarter of float32's bytes, and channels last, which is how convolutions
    are fastest.

    Args:
        network: from normalised images (N, 3, H, W) to logits; it is shared, not copied.
        mean: of each channel of pixels in [0, 1].
        std: likewise.
        task: what is asked of it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], task: Task) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.register_buffer("mean", channels(mean))
        self.register_buffer("std", channels(std))
        self.task = task
        self.dtype = torch.float32

    def forward(self, patches: Tensor) -> Values:
        """The values that the task asks for, one tensor or two."""
        images = normalise(patches.permute(0, 3, 1, 2), self.mean, self.std).to(self.dtype)
        if isinstance(self.network, Classifier) and self.task == "classify_with_features":
            maps = self.network.features(images)
            shallow, _, deepest = (maps[depth] for depth in self.network.depths)
            return torch.sigmoid(self.network.head(deepest).float()), shallow.float().mean(dim=(2, 3))
        if isinstance(self.network, Classifier) and self.task == "activations":
            return (self.network.features(images)[self.network.depths[-1]].float(),)
        if isinstance(self.network, Segmenter) and self.task == "segment_scored":
            logits, scores = self.network.scored(images)
            return logits.float(), scores.float()
        values: Tensor = self.network(images).float()
        return (torch.sigmoid(values),) if self.task == "classify" else (values,)

    def copied(self) -> PatchNetwork:
        """A copy that shares no weights with this one."""
        return copy.deepcopy(self)

    def folded(self) -> PatchNetwork:
        """A copy with batch normalisations folded into the convolutions before them, where that changes nothing.

        The layers themselves say where: a probe goes through, and a normalisation is folded if what it is given is
        what one convolution made, once. Then the probe's values must still be the same; else nothing is folded.
        """
        other = self.copied()
        side = getattr(self.network, "fixed_px", None) or 64
        probe = probe_patches(1, side, side).to(self.mean.device)
        for name, (convolution, norm_name) in _foldable(other, probe).items():
            norm = other.get_submodule(norm_name)
            assert isinstance(norm, nn.BatchNorm2d)
            other.set_submodule(name, fuse_conv_bn_eval(convolution, norm))
            # timm's BatchNormAct2d is a normalisation with its activation inside.
            other.set_submodule(norm_name, getattr(norm, "act", None) or nn.Identity())
        other.requires_grad_(False)
        return other if close(other(probe), self(probe), _TOLERANCE) else self

    def settled(self, height: int, width: int) -> PatchNetwork:
        """This module, or a copy for patches of one size alone where an encoder resamples position embeddings."""
        if not any(isinstance(module, TimmEncoder) for module in self.modules()):
            return self
        other = self.copied()
        for module in other.modules():
            if isinstance(module, TimmEncoder):
                module.settle(height, width)
        return other.requires_grad_(False)

    def in_bfloat16(self) -> PatchNetwork:
        """This module itself, with weights in bfloat16; running statistics of what is not folded keep 32 bits."""
        for module in self.network.modules():
            if not isinstance(module, nn.modules.batchnorm._BatchNorm):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(torch.bfloat16)
        self.dtype = torch.bfloat16
        return self


def _foldable(network: nn.Module, probe: Tensor) -> dict[str, tuple[nn.Conv2d, str]]:
    """Names of convolutions, and the normalisation that alone takes what each makes, from one pass of a probe."""
    names = {module: name for name, module in network.named_modules()}
    # Outputs are kept until the pass ends: an address that is free would soon be another tensor's.
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    calls: dict[nn.Module, int] = {}
    pairs: dict[str, tuple[nn.Conv2d, str]] = {}

    def after(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        calls[module] = calls.get(module, 0) + 1
        made[id(output)] = (module, output)

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        convolution, _ = made.get(id(inputs[0]), (None, None))
        if convolution is not None and getattr(module, "track_running_stats", False):
            pairs[names[convolution]] = (convolution, names[module])

    handles = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(before))
    try:
        network(probe)
    finally:
        for handle in handles:
            handle.remove()
    once = {name for name, (conv, norm) in pairs.items() if calls[conv] == calls[network.get_submodule(norm)] == 1}
    return {name: pair for name, pair in pairs.items() if name in once}


def normalise(patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(patches / 255 - mean) / std, float32 (N, 3, H, W), from uint8 patches and mean and std of (3, 1, 1)."""
    return patches.float().div_(255).sub_(mean).div_(std)


def channels(values: Sequence[float]) -> Tensor:
    """Values of three channels as (3, 1, 1), float32."""
    return torch.tensor(values, dtype=torch.float32).view(3, 1, 1)


def probe_patches(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Made patches (N, H, W, 3), uint8, always the same: blocks of 8 pixels, as noise is no picture."""
    shape = (count, height // 8 + 1, width // 8 + 1, 3)
    blocks = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    whole = blocks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    return whole[:, :height, :width].contiguous()


def close(values: Values, wanted: Values, tolerance: float) -> bool:
    """Whether values differ by at most `tolerance` of the largest wanted one (or of 1)."""
    return all(
        bool((value - want).abs().max() <= tolerance * want.abs().max().clamp_min(1))
        for value, want in zip(values, wanted, strict=True)
    )
