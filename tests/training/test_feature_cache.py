"""Features of a frozen encoder on the disk: they are what the encoder says, bounded, resumed, and learned from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wsiseg.datasets.dataset import read_dataset
from wsiseg.errors import OptionError
from wsiseg.models.bundle import load_model
from wsiseg.models.networks.encoder_maps import EncoderMaps
from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter
from wsiseg.training.augment import Augmentation
from wsiseg.training.config import AugmentationConfig, TrainingConfig, lite_config
from wsiseg.training.feature_cache import BLOCK, Encoding, StageFeatures, prepared
from wsiseg.training.feature_files import FeatureFiles, Layer
from wsiseg.training.loading import PatchImages
from wsiseg.training.run import train

VIT = "vit_tiny_patch16_224"
SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 14, "img_size": 56, "dynamic_img_size": True}
FLIPS = AugmentationConfig(transpose=0.5)
PLENTY = 2**30


@pytest.fixture
def dataset(tmp_path: Path, sample_data: Path) -> Path:
    """Forty of the sample patches, four of them for validation: two blocks of training patches."""
    source, root = sample_data / "patches", tmp_path / "patches"
    (root / "images").mkdir(parents=True)
    header, *rows = (source / "labels.csv").read_text().splitlines()
    chosen = [row for row in rows if row.endswith("train")][::11][:36] + [row for row in rows if row.endswith("val")][
        :4
    ]
    (root / "labels.csv").write_text("\n".join([header, *chosen]) + "\n")
    for row in chosen:
        shutil.copy(source / row.split(",")[0], root / "images")
    shutil.copy(source / "dataset.json", root)
    return root


@pytest.fixture
def images(dataset: Path) -> PatchImages:
    data = read_dataset(dataset)
    return PatchImages(data.train, len(data.classes))


class WithMasks(PatchImages):
    """Masks that say where a patch is red, so that what moves one moves the other."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = super().__getitem__(index)
        return {**item, "masks": item["pixels"][:1] // 2}


def encoding(network: LiteClassifier | LiteSegmenter, views: int = 2, augmentation: object = FLIPS) -> Encoding:
    assert isinstance(augmentation, AugmentationConfig)
    mean, std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    return Encoding(network, Augmentation(augmentation), mean, std, 3, views, torch.device("cpu"))


def vit(kind: type[LiteClassifier] | type[LiteSegmenter] = LiteClassifier) -> LiteClassifier | LiteSegmenter:
    torch.manual_seed(0)
    return kind(3, VIT, encoder_arguments=SMALL).eval()


def filled(found: StageFeatures | str) -> StageFeatures:
    assert isinstance(found, StageFeatures), found
    return found


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "resnet18", VIT])
@pytest.mark.parametrize("kind", [LiteClassifier, LiteSegmenter])
def test_networks_go_on_from_maps_to_the_bit(encoder: str, kind: type[LiteClassifier] | type[LiteSegmenter]) -> None:
    network = kind(3, encoder, encoder_arguments=SMALL if encoder == VIT else None).eval()
    images = torch.rand(2, 3, 96, 80 if kind is LiteSegmenter else 96)
    with torch.no_grad():
        maps = network.encoded(images)
        used = network.uses(maps, images.shape)
        kept = [values if needed else torch.empty(0) for values, needed in zip(maps, used, strict=True)]
        assert network(EncoderMaps(tuple(kept), images.shape)).equal(network(images))
    assert used.count(True) == (3 if kind is LiteClassifier else 4 if encoder == VIT else 2) + (
        1 if kind is LiteSegmenter and encoder == VIT else 0
    )


def test_rows_are_appended_and_what_is_cut_is_written_again(tmp_path: Path) -> None:
    layers = [Layer("a", (2, 2), "f2"), Layer("b", (3,), "u1")]
    files = FeatureFiles(tmp_path / "rows", layers, 5)
    values = {"a": np.arange(20).reshape(5, 2, 2), "b": np.arange(15).reshape(5, 3)}
    assert files.begin({"of": 1}) == 0
    files.cut(0)
    files.append({name: rows[:3] for name, rows in values.items()})
    with (tmp_path / "rows/a.npy").open("ab") as file:
        file.write(b"123")  # a kill inside a row
    assert FeatureFiles(tmp_path / "rows", layers, 5).begin({"of": 1}) == 3
    files.cut(2)
    files.append({name: rows[2:] for name, rows in values.items()})
    assert files.begin({"of": 1}) == 5
    for name, rows in values.items():
        assert np.load(tmp_path / "rows" / f"{name}.npy").tolist() == rows.tolist()
        assert files.read(name, np.array([4, 0])).tolist() == rows[[4, 0]].tolist()
    assert files.total_bytes == 5 * (8 + 3)
    assert files.begin({"of": 2}) == 0
    assert not (tmp_path / "rows/a.npy").exists()


