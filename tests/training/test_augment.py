"""Augmentation: masks move with their images, stain changes colours alone, a seed decides everything."""

import torch

from wsiseg.training.augment import Augmentation
from wsiseg.training.config import AugmentationConfig


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_orientations_move_masks_with_images_exactly() -> None:
    masks = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(60, 2, 8, 8).contiguous()
    images = masks[:, :1].float().expand(60, 3, 8, 8) / 255
    config = AugmentationConfig(transpose=0.5)
    moved, moved_masks = Augmentation(config)(images, masks, seeded())
    assert moved_masks is not None
    assert moved_masks.dtype == torch.uint8
    torch.testing.assert_close(moved * 255, moved_masks[:, :1].float().expand_as(moved))
    square = masks[0, 0]
    orientations = {tuple(torch.rot90(t, k).flatten().tolist()) for t in (square, square.T) for k in range(4)}
    assert len(orientations) == 8
    seen = {tuple(mask[0].flatten().tolist()) for mask in moved_masks}
    assert seen == orientations


def test_flips_keep_every_value_and_what_came_in() -> None:
    images, masks = torch.rand(40, 3, 9, 9), torch.randint(0, 256, (40, 2, 9, 9), dtype=torch.uint8)
    before, masks_before = images.clone(), masks.clone()
    moved, moved_masks = Augmentation(AugmentationConfig(vertical_flip=0))(images, masks, seeded())
    assert moved_masks is not None
    assert torch.equal(images, before)
    assert torch.equal(masks, masks_before)
    flipped = [not torch.equal(a, b) for a, b in zip(moved, images, strict=True)]
    assert 10 < sum(flipped) < 30
    for index, turned in enumerate(flipped):
        assert torch.equal(moved[index], images[index].flip(-1) if turned else images[index])
        assert torch.equal(moved_masks[index], masks[index].flip(-1) if turned else masks[index])


def test_zoom_moves_masks_with_images() -> None:
    masks = (torch.arange(64)[None, :] + torch.arange(64)[:, None] > 70).to(torch.uint8).expand(8, 1, 64, 64)
    config = AugmentationConfig(transpose=0.5, zoom=0.3)
    moved, moved_masks = Augmentation(config)(masks.float().expand(8, 3, 64, 64), masks, seeded())
    assert moved_masks is not None
    assert set(moved_masks.unique().tolist()) == {0, 1}
    assert ((moved[:, :1] > 0.5) != (moved_masks > 0)).float().mean() < 0.005, "one pixel at the border at most"


def test_random_numbers_of_others_are_left_alone() -> None:
    images = torch.rand(4, 3, 32, 32)
    config = AugmentationConfig(transpose=0.5, stain=1.0, blur=0.5, zoom=0.2)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, _ = Augmentation(config)(images, None, seeded(3))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, Augmentation(config)(images, None, seeded(3))[0])


def test_no_augmentation_changes_nothing() -> None:
    images = torch.rand(4, 3, 16, 16)
    config = AugmentationConfig(horizontal_flip=0, vertical_flip=0)
    moved, masks = Augmentation(config)(images, None, seeded())
    assert torch.equal(moved, images)
    assert masks is None


def test_zoom_keeps_the_centre_and_the_values() -> None:
    images = torch.rand(5, 1, 1, 1).expand(5, 3, 32, 32).contiguous()
    config = AugmentationConfig(horizontal_flip=0, vertical_flip=0, zoom=0.3)
    moved, _ = Augmentation(config)(images, None, seeded())
    torch.testing.assert_close(moved, images)
    gradient = torch.linspace(0, 1, 33).expand(5, 3, 33, 33).contiguous()
    moved, _ = Augmentation(config)(gradient, None, seeded())
    torch.testing.assert_close(moved[..., 16], torch.full((5, 3, 33), 0.5))
    slopes = (moved[:, 0, 16, 20] - moved[:, 0, 16, 12]) / (8 / 32)
    assert slopes.min() > 0.74
    assert slopes.max() < 1.35
    assert slopes.std() > 0.05


def test_stain_differs_patch_by_patch_and_stays_in_range() -> None:
    images = torch.tensor([0.8, 0.5, 0.7]).view(1, 3, 1, 1).expand(6, 3, 4, 4)
    augment = Augmentation(AugmentationConfig(horizontal_flip=0, vertical_flip=0, stain=1.0))
    changed, _ = augment(images, None, seeded(1))
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert len({tuple(patch[:, 0, 0].tolist()) for patch in changed}) == 6
    assert (changed - changed[:, :, :1, :1]).abs().max() < 1e-6, "one colour stays one colour"
    assert 0.02 < (changed - images).abs().mean() < 0.25
    assert torch.equal(changed, augment(images, None, seeded(1))[0])
    assert not torch.equal(changed, augment(images, None, seeded(2))[0])


def test_stain_of_strength_zero_is_the_same_picture() -> None:
    images = torch.rand(2, 3, 8, 8).clamp_min(1 / 255)
    augment = Augmentation(AugmentationConfig(stain=1e-6))
    torch.testing.assert_close(augment.change_stain(images, seeded()), images, atol=1e-4, rtol=0)


def test_blur_keeps_the_mean_and_removes_detail() -> None:
    images = torch.rand(8, 3, 32, 32)
    augment = Augmentation(AugmentationConfig(horizontal_flip=0, vertical_flip=0, blur=1.0, blur_sigma_px=2.0))
    blurred, _ = augment(images, None, seeded())
    torch.testing.assert_close(blurred.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=0.02, rtol=0)
    assert (blurred.std((1, 2, 3)) < images.std((1, 2, 3))).sum() >= 7
    half, _ = Augmentation(AugmentationConfig(horizontal_flip=0, vertical_flip=0, blur=0.5))(images, None, seeded())
    untouched = [i for i in range(8) if torch.equal(half[i], images[i])]
    assert 0 < len(untouched) < 8


def test_mixed_precision_leaves_pixels_their_bits() -> None:
    images = torch.rand(6, 3, 32, 32)
    augment = Augmentation(AugmentationConfig(transpose=0.5, stain=1.0, blur=0.5, zoom=0.2))
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = augment(images, None, seeded())
    assert torch.equal(mixed, augment(images, None, seeded())[0])
