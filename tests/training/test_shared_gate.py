"""A gate on the segmenter's encoder: what it is taught, that prediction sees the same, and `train --gate`."""

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from wsiseg.cli.main import main
from wsiseg.datasets.dataset import read_dataset
from wsiseg.errors import OptionError
from wsiseg.models.bundle import load_model
from wsiseg.models.large_tiles import Windows, predict_shared, segment_scored
from wsiseg.models.networks.lite import LiteSegmenter
from wsiseg.training.config import TrainingConfig, lite_config
from wsiseg.training.loading import PatchImages
from wsiseg.training.run import train
from wsiseg.training.settings import effective_config
from wsiseg.training.shared_gate import check_carries_gate, fit_head, tile_fields, train_shared_gate
from wsiseg.training.stage1 import average_precision

CONFIG = effective_config(gate_mode="shared").changed(
    sheet_patches=0,
    stage1={"epochs": 1, "batch_size": 4},
    stage2={"epochs": 1, "batch_size": 4},
    gate={"shared_passes": 1},
)


@pytest.fixture
def dataset(tmp_path: Path, sample_data: Path) -> Path:
    """Twenty-four of the sample patches, eight of them for validation."""
    source, root = sample_data / "patches", tmp_path / "patches"
    (root / "images").mkdir(parents=True)
    header, *rows = (source / "labels.csv").read_text().splitlines()
    chosen = [row for row in rows if row.endswith("train")][::28][:16] + [row for row in rows if row.endswith("val")][
        :8
    ]
    (root / "labels.csv").write_text("\n".join([header, *chosen]) + "\n")
    for row in chosen:
        shutil.copy(source / row.split(",")[0], root / "images")
    shutil.copy(source / "dataset.json", root)
    return root


def test_the_head_is_where_its_loss_is_least() -> None:
    random = np.random.default_rng(0)
    features = torch.from_numpy(random.normal(size=(200, 5)).astype(np.float32)) * torch.tensor([1, 10, 0.1, 1, 1])
    features[:, 3] = 7.0  # a feature that never changes must not divide by zero
    truth = torch.tensor([[1.0, 0.1, 0, 0, 0], [0, 0, 10, 0, -1]])
    labels = (features @ truth.T + torch.from_numpy(random.normal(size=(200, 2))) > 0).float()
    weight, bias = fit_head(features, labels, 1e-3)
    assert weight.shape == (2, 5)
    right = ((features @ weight.T + bias > 0) == (labels > 0)).float().mean()
    assert right > 0.75
    for signs, wanted in zip(weight.sign(), truth.sign(), strict=True):
        assert (signs[wanted != 0] == wanted[wanted != 0]).all()
    scaled, _ = fit_head(features * 3, labels, 1e-3)  # standardised: only the scale of the weights changes
    torch.testing.assert_close(scaled * 3, weight, atol=1e-3, rtol=1e-3)
    harder, _ = fit_head(features, labels, 10.0)
    assert harder.abs().sum() < weight.abs().sum() / 4


@pytest.mark.parametrize("half", [False, True])
def test_prediction_sees_what_the_thresholds_were_chosen_by(dataset: Path, half: bool) -> None:
    data = read_dataset(dataset)
    torch.manual_seed(0)
    network = LiteSegmenter(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = train_shared_gate(network, data, CONFIG.changed(half_weights=half), torch.device("cpu"), progress=False)
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()), "the encoder is frozen"
    assert after["shared_gate.weight"].abs().sum() > 0
    assert half == torch.equal(after["shared_gate.weight"], after["shared_gate.weight"].half().float())
    model = load_model("tissue-brca-lite", runtime="torch")
    model.segmenter = network
    images = PatchImages(data.val, 3)
    pixels = torch.stack([images[i]["pixels"] for i in range(len(images))])
    labels = torch.stack([images[i]["label"] for i in range(len(images))]).long()
    _, seen = segment_scored(model, pixels, Windows(96, 96, 48))
    assert float(average_precision(seen[:, 0], labels)) == pytest.approx(trained.precision)
    thresholds = torch.tensor(trained.thresholds)
    assert (thresholds <= CONFIG.gate.threshold).all()
    passing = seen[:, 0] > thresholds - 1e-5
    assert passing[labels > 0].all(), "of eight patches 0.98 is all"


