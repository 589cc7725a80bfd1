"""The published segmenter computes what the published program computes."""

import numpy as np
import torch

from wsiseg.models.networks.deeplab import DeepLabV3Plus


def test_every_tensor_has_the_published_name_and_shape(parity):
    with torch.device("meta"):
        network = DeepLabV3Plus(4)
    assert {name: list(t.shape) for name, t in network.state_dict().items()} == parity.states[1]


def test_logits_and_labels(stage2_logits, parity):
    np.testing.assert_allclose(stage2_logits[:, :, ::4, ::4], parity.stage2["logits"], rtol=2e-5, atol=1e-5)
    labels = stage2_logits.max(1).indices.numpy()
    best, second = stage2_logits.topk(2, dim=1).values.unbind(1)
    differs = labels != parity.stage2["labels"]
    assert not differs[(best - second).numpy() > 1e-4].any()
    assert differs.sum() <= 5


def test_an_image_of_odd_sides_keeps_its_size():
    network = DeepLabV3Plus(2).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 65, 90)).shape == (1, 2, 65, 90)
