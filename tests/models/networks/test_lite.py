"""The lite networks: shapes, whole ImageNet weights, and refusals."""

import numpy as np
import pytest
import skimage.data
import skimage.transform
import timm
import torch

from wsiseg.errors import BundleError, WsisegError
from wsiseg.models.networks.architectures import build_network
from wsiseg.models.networks.lite import (
    DEFAULT_ENCODER,
    LiteClassifier,
    LiteSegmenter,
    encoder_normalisation,
    load_imagenet_weights,
    packaged_lite0_weights,
)


def test_packaged_weights_tell_a_cat_from_a_coffee() -> None:
    """Weights under the right names recognise photographs; one swapped layer and they would not."""
    network = timm.create_model(DEFAULT_ENCODER, pretrained=False)
    network.load_state_dict(packaged_lite0_weights())
    network.eval()
    mean, std = encoder_normalisation(DEFAULT_ENCODER)
    assert mean == std == (0.5, 0.5, 0.5)
    for picture, imagenet_class in (
        (skimage.data.chelsea(), 285),
        (skimage.data.coffee(), 967),
    ):  # Egyptian cat; espresso
        pixels = skimage.transform.resize(picture, (224, 224)).astype(np.float32)
        with torch.no_grad():
            probability = network(torch.from_numpy(pixels).permute(2, 0, 1)[None] * 2 - 1).softmax(1)[0]
        assert int(probability.argmax()) == imagenet_class
        assert probability[imagenet_class] > 0.7


@pytest.mark.parametrize("build", [LiteClassifier, LiteSegmenter])
def test_imagenet_weights_fill_the_encoder(build: type[LiteClassifier] | type[LiteSegmenter]) -> None:
    network = build(3)
    load_imagenet_weights(network, DEFAULT_ENCODER)
    source = packaged_lite0_weights()
    state = network.encoder.state_dict()
    assert len(state) > 250
    assert all(torch.equal(tensor, source[name]) for name, tensor in state.items())


def test_weights_of_an_encoder_that_nobody_serves_are_one_line() -> None:
    with pytest.raises(WsisegError, match="could not be had") as caught:
        load_imagenet_weights(LiteClassifier(2), "no_such_encoder")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(96, 96), (64, 128)])
def test_classifier_has_three_depths(size: tuple[int, int]) -> None:
    network = LiteClassifier(3).eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        features = network.features(images)
        logits = network(images)
    assert tuple(features) == network.depths == ("middle", "deep", "head")
    assert features["head"].shape == (2, 256, size[0] // 8, size[1] // 8)
    assert features["deep"].shape == (2, 112, size[0] // 16, size[1] // 16)
    assert features["head"].min() >= 0
    assert logits.shape == (2, 3)
    # The patch's logit is the mean over space of the activation map before its ReLU.
    torch.testing.assert_close(logits, network.fc8(features["head"]).mean(dim=(2, 3)))


@pytest.mark.parametrize("size", [(96, 96), (100, 70)])
def test_segmenter_keeps_any_size(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert LiteSegmenter(4).eval()(torch.rand(1, 3, *size)).shape == (1, 4, *size)


def test_other_encoders() -> None:
    classifier = LiteClassifier(2, encoder="resnet18", output_stride=16, head_channels=32).eval()
    segmenter = LiteSegmenter(2, encoder="resnet18").eval()
    with torch.no_grad():
        assert classifier(torch.rand(1, 3, 64, 64)).shape == (1, 2)
        assert segmenter(torch.rand(1, 3, 64, 64)).shape == (1, 2, 64, 64)


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
@pytest.mark.parametrize(
    "arguments", [{"encoder": "no_such"}, {"colour": 1}, {"encoder": "resnet18", "output_stride": 5}]
)
def test_a_bundle_with_bad_arguments_is_refused(kind: str, arguments: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        build_network(kind, f"lite_{kind}", 3, arguments)
