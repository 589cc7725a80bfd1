"""EfficientNet-Lite0 as a feature extractor, the encoder of the lite networks.

Tan and Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*, 2019, in its Lite form: ReLU6,
no squeeze-and-excitation, TensorFlow's "same" padding. It is timm's `tf_efficientnet_lite0` with `features_only`: the
same names of tensors, the same values, and the same first weights for the same seed (tests hold all three). It is
written out here because importing timm costs a prediction more time than everything else at its start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BATCH_NORM_EPS = 1e-3
_STEM_CHANNELS = 32
_EXPANSION = 6


@dataclass(frozen=True, slots=True)
class _Stage:
    """Blocks of one kind in a row; the first of them has the stride."""

    channels: int
    blocks: int
    kernel_px: int
    stride: int


_STAGES = (
    _Stage(16, 1, 3, 1),
    _Stage(24, 2, 3, 2),
    _Stage(40, 2, 5, 2),
    _Stage(80, 3, 3, 2),
    _Stage(112, 3, 5, 1),
    _Stage(192, 4, 5, 2),
    _Stage(320, 1, 3, 1),
)
_FEATURE_STAGES = (0, 1, 2, 4, 6)
"""The last stages of their resolutions: strides 2, 4, 8, 16 and 32 where nothing is dilated."""

FEATURE_CHANNELS = tuple(_STAGES[index].channels for index in _FEATURE_STAGES)


class EfficientNetLite0(nn.Module):
    """The feature extractor, with random weights.

    Args:
        output_stride: of the deepest map, 8, 16 or 32; below 32 the last blocks are dilated instead of strided.
        maps: how many feature maps to return, the deepest ones.

    Raises:
        ValueError: for another output stride.
    """

    def __init__(self, output_stride: int = 32, maps: int = len(_FEATURE_STAGES)) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride!r:.60}")
        self.conv_stem = _convolution(3, _STEM_CHANNELS, 3, stride=2)
        self.bn1 = _NormActivation(_STEM_CHANNELS)
        for _ in range(2):  # timm tries a layer here that it does not use; a seed must give the weights it always gave
            nn.Conv2d(8, 8, 1)
        self.blocks = nn.Sequential(*_stages(output_stride))
        self._returned = frozenset(_FEATURE_STAGES[-maps:])
        self.channels = FEATURE_CHANNELS[-maps:]
        self._initialise()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of normalised images (N, 3, H, W), shallow to deep."""
        x = self.bn1(self.conv_stem(images))
        features = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in self._returned:
                features.append(x)
        return features

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))


def _stages(output_stride: int) -> list[nn.Sequential]:
    stages = []
    channels, stride_so_far, dilation = _STEM_CHANNELS, 2, 1
    for index, stage in enumerate(_STAGES):
        blocks: list[nn.Module] = []
        for number in range(stage.blocks):
            stride, next_dilation = stage.stride if number == 0 else 1, dilation
            if stride_so_far * stride > output_stride:
                # The stride is taken back; the convolution that would have had it still sees undilated pixels.
                stride, next_dilation = 1, dilation * stride
            stride_so_far *= stride
            kind = _DepthwiseBlock if index == 0 else _InvertedResidual
            blocks.append(kind(channels, stage.channels, stage.kernel_px, stride, dilation))
            channels, dilation = stage.channels, next_dilation
        stages.append(nn.Sequential(*blocks))
    return stages


class _DepthwiseBlock(nn.Module):
    """A depthwise convolution and a 1x1 convolution, without expansion."""

    def __init__(self, channels: int, out_channels: int, kernel_px: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.has_skip = stride == 1 and channels == out_channels
        self.conv_dw = _convolution(channels, channels, kernel_px, stride, dilation, groups=channels)
        self.bn1 = _NormActivation(channels)
        self.conv_pw = _convolution(channels, out_channels, 1)
        self.bn2 = _NormActivation(out_channels, active=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
        return made + x if self.has_skip else made


class _InvertedResidual(nn.Module):
    """A 1x1 convolution to six times the channels, a depthwise one, and a 1x1 convolution back."""

    def __init__(self, channels: int, out_channels: int, kernel_px: int, stride: int, dilation: int) -> None:
        super().__init__()
        wide = _EXPANSION * channels
        self.has_skip = stride == 1 and channels == out_channels
        self.conv_pw = _convolution(channels, wide, 1)
        self.bn1 = _NormActivation(wide)
        self.conv_dw = _convolution(wide, wide, kernel_px, stride, dilation, groups=wide)
        self.bn2 = _NormActivation(wide)
        self.conv_pwl = _convolution(wide, out_channels, 1)
        self.bn3 = _NormActivation(out_channels, active=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.bn3(self.conv_pwl(self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))))
        return made + x if self.has_skip else made


class _NormActivation(nn.BatchNorm2d):
    """A batch normalisation with its activation inside, so that both have one name."""

    def __init__(self, channels: int, active: bool = True) -> None:
        super().__init__(channels, eps=_BATCH_NORM_EPS)
        self.act: nn.Module = nn.ReLU6(inplace=True) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.act(super().forward(x))
        return activated


def _convolution(
    channels: int, out_channels: int, kernel_px: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    kind = _SameConv2d if stride > 1 else nn.Conv2d
    padding = 0 if stride > 1 else dilation * (kernel_px - 1) // 2
    return kind(channels, out_channels, kernel_px, stride, padding, dilation, groups, bias=False)


class _SameConv2d(nn.Conv2d):
    """A strided convolution that pads as TensorFlow does: for an odd number of pixels one more right and below."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = (
            max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            for size, kernel, stride, dilation in zip(
                x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True
            )
        )
        padded = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return torch.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
