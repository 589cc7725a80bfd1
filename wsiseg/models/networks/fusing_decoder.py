"""A decoder for feature maps of any scales, also of a single one: all of them side by side, refined by the pixels.

A vision transformer says what a cell of 14 or 16 pixels is, and nothing about where in it a border runs. So the
images themselves, through two small convolutions, stand beside the fused maps at stride 4 (as in ViTMatte, Yao et al.,
2024, whose detail stem is larger).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.models.networks.timm_encoders import TimmEncoder

_DETAIL_CHANNELS = 32


class FusingNetwork(nn.Module):
    """Encoder, decoder and head, which the segmenter calls one after another.

    Args:
        num_classes: K.
        encoder: of feature maps of any scales.
        decoder_channels: of what the maps are brought to.
    """

    def __init__(self, num_classes: int, encoder: TimmEncoder, decoder_channels: int) -> None:
        super().__init__()
        self.encoder = _WithImages(encoder)
        self.decoder = FusingDecoder(encoder.channels, decoder_channels)
        self.segmentation_head = nn.Conv2d(decoder_channels, num_classes, 1)


class _WithImages(nn.Module):
    """The encoder, with the images themselves, filled up, as the first of its feature maps."""

    def __init__(self, encoder: TimmEncoder) -> None:
        super().__init__()
        self.timm = encoder
        self.out_channels = [3, *encoder.channels]

    @property
    def model(self) -> nn.Module:
        """Timm's feature extractor."""
        return self.timm.model

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images, *self.timm(images)]


class FusingDecoder(nn.Module):
    """Maps of any scales to one of stride 4.

    Args:
        encoder_channels: of each map, the images not among them.
        channels: of the outcome.
    """

    def __init__(self, encoder_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(_block(count, channels, 1) for count in encoder_channels)
        self.fuse = nn.Sequential(_block(channels * len(encoder_channels), channels, 1), _block(channels, channels, 3))
        self.details = nn.Sequential(
            _block(3, _DETAIL_CHANNELS, 3, 2), _block(_DETAIL_CHANNELS, _DETAIL_CHANNELS, 3, 2)
        )
        self.refine = _block(channels + _DETAIL_CHANNELS, channels, 3)

    def forward(self, features: list[Tensor]) -> Tensor:
        """(N, channels, H / 4, W / 4) of the images (N, 3, H, W) and their maps."""
        images, *maps = features
        size = max((tuple(values.shape[-2:]) for values in maps), key=lambda sides: sides[0] * sides[1])
        narrow = [
            F.interpolate(layer(values), size, mode="bilinear", align_corners=False)
            for layer, values in zip(self.narrow, maps, strict=True)
        ]
        details = self.details(images)
        fused = F.interpolate(
            self.fuse(torch.cat(narrow, dim=1)), details.shape[-2:], mode="bilinear", align_corners=False
        )
        refined: Tensor = self.refine(torch.cat([fused, details], dim=1))
        return refined


def _block(channels: int, out_channels: int, kernel_px: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out_channels, kernel_px, stride, kernel_px // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())
