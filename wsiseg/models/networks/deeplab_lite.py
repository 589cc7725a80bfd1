"""DeepLabV3+ with separable convolutions on EfficientNet-Lite0, the network of the lite segmenter.

Chen et al., 2018, as segmentation-models-pytorch has it: the same names of tensors, the same values, and the same
first weights for the same seed (tests hold all three), without the time that importing that library takes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.models.networks.efficientnet_lite0 import FEATURE_CHANNELS, EfficientNetLite0

_SHALLOW_CHANNELS = 48
_SHALLOW = 2
"""The feature map, of stride 4, that the decoder refines borders by; map 0 are the images."""


class DeepLabLite(nn.Module):
    """Encoder, decoder and head, which the segmenter calls one after another.

    Args:
        num_classes: K.
        output_stride: of the encoder, 8 or 16.
        decoder_channels: of the ASPP and the decoder.
        atrous_rates: of the ASPP.

    Raises:
        ValueError: for another output stride.
    """

    def __init__(
        self, num_classes: int, output_stride: int, decoder_channels: int, atrous_rates: tuple[int, int, int]
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16):
            raise ValueError(f"output_stride must be 8 or 16, got {output_stride!r:.60}")
        self.encoder = _Encoder(output_stride)
        self.decoder = _Decoder(self.encoder.out_channels, decoder_channels, atrous_rates, output_stride)
        head = nn.Conv2d(decoder_channels, num_classes, 1)
        self.segmentation_head = nn.Sequential(head, nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True))


class _Encoder(nn.Module):
    """The encoder, with the images themselves as the first of its feature maps."""

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        self.model = EfficientNetLite0(output_stride)
        self.out_channels = [3, *FEATURE_CHANNELS]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images, *self.model(images)]


class _Decoder(nn.Module):
    def __init__(
        self, encoder_channels: list[int], channels: int, rates: tuple[int, int, int], output_stride: int
    ) -> None:
        super().__init__()
        self.aspp = nn.Sequential(
            _Aspp(encoder_channels[-1], channels, rates),
            _separable(channels, channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        factor = 4 if output_stride == 16 else 2
        self.up = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=True)
        self.block1 = _pointwise(encoder_channels[_SHALLOW], _SHALLOW_CHANNELS)
        self.block2 = nn.Sequential(
            _separable(_SHALLOW_CHANNELS + channels, channels), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        deep = self.up(self.aspp(features[-1]))
        fused: Tensor = self.block2(torch.cat([deep, self.block1(features[_SHALLOW])], dim=1))
        return fused


class _Aspp(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 convolution, three rates and the image's mean, side by side."""

    def __init__(self, channels: int, out_channels: int, rates: tuple[int, int, int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                _pointwise(channels, out_channels),
                *(
                    nn.Sequential(_separable(channels, out_channels, rate), nn.BatchNorm2d(out_channels), nn.ReLU())
                    for rate in rates
                ),
                _ImageMean(
                    nn.AdaptiveAvgPool2d(1),
                    nn.Conv2d(channels, out_channels, 1, bias=False),
                    nn.BatchNorm2d(out_channels),
                    nn.ReLU(),
                ),
            ]
        )
        self.project = nn.Sequential(*_pointwise(5 * out_channels, out_channels), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.project(torch.cat([branch(x) for branch in self.convs], dim=1))
        return projected


class _ImageMean(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        mean = super().forward(x)  # type: ignore[no-untyped-call]
        return F.interpolate(mean, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _pointwise(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU())


def _separable(channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False),
        nn.Conv2d(channels, out_channels, 1, bias=False),
    )