def test_train_gives_a_bundle_that_predicts_tiles(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    arguments = ["train", str(dataset), "--out", str(out), "--gate", "shared", "--epochs", "1", "--batch-size", "8"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--device", "cpu"])
    shown = capsys.readouterr().err
    assert stop.value.code == 0, shown
    assert "The shared gate is finished" in shown
    model = load_model(out, runtime="torch")
    spec = model.spec
    assert (spec.gate_mode, spec.tile_px, spec.tile_margin_px, spec.gate_context) == ("shared", 192, 16, 0)
    steps = out.with_name("model.training")
    done = json.loads((steps / "shared_gate" / "gate.json").read_text())
    assert spec.shared_gate == tuple(done["gate"])
    weights = load_file(steps / "shared_gate" / "gate.safetensors")
    assert isinstance(model.segmenter, LiteSegmenter)
    assert model.segmenter.shared_gate is not None
    torch.testing.assert_close(model.segmenter.shared_gate.weight, weights["weight"], atol=1e-4, rtol=1e-3)
    tiles = torch.randint(0, 256, (1, 3, 192, 192), dtype=torch.uint8)
    found, allowed = predict_shared(model, tiles, torch.tensor(spec.shared_gate), 96, spec.stride_px)
    assert found.shape == (1, 3, 192, 192)
    assert allowed.shape == (1, 9, 3)
    before = (out / "segmenter.safetensors").read_bytes()
    (steps / "stage2" / "segmenter.safetensors").touch()
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--device", "cpu", "--resume"])
    assert stop.value.code == 0
    assert capsys.readouterr().err.count("is finished") == 3
    assert (out / "segmenter.safetensors").read_bytes() == before


@pytest.mark.slow
def test_windows_need_no_training_of_their_own(dataset: Path, tmp_path: Path) -> None:
    config = CONFIG.changed(gate={"mode": "windows"})
    said: list[str] = []
    spec = load_model(train(dataset, tmp_path / "model", config, progress=False, say=said.append)).spec
    assert (spec.gate_mode, spec.tile_px, spec.shared_gate) == ("windows", 192, None)
    assert "shared_gate" not in spec.networks.segmenter.arguments
    assert not [text for text in said if "shared gate" in text]


def test_patches_stay_as_they_were() -> None:
    assert tile_fields(lite_config(), 96) == {}
    assert lite_config().gate.mode == "patches"
    assert lite_config().gate.context == 2.0


def test_what_cannot_carry_a_gate() -> None:
    with pytest.raises(OptionError, match="another_network cannot carry a shared gate"):
        check_carries_gate(nn.Conv2d(3, 3, 1), "another_network")


def test_settings_of_the_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--print-config", "--gate", "windows"])
    shown = capsys.readouterr().out
    values = tomllib.loads(shown)
    assert (values["gate"]["mode"], values["gate"]["context"]) == ("windows", 0.0)
    path = tmp_path / "settings.toml"
    path.write_text(shown)
    assert effective_config(path) == effective_config(gate_mode="windows")
    assert effective_config(path, gate_mode="shared").gate.mode == "shared"
    path.write_text('[gate]\nmode = "shared"\n')
    assert effective_config(path) == lite_config().changed(gate={"mode": "shared", "context": 0.0})
    path.write_text("[gate]\ncontext = 2.0\n")
    with pytest.raises(OptionError, match=r"goes with gate_context 0 alone, got 2"):
        effective_config(path, gate_mode="windows")
    path.write_text('[gate]\nmode = "wide"\n')
    with pytest.raises(OptionError, match=r"gate\.mode"):
        effective_config(path)


def test_faithful_and_tiles_exclude_each_other() -> None:
    with pytest.raises(OptionError, match="rule exclude alone"):
        effective_config(preset="published", published_background="none", gate_mode="windows")
    assert isinstance(effective_config(preset="published", gate_mode="windows"), TrainingConfig)
