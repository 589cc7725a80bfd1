"""The model that ships: small, described, and right about patches of its validation images."""

from pathlib import Path

import torch

from wsiseg.datasets.dataset import read_dataset
from wsiseg.models.bundle import load_model
from wsiseg.models.folder import find_bundle
from wsiseg.training.loading import PatchImages
from wsiseg.training.stage1 import average_precision


def test_shipped_model_is_small_and_says_what_it_is() -> None:
    folder = find_bundle("tissue-brca-lite")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("research only", "BRCA-M2C", "Abousamra", "cannot", "supervised"):
        assert part in card
    spec = load_model("tissue-brca-lite").spec
    assert spec.name == "tissue-brca-lite"
    assert spec.classes.names == ("Tumour", "Stroma", "Lymphocytes")
    measured = {(m.name, m.data.split(",")[1].split()[0]): m for m in spec.metrics}
    test = measured["balanced accuracy at cells", "test"]
    assert test.low is not None
    assert test.high is not None
    assert 0 < test.low < test.value < test.high < 1
    assert f"{test.value:.3f} [{test.low:.3f}, {test.high:.3f}]" in card, "card and model.json tell the same"


def test_shipped_gate_and_segmenter_know_validation_patches(sample_data: Path) -> None:
    data = read_dataset(sample_data / "patches")
    images = PatchImages(data.val, len(data.classes))
    pixels = torch.stack([images[i]["pixels"] for i in range(len(images))])
    labels = torch.stack([images[i]["label"] for i in range(len(images))]).long()
    model = load_model("tissue-brca-lite")
    assert average_precision(model.classify(pixels), labels) > 0.9
    # Where a patch has one class alone, that is what most of its pixels should be.
    alone = labels.sum(dim=1) == 1
    best = model.segment(pixels[alone]).max(dim=1).indices
    right = (best == labels[alone].argmax(dim=1)[:, None, None]).float().mean()
    assert alone.sum() >= 20
    assert right > 0.8
