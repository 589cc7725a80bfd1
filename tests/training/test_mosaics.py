"""Mosaics of single-class patches: exact borders, only true tissue, and the same ones again from the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsiseg.datasets.patch import Patch
from wsiseg.errors import OptionError
from wsiseg.training.loading import PatchImages
from wsiseg.training.mosaics import MosaicMaker, single_class_patches

SIDE, BACKGROUND = 40, 3
LABELS = [(1, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (0, 1, -1), (0, 0, 0)]


@pytest.fixture
def images(tmp_path: Path) -> PatchImages:
    """Patches whose red is 10 times their number; a single-class one has a strip of background, green, on top."""
    folders = [tmp_path / f"PM_{depth}" for depth in range(3)]
    patches = []
    for number, label in enumerate(LABELS):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        pixels[..., 0], pixels[:5, :, 1] = 10 * number, 255
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        mask = np.full((SIDE, SIDE), max(label.index(1) if 1 in label else 0, 0), np.uint8)
        mask[:5] = BACKGROUND
        for folder in folders:
            folder.mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / path.name)
        patches.append(Patch(path, path.name, label, "g"))
    return PatchImages(patches, 3, folders)


def batch_of(images: PatchImages) -> dict[str, torch.Tensor]:
    items = [images[index] for index in range(6)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_masks_say_what_the_pixels_are(images: PatchImages) -> None:
    before = batch_of(images)
    found = MosaicMaker(images, 0.5)(before, seeded(0))
    for row in range(3):
        assert torch.equal(found["pixels"][row], before["pixels"][row])
        assert torch.equal(found["masks"][row], before["masks"][row])
    single = {index: k for k, indices in enumerate(single_class_patches(images.patches, 3)) for index in indices}
    seen = set()
    for pixels, masks in zip(found["pixels"][3:], found["masks"][3:], strict=True):
        number, green = pixels[0] // 10, pixels[1] == 255
        assert set(number.unique().tolist()) <= set(single)
        wanted = torch.tensor([[single[n] for n in line] for line in number.tolist()])
        wanted[green] = BACKGROUND
        for depth in masks:
            assert torch.equal(depth, wanted.to(torch.uint8))
        seen |= set(number.unique().tolist())
    assert len(seen) >= 3
    assert torch.equal(batch_of(images)["pixels"], before["pixels"])  # the cache is not drawn over


def test_borders_meet_in_one_point_away_from_the_edge(images: PatchImages) -> None:
    maker, batch = MosaicMaker(images, 1.0), batch_of(images)
    for seed in range(20):
        for pixels in maker(batch, seeded(seed))["pixels"]:
            red = pixels[0]
            rows = [y for y in range(1, SIDE) if (red[y] != red[y - 1]).any()]
            columns = [x for x in range(1, SIDE) if (red[:, x] != red[:, x - 1]).any()]
            assert len(rows) <= 1
            assert len(columns) <= 1
            assert all(0.2 * SIDE <= place <= 0.8 * SIDE for place in rows + columns)


def test_classes_come_equally_often_and_seeds_decide(images: PatchImages) -> None:
    maker, batch = MosaicMaker(images, 1.0), batch_of(images)
    masks = torch.cat([maker(batch, seeded(seed))["masks"] for seed in range(60)])
    shares = torch.bincount(masks.flatten().long(), minlength=4)[:3] / (masks != BACKGROUND).sum()
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.06)
    again = [maker(batch, seeded(5))["pixels"] for _ in range(2)]
    assert torch.equal(*again)
    assert not torch.equal(again[0], maker(batch, seeded(6))["pixels"])


def test_unknown_labels_are_not_a_single_class(images: PatchImages) -> None:
    assert single_class_patches(images.patches, 3) == [[0, 1], [2], [4]]
    images.patches = [images.patches[index] for index in (0, 1, 3, 5)]
    with pytest.raises(OptionError, match="two classes at least; the classes have 2, 0, 0 such patches"):
        MosaicMaker(images, 0.5)