def test_a_row_is_what_the_encoder_says_of_a_view(tmp_path: Path, images: PatchImages) -> None:
    network = vit(LiteSegmenter)
    seen = filled(prepared(encoding(network), WithMasks(images.patches, 3), images, tmp_path / "f", PLENTY, {}, False))
    index = torch.tensor([5, 33, 5, 0])
    maps, masks = seen.training(index, torch.Generator().manual_seed(1), torch.device("cpu"))
    assert masks is not None
    pixels = (maps.maps[0][:, :1, :96, :96] * 255).round().to(torch.uint8)  # the images are the decoder's first map
    assert (pixels.int() // 2 - masks.int()).abs().max() <= 1
    with torch.no_grad():
        again = network.encoded(maps.maps[0][..., :96, :96])
        plain = network.encoded(torch.stack([images[5]["pixels"], images[33]["pixels"]]) / 255)
    for stored, wanted in zip(maps.maps[1:], again[1:], strict=True):
        torch.testing.assert_close(stored, wanted, rtol=0.02, atol=0.02)
    for stored, wanted in zip(seen.validation(index[:2], torch.device("cpu")).maps, plain, strict=True):
        torch.testing.assert_close(stored, wanted, rtol=0.002, atol=0.002)
    first, second = (seen.train.read("map0", np.array([row])) for row in (5, len(images) + 5))
    assert not np.array_equal(first, second)  # two views


def test_a_killed_cache_goes_on_to_the_same_bytes(tmp_path: Path, images: PatchImages) -> None:
    network = vit()
    with_stain = AugmentationConfig(stain=1.0)

    def fill() -> dict[str, bytes]:
        filled(prepared(encoding(network, 2, with_stain), images, None, tmp_path / "f", PLENTY, {"a": 1}, False))
        return {path.name: path.read_bytes() for path in sorted((tmp_path / "f/train").glob("*.npy"))}

    whole = fill()
    path = tmp_path / "f/train/map1.npy"
    row = (path.stat().st_size - 128) // (2 * len(images))
    with path.open("r+b") as file:
        file.truncate(128 + row * (BLOCK + 1) + 7)
    calls: list[int] = []
    network.encoder.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    assert fill() == whole
    assert calls == [1, len(images) - BLOCK, BLOCK, len(images) - BLOCK]  # one to see the shapes, then what is missing
    next(network.extractor.parameters()).data += 0.1
    assert fill() != whole


def test_too_much_is_said_and_nothing_is_written(tmp_path: Path, images: PatchImages) -> None:
    found = prepared(encoding(vit(), 4), images, None, tmp_path / "f", 1000, {}, False)
    assert isinstance(found, str)
    assert "4 views of each patch take" in found
    assert "--feature-cache allows 1 MiB: the encoder is computed in every epoch" in found
    assert not (tmp_path / "f").exists()


def test_values_that_16_bits_do_not_hold_are_refused(tmp_path: Path, images: PatchImages) -> None:
    network = vit()
    list(network.extractor.parameters())[-1].data.fill_(1e6)
    for parameter in network.extractor.parameters():
        parameter.data *= 1e3
    with pytest.raises(OptionError, match="train without --feature-cache"):
        prepared(encoding(network), images, None, tmp_path / "f", PLENTY, {}, False)


def config(**changes: object) -> TrainingConfig:
    part = {"initial_weights": "none", "arguments": {"encoder": VIT, "encoder_arguments": SMALL}}
    few = {"epochs": 2, "batch_size": 8}
    return lite_config().changed(
        **{"classifier": part, "segmenter": part, "stage1": few, "stage2": few, "sheet_patches": 0, **changes}
    )


def test_a_training_computes_its_encoder_once(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[type] = []
    for kind in (LiteClassifier, LiteSegmenter):
        encoded = kind.encoded

        def counted(self: nn.Module, images: torch.Tensor, encoded: object = encoded, kind: type = kind) -> object:
            steps.append(kind) if self.training else None
            return encoded(self, images)  # type: ignore[operator]

        monkeypatch.setattr(kind, "encoded", counted)
    said: list[str] = []
    settings = config(encoder_training="frozen", feature_cache=PLENTY, feature_views=3)
    out = train(dataset, tmp_path / "model", settings, progress=False, say=said.append, device="cpu")
    assert not steps  # no step computed the encoder
    assert sum("Features of the frozen encoder: 3 views of each patch" in line for line in said) == 2
    assert not list((tmp_path / "model.training").rglob("*.npy"))
    assert load_model(out, runtime="torch").segment(torch.zeros(1, 3, 96, 96, dtype=torch.uint8)).isfinite().all()
    assert json.loads((out / "model.json").read_text())["training"]["feature_views"] == 3
    said.clear()
    small = config(encoder_training="frozen", feature_cache=1000, stage1={"epochs": 1, "batch_size": 8})
    train(dataset, tmp_path / "small", small, stage="1", progress=False, say=said.append, device="cpu")
    assert steps
    assert any(line.startswith("note: features of 4 views of each patch take") for line in said)


def test_it_is_for_encoders_that_are_not_learned() -> None:
    with pytest.raises(OptionError, match=r"--feature-cache.* add --encoder-training frozen"):
        config(feature_cache=PLENTY)
    assert config(feature_cache=PLENTY, shared_encoder=True).feature_views == 4
    with pytest.raises(OptionError, match="of which no mosaics are made"):
        config(feature_cache=PLENTY, encoder_training="frozen", supervision={"mosaics": 0.5})


def test_a_kill_between_epochs_is_resumed_from_the_features(dataset: Path, tmp_path: Path) -> None:
    settings = config(encoder_training="frozen", feature_cache=PLENTY)
    whole = train(dataset, tmp_path / "whole", settings, progress=False, say=lambda text: None, device="cpu", stage="1")

    def stopped(text: str) -> None:
        if "epoch 1" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "cut", settings, progress=False, say=stopped, device="cpu", stage="1")
    kept = list((tmp_path / "cut.training").rglob("*.npy"))
    assert kept
    cut = train(
        dataset, tmp_path / "cut", settings, progress=False, say=lambda text: None, device="cpu", stage="1", resume=True
    )
    assert (cut / "classifier.safetensors").read_bytes() == (whole / "classifier.safetensors").read_bytes()
