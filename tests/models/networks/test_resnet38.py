"""The published classifier computes what the published program computes."""

import numpy as np
import pytest
import torch

from wsiseg.models.networks.resnet38 import ResNet38


@pytest.fixture(scope="module")
def features(resnet38, parity):
    with torch.inference_mode():
        return resnet38.features(parity.images)


def test_every_tensor_has_the_published_name_and_shape(resnet38, parity):
    assert {name: list(t.shape) for name, t in resnet38.state_dict().items()} == parity.states[0]


@pytest.mark.parametrize(("name", "drop_above"), [("logits", None), *((f"pda_logits_{m}", m) for m in (1.0, 0.9, 0.7))])
def test_logits_with_and_without_dropout_attention(resnet38, features, parity, name, drop_above):
    with torch.inference_mode():
        np.testing.assert_allclose(
            resnet38.head(features["bn7"], drop_above), parity.stage1[name], rtol=2e-5, atol=1e-6
        )


def test_probabilities_and_activation_maps(resnet38, features, parity):
    with torch.inference_mode():
        logits = resnet38.head(features["bn7"])
        maps = resnet38.activation_maps(features["bn7"])
    np.testing.assert_allclose(torch.sigmoid(logits), parity.stage1["prob"], rtol=2e-5)
    np.testing.assert_allclose(maps, parity.stage1["cam"], rtol=2e-5, atol=2e-5)


def test_features_are_an_eighth_of_the_image(features):
    assert {depth: tuple(m.shape) for depth, m in features.items()} == {
        "b4_5": (3, 512, 28, 28),
        "b5_2": (3, 1024, 28, 28),
        "bn7": (3, 4096, 28, 28),
    }
    assert features["bn7"].min() == 0  # behind its ReLU


def test_what_the_method_freezes_does_not_train():
    with torch.device("meta"):
        network = ResNet38(3).train()
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    frozen = ("conv1a.", "b2.", "b2_1.", "b2_2.")
    assert trainable == {
        name
        for name, _ in network.named_parameters()
        if "bn" not in name.split(".")[-2] and not name.startswith(frozen)
    }
    assert {"b3.conv_branch2a.weight", "b7.conv_branch2b2.weight", "fc8.weight"} <= trainable
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    assert network.feature_dropout.training


def test_without_trainable_weights_the_graph_begins_at_the_first_map(resnet38):
    wanted = [p for p in resnet38.parameters() if p.requires_grad]
    image = torch.rand(1, 3, 32, 32)
    try:
        for p in wanted:
            p.requires_grad_(False)
        maps = resnet38.features(image)
        with torch.no_grad():
            plain = resnet38.features(image)
    finally:
        for p in wanted:
            p.requires_grad_(True)
    assert maps["b4_5"].is_leaf
    assert maps["b4_5"].requires_grad
    assert maps["b5_2"].grad_fn is not None
    assert not plain["b4_5"].requires_grad
    assert torch.equal(maps["bn7"].detach(), plain["bn7"])
    assert resnet38.features(image)["b4_5"].grad_fn is not None  # in training the graph goes on to the trained layers
