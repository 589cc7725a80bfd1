"""Whole trainings on encoders that cannot be dilated; frozen, by LoRA, shared; and encoders that no bundle may hold."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from wsiseg.errors import BundleError, OptionError
from wsiseg.models.bundle import load_model
from wsiseg.models.large_tiles import predict_shared
from wsiseg.models.networks.lite import LiteClassifier
from wsiseg.models.weights import outside
from wsiseg.models.weights.tensor_files import convert
from wsiseg.training.config import TrainingConfig, lite_config
from wsiseg.training.encoder_training import check_encoder_training, keep_still, layer_rates, merged, prepare_encoder
from wsiseg.training.encoders import held_elsewhere, licence_notes
from wsiseg.training.run import train
from wsiseg.training.settings import effective_config

VIT = "vit_tiny_patch16_224"
SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 14, "img_size": 56, "dynamic_img_size": True}


def config(**changes: object) -> TrainingConfig:
    part = {"initial_weights": "none", "arguments": {"encoder": VIT, "encoder_arguments": SMALL}}
    few = {"epochs": 1, "batch_size": 4}
    return lite_config().changed(
        **{"classifier": part, "segmenter": part, "stage1": few, "stage2": few, "sheet_patches": 0, **changes}
    )


@pytest.fixture
def dataset(tmp_path: Path, sample_data: Path) -> Path:
    """Twelve of the sample patches, four of them for validation."""
    source, root = sample_data / "patches", tmp_path / "patches"
    (root / "images").mkdir(parents=True)
    header, *rows = (source / "labels.csv").read_text().splitlines()
    chosen = [row for row in rows if row.endswith("train")][::60][:8] + [row for row in rows if row.endswith("val")][:4]
    (root / "labels.csv").write_text("\n".join([header, *chosen]) + "\n")
    for row in chosen:
        shutil.copy(source / row.split(",")[0], root / "images")
    shutil.copy(source / "dataset.json", root)
    return root


def run(dataset: Path, out: Path, settings: TrainingConfig) -> tuple[Path, list[str]]:
    said: list[str] = []
    return train(dataset, out, settings, progress=False, say=said.append, device="cpu"), said


def names_in(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


def test_a_transformer_is_trained_in_both_stages_and_gated_by_its_own_encoder(dataset: Path, tmp_path: Path) -> None:
    gate = {"mode": "shared", "context": 0.0, "shared_passes": 1}
    out, _ = run(dataset, tmp_path / "model", config(gate=gate))
    model = load_model(out, runtime="torch")
    assert model.spec.networks.classifier.arguments["encoder_arguments"] == SMALL
    assert json.loads((out / "model.json").read_text())["format_version"] == 1
    patches = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    assert model.classify(patches).shape == (2, 3)
    assert model.segment(patches).shape == (2, 3, 96, 96)
    tiles = torch.randint(0, 256, (1, 3, 192, 192), dtype=torch.uint8)
    probabilities, allowed = predict_shared(model, tiles, torch.tensor(model.spec.shared_gate), 96, 48)
    assert allowed.shape == (1, 9, 3)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 192, 192))


def test_a_frozen_encoder_stays_and_is_held_once(dataset: Path, tmp_path: Path) -> None:
    source = timm.create_model(VIT, pretrained=False, **SMALL).state_dict()
    save_file(source, tmp_path / "vit.safetensors")
    weights = {"initial_weights": str(tmp_path / "vit.safetensors")}
    settings = config(encoder_training="frozen", shared_encoder=True).changed(classifier=weights, segmenter=weights)
    out, _ = run(dataset, tmp_path / "model", settings)
    assert json.loads((out / "model.json").read_text())["format_version"] == 2
    assert not [name for name in names_in(out / "segmenter.safetensors") if "blocks." in name]
    model = load_model(out, runtime="torch")
    for network in (model.classifier, model.segmenter):
        state = network.extractor.state_dict()
        half = state["model.blocks.2.mlp.fc1.weight"] - source["blocks.2.mlp.fc1.weight"]
        assert half.abs().max() < 1e-3  # stored in 16 bits
    assert model.segment(torch.zeros(1, 3, 96, 96, dtype=torch.uint8)).isfinite().all()


class Hostile:
    """Leaves a file behind where its pickle is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def frozen(dataset: Path, out: Path, weights: dict[str, object], **changes: object) -> tuple[Path, list[str]]:
    settings = config(encoder_training="frozen", **changes).changed(classifier=weights, segmenter=weights)
    return run(dataset, out, settings)


