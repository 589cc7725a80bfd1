"""The default encoder and its decoder are what timm and segmentation-models-pytorch make of them, bit for bit."""

from __future__ import annotations

import pytest
import timm
import torch
from segmentation_models_pytorch import DeepLabV3Plus
from torch import nn

from wsiseg.models.networks.deeplab_lite import DeepLabLite
from wsiseg.models.networks.efficientnet_lite0 import EfficientNetLite0
from wsiseg.models.networks.lite import DEFAULT_ENCODER


def assert_equal_states(ours: nn.Module, theirs: nn.Module) -> None:
    mine, wanted = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(wanted)
    for name, tensor in wanted.items():
        assert mine[name].dtype == tensor.dtype, name
        assert torch.equal(mine[name], tensor), name


def used(network: nn.Module, images: torch.Tensor) -> None:
    """Give the normalisations statistics that are not those of a new network."""
    with torch.no_grad():
        network.train()(images)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(96, 96), (65, 70)])
def test_encoder_is_timms(output_stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    theirs = timm.create_model(
        DEFAULT_ENCODER, pretrained=False, features_only=True, output_stride=output_stride, out_indices=(-3, -2, -1)
    )
    torch.manual_seed(1)
    ours = EfficientNetLite0(output_stride, maps=3)
    assert_equal_states(ours, theirs)
    assert list(ours.channels) == theirs.feature_info.channels()
    images = torch.rand(2, 3, *size)
    for network in (ours, theirs):
        used(network, images)
    assert_equal_states(ours, theirs)
    with torch.no_grad():
        pairs = list(zip(ours.eval()(images), theirs.eval()(images), strict=True))
    assert len(pairs) == 3
    assert all(torch.equal(mine, wanted) and mine.std() > 0 for mine, wanted in pairs)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_decoder_is_that_of_segmentation_models_pytorch(output_stride: int) -> None:
    torch.manual_seed(2)
    theirs = DeepLabV3Plus(
        f"tu-{DEFAULT_ENCODER}",
        encoder_weights=None,
        encoder_output_stride=output_stride,
        decoder_channels=128,
        decoder_atrous_rates=(1, 2, 4),
        classes=4,
    )
    torch.manual_seed(2)
    ours = DeepLabLite(4, output_stride, 128, (1, 2, 4))
    assert_equal_states(ours, theirs)
    images = torch.rand(2, 3, 96, 64)
    torch.manual_seed(3)
    with torch.no_grad():
        wanted = theirs.train()(images)
    torch.manual_seed(3)
    with torch.no_grad():  # dropout and statistics as well
        assert torch.equal(ours.segmentation_head(ours.train().decoder(ours.encoder(images))), wanted)
    assert_equal_states(ours, theirs)
    with torch.no_grad():
        assert torch.equal(ours.eval().segmentation_head(ours.decoder(ours.encoder(images))), theirs.eval()(images))
