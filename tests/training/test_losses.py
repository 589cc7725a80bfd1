import math

import numpy as np
import pytest
import torch

from wsiseg.errors import OptionError
from wsiseg.training.losses import SupervisionOptions, layer_losses, multilayer_loss


@pytest.fixture(scope="module")
def masks(parity):
    return [torch.from_numpy(parity.stage1[f"mask_luad_{depth}"]) for depth in ("bn7", "b5_2", "b4_5")]


def test_the_published_terms_and_their_sum(stage2_logits, masks, parity):
    options = SupervisionOptions.published()
    terms = layer_losses(stage2_logits, masks, options)
    np.testing.assert_allclose(terms, parity.stage2["loss_terms"], rtol=1e-5)
    np.testing.assert_allclose(multilayer_loss(stage2_logits, masks, options), parity.stage2["loss"], rtol=1e-5)


def test_the_published_program_divides_by_the_batch_size_once_more(stage2_logits, masks):
    ours = multilayer_loss(stage2_logits, masks, SupervisionOptions())
    published = multilayer_loss(stage2_logits, masks, SupervisionOptions.published())
    torch.testing.assert_close(ours, 3 * published)


def test_by_hand():
    # Two classes and one pixel; the background channel stands at 0 beside them.
    logits = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    total = math.exp(1) + math.exp(2) + 1
    masks = [torch.tensor(value).view(1, 1, 1) for value in (0, 1, 2)]
    expected = [math.log(total) - score for score in (1, 2, 0)]
    np.testing.assert_allclose(layer_losses(logits, masks, SupervisionOptions()), expected, rtol=1e-6)
    got = multilayer_loss(logits, masks, SupervisionOptions(weights=(0.5, 0.3, 0.2)))
    assert got.item() == pytest.approx(np.dot(expected, [0.5, 0.3, 0.2]))


def test_background_of_the_guide_teaches_nothing():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    masks = [torch.randint(0, 3, (2, 4, 4), dtype=torch.uint8) for _ in range(3)]
    for mask in masks:
        mask[:, :2] = 3
    multilayer_loss(logits, masks, SupervisionOptions()).backward()
    assert logits.grad[:, :, :2].abs().max() < 1e-40  # exp(-100) is no zero
    assert logits.grad[:, :, 2:].abs().min() > 1e-6


def test_half_precision_logits_give_a_float32_loss():
    logits = torch.randn(1, 2, 4, 4).bfloat16()
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    assert multilayer_loss(logits, [mask] * 3, SupervisionOptions()).dtype == torch.float32


def test_weights_and_masks_must_match():
    with pytest.raises(ValueError, match="3 weights need as many masks, got 1"):
        multilayer_loss(torch.zeros(1, 2, 1, 1), [torch.zeros(1, 1, 1)], SupervisionOptions())
    for weights in ((), (0.0, 0.0), (1.0, -0.1)):
        with pytest.raises(OptionError, match="weights"):
            SupervisionOptions(weights=weights)