def test_what_no_bundle_may_hold_is_asked_for_as_safetensors(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained from a torch checkpoint, loaded with what `wsiseg models convert` makes of it, and with nothing else."""
    torch.manual_seed(1)
    source = timm.create_model(VIT, pretrained=False, **SMALL).state_dict()
    torch.save({"state_dict": source}, tmp_path / "uni.pth")
    weights = {"initial_weights": str(tmp_path / "uni.pth"), "published": "MahmoodLab/UNI2-h"}
    out, said = frozen(dataset, tmp_path / "model", weights)
    assert sum("names the weights of MahmoodLab/UNI2-h" in line and "--hold-weights" in line for line in said) == 2
    for kind in ("classifier", "segmenter"):
        assert not [name for name in names_in(out / f"{kind}.safetensors") if "blocks." in name]
        held = json.loads((out / "model.json").read_text())["networks"][kind]["encoder"]
        assert (held["source"], held["licence"]) == ("hf-hub:MahmoodLab/UNI2-h", "CC-BY-NC-ND-4.0")
    with pytest.raises(BundleError, match=r"needs the encoder hf-hub:MahmoodLab/UNI2-h .* set WSISEG_ENCODERS"):
        load_model(out, runtime="torch")
    (tmp_path / "elsewhere").mkdir()
    hostile, trace = tmp_path / "elsewhere" / "a.bin", tmp_path / "trace"
    hostile.write_bytes(pickle.dumps(Hostile(trace)))
    shutil.copy(hostile, tmp_path / "elsewhere" / "b.safetensors")
    shutil.move(tmp_path / "uni.pth", tmp_path / "elsewhere" / "c.pth")
    monkeypatch.setenv(outside.VARIABLE, str(tmp_path / "elsewhere"))
    with monkeypatch.context() as patched, pytest.raises(BundleError, match="wsiseg models convert") as caught:
        patched.setattr(torch, "load", None)  # no checkpoint is opened, not even the one that would do
        load_model(out, runtime="torch")
    assert "\n" not in str(caught.value)
    pickle.loads(hostile.read_bytes())  # what it would have done
    trace.unlink()
    with pytest.raises(OptionError, match="no torch checkpoint of plain tensors"):
        convert(hostile, tmp_path / "never.safetensors", 2**30)
    assert not trace.exists()
    assert not (tmp_path / "never.safetensors").exists()
    assert convert(tmp_path / "elsewhere" / "c.pth", tmp_path / "elsewhere" / "d.safetensors", 2**30) == (
        len(source),
        held["sha256"],
    )
    model = load_model(out, runtime="torch")
    for network in (model.classifier, model.segmenter):
        name = "blocks.2.mlp.fc1.weight"
        assert network.extractor.state_dict()[f"model.{name}"].equal(source[name])


@pytest.mark.parametrize(
    ("card", "hold", "expected"),
    [
        ("---\nlicense: cc-by-nc-nd-4.0\n---\n", False, "cc-by-nc-nd-4.0"),
        (None, False, "not stated"),
        ("---\nlicense: apache-2.0\n---\n", False, None),
        (None, True, None),
    ],
)
def test_a_snapshots_licence_decides_what_a_bundle_holds(
    dataset: Path, tmp_path: Path, card: str | None, hold: bool, expected: str | None
) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    save_file(timm.create_model(VIT, pretrained=False, **SMALL).state_dict(), snapshot / "model.safetensors")
    if card is not None:
        (snapshot / "README.md").write_text(card)
    settings = config(encoder_training="frozen", hold_weights=hold).changed(
        classifier={"initial_weights": str(snapshot)}, segmenter={"initial_weights": str(snapshot)}
    )
    found = held_elsewhere(settings, "segmenter").get("encoder", {})
    assert found.get("licence") == expected
    assert found.get("source") == (None if expected is None else "snapshot")
    assert bool(licence_notes(settings)) == (card is None or "nc" in card)


def test_a_bundle_lacks_the_weights_of_an_unknown_licence(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snapshot").mkdir()
    save_file(timm.create_model(VIT, pretrained=False, **SMALL).state_dict(), tmp_path / "snapshot/model.safetensors")
    out, said = frozen(dataset, tmp_path / "model", {"initial_weights": str(tmp_path / "snapshot")})
    assert any("whose licence is not stated: it may forbid" in line for line in said)
    assert not [name for name in names_in(out / "segmenter.safetensors") if "blocks." in name]
    assert str(tmp_path) not in json.dumps(json.loads((out / "model.json").read_text())["networks"])
    monkeypatch.setenv(outside.VARIABLE, str(tmp_path / "snapshot"))
    assert load_model(out, runtime="torch").segment(torch.zeros(1, 3, 96, 96, dtype=torch.uint8)).isfinite().all()


def test_learning_further_from_it_is_said() -> None:
    (note,) = licence_notes(config().changed(classifier={"published": "MahmoodLab/UNI2-h"}))
    assert "MahmoodLab/UNI2-h, whose licence (CC-BY-NC-ND-4.0) forbids or limits" in note
    assert not licence_notes(config().changed(classifier={"published": "bioptimus/H-optimus-0"}))


def tiny() -> LiteClassifier:
    torch.manual_seed(0)
    return LiteClassifier(2, VIT, encoder_arguments=SMALL)


def step(network: nn.Module) -> None:
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    network(torch.rand(2, 3, 56, 56)).square().sum().backward()
    optimiser.step()


def test_lora_learns_beside_the_weights_and_ends_inside_them() -> None:
    pytest.importorskip("peft")
    network = tiny()
    before = {name: tensor.clone() for name, tensor in network.extractor.state_dict().items()}
    names = set(network.state_dict())
    prepare_encoder(network, "lora", 4)
    trained = [name for name, parameter in network.extractor.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    step(network)
    step(network)  # the first leaves one of each pair at zero
    network.eval()
    image = torch.rand(1, 3, 56, 56)
    with torch.no_grad():
        beside = network(image)
        assert merged(network) is network
        inside = network(image)
    torch.testing.assert_close(inside, beside, rtol=1e-3, atol=1e-4)
    assert set(network.state_dict()) == names
    changed = {name for name, tensor in network.extractor.state_dict().items() if not tensor.equal(before[name])}
    assert "model.blocks.1.attn.qkv.weight" in changed
    assert "model.blocks.1.norm1.weight" not in changed


def test_frozen_batch_normalisations_do_not_move() -> None:
    network = LiteClassifier(2, "test_resnet", output_stride=16)
    prepare_encoder(network, "frozen", 8)
    network.train()
    keep_still(network)
    before = {name: tensor.clone() for name, tensor in network.extractor.state_dict().items()}
    step(network)
    assert all(tensor.equal(before[name]) for name, tensor in network.extractor.state_dict().items())
    assert network.fuse.training


def test_rates_fall_from_the_deepest_block_on() -> None:
    names = [
        "a.timm.model.cls_token",
        "a.timm.model.blocks.0.b.c",
        "a.timm.model.blocks.0.d",
        "a.timm.model.blocks.1.b",
    ]
    assert list(layer_rates(names, 0.5).values()) == [0.25, 0.5, 0.5, 1.0]
    stages = ["layer1.0.conv1.weight", "layer1.1.conv1.weight", "layers_2.blocks.0.mlp.fc1.weight"]
    assert list(layer_rates(stages, 0.1).values()) == pytest.approx([0.01, 0.1, 1])


def test_other_networks_are_trained_in_full() -> None:
    with pytest.raises(OptionError, match="resnet38 is trained in full"):
        check_encoder_training(nn.Conv2d(1, 1, 1), "frozen", "resnet38")


def test_an_encoder_brings_its_weights_and_normalisation(tmp_path: Path) -> None:
    settings = effective_config(encoder="uni2-h")
    for network in (settings.classifier, settings.segmenter):
        assert network.arguments["encoder"] == "vit_giant_patch14_224"
        assert network.initial_weights == "hf-hub:MahmoodLab/UNI2-h"
        assert network.published == "MahmoodLab/UNI2-h"
        assert network.mean == (0.485, 0.456, 0.406)
    path = tmp_path / "settings.toml"
    path.write_text('[classifier]\ninitial_weights = "mine.pth"\n[classifier.arguments]\nencoder = "resnet18"\n')
    mixed = effective_config(path, encoder="h-optimus-0")
    assert mixed.classifier.initial_weights == "mine.pth"
    assert mixed.classifier.arguments["encoder"] == "vit_giant_patch14_reg4_dinov2"
    assert effective_config().classifier.arguments == {"encoder": "tf_efficientnet_lite0"}
