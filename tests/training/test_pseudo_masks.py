"""Pseudo masks are those of the published program, and where its rules fail ours are told apart."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from wsiseg.errors import OptionError
from wsiseg.models.networks.lite import LiteClassifier
from wsiseg.training.pseudo_masks import (
    PseudoMaskOptions,
    background_mask,
    class_scores,
    decided_by_label,
    gradient_maps,
    grey_values,
    maps_needed,
    masks_from_maps,
    normalised_maps,
    pseudo_masks,
)

DEPTHS = ("b4_5", "b5_2", "bn7")
ALL_TISSUE = PseudoMaskOptions(background="none")


@pytest.fixture(scope="module", params=[[2], pytest.param([0, 1], marks=pytest.mark.slow)], ids=str)
def chosen(request):
    """Parity patches: by default the one that has the most classes, since each takes half a minute."""
    return request.param


@pytest.fixture(scope="module")
def maps(resnet38, parity, chosen):
    return gradient_maps(resnet38, parity.images[chosen])


@pytest.fixture(scope="module")
def lite():
    torch.manual_seed(1)
    return LiteClassifier(3, encoder="mobilenetv3_small_050").eval()


@pytest.mark.parametrize("depth", DEPTHS)
def test_grad_cam_is_the_published_one(maps, parity, chosen, depth):
    whole = F.interpolate(maps[depth], (224, 224), mode="bilinear", align_corners=False)
    got = normalised_maps(whole, "joint")[:, :, ::4, ::4]
    np.testing.assert_allclose(got, parity.stage1[f"cam_{depth}"][chosen], rtol=0, atol=1e-4)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("name", "background"), [("luad", "bright"), ("bcss", "none")])
def test_masks_are_the_published_ones(maps, parity, chosen, depth, name, background):
    options = PseudoMaskOptions.published(background)
    present = parity.labels[chosen] > 0
    bright = background_mask(parity.patches[chosen], options)
    mask = masks_from_maps(maps[depth], present, bright, options).numpy()
    expected = parity.stage1[f"mask_{name}_{depth}"][chosen]
    assert np.array_equal(mask == 4, expected == 4)
    scores = class_scores(maps[depth], present, (224, 224), options)
    best, second = scores.topk(2, dim=1).values.unbind(1)
    differs = mask != expected
    assert not differs[(best - second).numpy() > 1e-4].any()
    assert differs.sum() <= 10


def test_one_call_does_it_all(lite, parity):
    masks = pseudo_masks(lite, parity.images, parity.patches, parity.labels[:, :3], PseudoMaskOptions())
    assert list(masks) == list(lite.depths)
    for mask in masks.values():
        assert mask.shape == (3, 224, 224)
        assert mask.dtype == torch.uint8
        assert torch.equal(mask == 3, background_mask(parity.patches, PseudoMaskOptions()))
        # The second patch has class 0 alone.
        assert set(mask[1].unique().tolist()) == {0, 3}
        assert 2 not in mask[0]


def test_patches_of_a_batch_do_not_touch_each_other(lite, parity):
    together = gradient_maps(lite, parity.images)
    alone = gradient_maps(lite, parity.images[1:2])
    for depth in lite.depths:
        torch.testing.assert_close(together[depth][1:2], alone[depth], rtol=1e-3, atol=1e-6)


def test_maps_are_gradient_times_feature_at_every_depth(lite, parity):
    """Against the definition, one class, one patch and one depth at a time."""
    image = parity.images[:1]
    got = gradient_maps(lite, image)
    for depth in lite.depths:
        for k in range(3):
            features = lite.features(image.clone().requires_grad_())
            gradient = torch.autograd.grad(lite.head(features[lite.depths[-1]])[0, k], features[depth])[0]
            wanted = (gradient.mean(dim=(2, 3), keepdim=True) * features[depth]).sum(1)[0]
            torch.testing.assert_close(got[depth][0, k], wanted.detach(), rtol=1e-3, atol=1e-6)


def test_maps_that_are_not_wanted_are_zero_and_the_others_as_they_were(lite, parity):
    wanted = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    everything = gradient_maps(lite, parity.images)
    some = gradient_maps(lite, parity.images, wanted)
    for depth in lite.depths:
        torch.testing.assert_close(some[depth][wanted], everything[depth][wanted], rtol=1e-4, atol=1e-7)
        assert not some[depth][~wanted].any()


def test_no_more_backward_passes_than_the_patch_with_most_classes_needs(lite, parity, monkeypatch):
    passes = []
    original = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(1) or original(*a, **k))
    for wanted, count in (([[1, 1, 1], [0, 0, 0], [1, 0, 0]], 3), ([[0, 0, 1], [1, 0, 0], [0, 1, 0]], 1)):
        passes.clear()
        gradient_maps(lite, parity.images, torch.tensor(wanted) > 0)
        assert len(passes) == count


def test_bfloat16_is_near_and_comes_as_float32(lite, parity):
    exact, rounded = gradient_maps(lite, parity.images), gradient_maps(lite, parity.images, precision="bfloat16")
    for depth in lite.depths:
        assert rounded[depth].dtype == torch.float32
        assert not torch.equal(rounded[depth], exact[depth])
        assert (rounded[depth] - exact[depth]).abs().max() < 0.05 * exact[depth].abs().max()


@pytest.mark.parametrize(
    "options",
    [
        PseudoMaskOptions(),
        PseudoMaskOptions(normalisation="joint"),
        PseudoMaskOptions(absent_score=0.0),
        PseudoMaskOptions.published(),
    ],
)
def test_what_is_left_out_changes_no_mask(lite, parity, options):
    labels = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    background = background_mask(parity.patches, options)
    masks = pseudo_masks(lite, parity.images, parity.patches, labels, options)
    for depth, maps in gradient_maps(lite, parity.images).items():
        wanted = masks_from_maps(maps, labels > 0, background, options)
        assert (masks[depth] != wanted).float().mean() < 1e-3  # rounding depends on the batch
        assert torch.equal(masks[depth][1:], wanted[1:]) or not decided_by_label(labels > 0, options)[1]


def test_what_masks_depend_on():
    present = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 1, 0]]) > 0
    joint = PseudoMaskOptions(normalisation="joint")
    assert decided_by_label(present, PseudoMaskOptions()).tolist() == [True, True, False]
    assert decided_by_label(present, joint).tolist() == [True, True, False]
    # An absent class at the lowest score of a present one may win a tie.
    assert decided_by_label(present, PseudoMaskOptions.published()).tolist() == [True, False, False]
    assert decided_by_label(present, PseudoMaskOptions(absent_score=-1e-6)).tolist() == [True, False, False]
    assert torch.equal(maps_needed(present, PseudoMaskOptions()), present)
    assert maps_needed(present, joint).all()


def test_the_classifier_is_left_as_it_was(lite, parity):
    before = {name: p.requires_grad for name, p in lite.named_parameters()}
    with torch.no_grad():
        gradient_maps(lite, parity.images[:1])
    assert {name: p.requires_grad for name, p in lite.named_parameters()} == before
    assert all(p.grad is None for p in lite.parameters())
    assert not parity.images.requires_grad


def test_a_classifier_in_training_mode_is_refused(parity):
    with pytest.raises(ValueError, match="evaluation mode"):
        gradient_maps(LiteClassifier(2, encoder="mobilenetv3_small_050").train(), parity.images)


def one_patch(*values):
    """Maps (1, K, 1, P) from the activations of each class at P pixels."""
    return torch.tensor(values, dtype=torch.float32)[None, :, None, :]


def best(maps, present, options):
    height, width = maps.shape[2:]
    background = torch.zeros((1, height, width), dtype=torch.bool)
    return masks_from_maps(maps, torch.tensor([present], dtype=torch.bool), background, options).flatten().tolist()


def test_joint_normalisation_lets_absent_classes_set_the_range_and_per_class_does_not():
    maps = one_patch([1.0, 3.0], [2.0, 1.0], [101.0, -99.0])
    joint = normalised_maps(maps, "joint")
    torch.testing.assert_close(joint, one_patch([0.5, 0.51], [0.505, 0.5], [1.0, 0.0]))
    own = normalised_maps(maps, "per_class")
    torch.testing.assert_close(own, one_patch([1 / 3, 1.0], [1.0, 0.5], [1.0, -1e-6]))


def test_a_loud_class_wins_everywhere_jointly_but_not_per_class():
    maps = one_patch([10.0, 9.0], [0.0, 8.0])
    assert best(maps, [1, 1], PseudoMaskOptions.published("none")) == [0, 0]
    assert best(maps, [1, 1], ALL_TISSUE) == [0, 1]


def test_an_absent_class_wins_a_tie_at_the_minimum_in_the_published_program_alone():
    maps = one_patch([5.0, 5.0], [0.0, 1.0])  # class 0 is absent, class 1 is the joint minimum at pixel 0
    assert best(maps, [0, 1], PseudoMaskOptions.published("none")) == [0, 1]
    assert best(maps, [0, 1], PseudoMaskOptions(normalisation="joint", background="none")) == [1, 1]
    assert best(maps, [0, 1], ALL_TISSUE) == [1, 1]


def test_where_no_class_is_active_the_least_inactive_wins_and_not_the_first():
    maps = one_patch([-4.0, -1.0, 2.0], [-1.0, -4.0, -2.0])
    assert best(maps, [1, 1], ALL_TISSUE) == [1, 0, 0]


@pytest.mark.parametrize("options", [ALL_TISSUE, PseudoMaskOptions.published("none")])
def test_an_empty_label_is_background_only_and_a_flat_map_is_no_division_by_zero(options):
    assert best(one_patch([1.0, 2.0], [3.0, 4.0]), [0, 0], options) == [2, 2]
    for level in (0.0, 7.0, -7.0):
        flat = one_patch([level] * 2, [level] * 2)
        assert not normalised_maps(flat, options.normalisation).isnan().any()
        assert best(flat, [1, 0], options) == [0, 0]


def test_maps_are_interpolated_between_pixel_centres():
    scores = class_scores(one_patch([0.0, 8.0]), torch.tensor([[True]]), (1, 8), ALL_TISSUE)
    assert scores.flatten().tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]


def test_grey_values_are_weighted_and_rounded():
    colors = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (201, 201, 201), (100, 150, 200)]
    patches = np.array(colors, np.uint8).T.reshape(1, 3, 1, -1)
    # 0.299 R + 0.587 G + 0.114 B
    assert grey_values(patches).flatten().tolist() == [255, 0, 76, 150, 29, 201, 141]


def test_background_is_bright_and_not_a_speck():
    patch = torch.full((1, 3, 20, 20), 200, dtype=torch.uint8)  # not above 200
    patch[:, :, :5, :10] = 201  # 50 px
    patch[:, :, 10:17, :7] = 255  # 49 px
    patch[:, :, 17, 7] = 255  # touches those at a corner only
    expected = torch.zeros(1, 20, 20, dtype=torch.bool)
    expected[:, :5, :10] = True
    assert torch.equal(background_mask(patch, PseudoMaskOptions()), expected)
    assert not background_mask(patch, ALL_TISSUE).any()
    assert not background_mask(patch, PseudoMaskOptions.published()).any()
    assert background_mask(patch, PseudoMaskOptions(min_background_px=0)).sum() == 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"normalisation": "softmax"},
        {"background": "white"},
        {"absent_score": 0.5},
        {"bright_above": 256},
        {"min_background_px": -1},
    ],
)
def test_options_outside_their_range(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        PseudoMaskOptions(**wrong)
