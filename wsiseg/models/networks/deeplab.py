"""DeepLabV3+ on ResNet-101, the segmenter of the published method.

Chen, Zhu, Papandreou, Schroff and Adam, *Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation*, 2018, at output stride 16. Names of tensors are those of the published checkpoints. Every
interpolation is bilinear with aligned corners, as there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.models.networks.segmenter import Segmenter

_MULTI_GRID = (1, 2, 4)
_ASPP_RATES = (1, 6, 12, 18)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


class _Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, torchvision's: the 3x3 one has the stride.

    Args:
        channels: of what comes in.
        planes: channels of the 3x3 convolution; a fourth of what comes out.
        stride: of the 3x3 convolution.
        downsample: the shortcut where shapes change.
        dilation: of the 3x3 convolution.
    """

    expansion = 4

    def __init__(
        self, channels: int, planes: int, stride: int = 1, downsample: nn.Module | None = None, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        activated: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return activated


class _ResNet101(nn.Module):
    """ResNet-101 at output stride 16: the last stage keeps its size and dilates by 2, 4 and 8 (multi-grid)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(64, 64, (1,) * 3, stride=1)
        self.layer2 = self._stage(256, 128, (1,) * 4, stride=2)
        self.layer3 = self._stage(512, 256, (1,) * 23, stride=2)
        self.layer4 = self._stage(1024, 512, tuple(2 * grid for grid in _MULTI_GRID), stride=1)

    @staticmethod
    def _stage(channels: int, planes: int, dilations: tuple[int, ...], stride: int) -> nn.Sequential:
        wide = planes * _Bottleneck.expansion
        shortcut = nn.Sequential(nn.Conv2d(channels, wide, 1, stride=stride, bias=False), nn.BatchNorm2d(wide))
        first = _Bottleneck(channels, planes, stride, shortcut, dilation=dilations[0])
        return nn.Sequential(first, *(_Bottleneck(wide, planes, dilation=dilation) for dilation in dilations[1:]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 2048, H / 16, W / 16) and low-level features (N, 256, H / 4, W / 4)."""
        low = self.layer1(self.maxpool(F.relu(self.bn1(self.conv1(images)))))
        return self.layer4(self.layer3(self.layer2(low))), low


class _AtrousBranch(nn.Module):
    def __init__(self, rate: int) -> None:
        super().__init__()
        self.atrous_conv = (
            nn.Conv2d(2048, 256, 1, bias=False)
            if rate == 1
            else nn.Conv2d(2048, 256, 3, padding=rate, dilation=rate, bias=False)
        )
        self.bn = nn.BatchNorm2d(256)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.atrous_conv(x)))


class _Aspp(nn.Module):
    """Atrous spatial pyramid pooling: four rates and the image's mean, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.aspp1, self.aspp2, self.aspp3, self.aspp4 = (_AtrousBranch(rate) for rate in _ASPP_RATES)
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(2048, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()
        )
        self.conv1 = nn.Conv2d(5 * 256, 256, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(256)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x), _resize(self.global_avg_pool(x), x)]
        joined: Tensor = self.dropout(F.relu(self.bn1(self.conv1(torch.cat(branches, dim=1)))))
        return joined


class _Decoder(nn.Module):
    """Low-level features beside the upsampled ASPP features, then two 3x3 convolutions and the class scores."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(256, 48, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(48)
        self.last_conv = nn.Sequential(
            nn.Conv2d(256 + 48, 256, 3, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(256, num_classes, 1),
        )

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        low = F.relu(self.bn1(self.conv1(low)))
        scores: Tensor = self.last_conv(torch.cat([_resize(x, low), low], dim=1))
        return scores


class DeepLabV3Plus(Segmenter):
    """The published stage 2; 59 million parameters.

    Args:
        num_classes: number of tissue classes K.
        shared_gate: whether the backbone carries the gate.
    """

    feature_channels = 2048
    cell_px = 16

    def __init__(self, num_classes: int, shared_gate: bool = False) -> None:
        super().__init__()
        self.backbone = _ResNet101()
        self.aspp = _Aspp()
        self.decoder = _Decoder(num_classes)
        for module in [*self.aspp.modules(), *self.decoder.modules()]:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self.register_module("shared_gate", None)
        if shared_gate:
            self.add_shared_gate(num_classes)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Low-level features (N, 256, H / 4, W / 4) and features (N, 2048, H / 16, W / 16)."""
        x, low = self.backbone(images)
        return [low, x]

    def decode(self, features: list[Tensor], images: Tensor) -> Tensor:
        """Logits of the images' size."""
        low, x = features
        return _resize(self.decoder(self.aspp(x), low), images)
