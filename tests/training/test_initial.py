"""Initial weights: checkpoints of the same network, of other classes, of other networks, and hostile files."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import resnet101

from wsiseg.errors import OptionError
from wsiseg.models.networks.deeplab import DeepLabV3Plus
from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter
from wsiseg.models.weights.pretrained import hub_weights
from wsiseg.training.config import NetworkConfig
from wsiseg.training.initial import initialise, load_checkpoint, share_encoder


@pytest.mark.parametrize("wrapped", [False, True])
def test_checkpoint_of_other_classes_lends_all_but_the_class_layer(tmp_path: Path, wrapped: bool) -> None:
    torch.manual_seed(0)
    source, target = LiteClassifier(4), LiteClassifier(2)
    state = source.state_dict()
    content = {"state_dict": {f"module.{n}": t for n, t in state.items()}, "optimizer": {}} if wrapped else dict(state)
    torch.save(content, tmp_path / "w.pth")
    before = target.fc8.weight.detach().clone()
    load_checkpoint(target, tmp_path / "w.pth")
    for name, tensor in target.state_dict().items():
        assert name == "fc8.weight" or torch.equal(tensor, state[name])
    assert torch.equal(target.fc8.weight, before)


def test_checkpoint_of_the_same_classes_is_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = LiteClassifier(3), LiteClassifier(3)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    load_checkpoint(target, tmp_path / "w.pth")
    assert torch.equal(source.fc8.weight, target.fc8.weight)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never run",)


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = LiteClassifier(3)
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "hostile.pth").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(LiteSegmenter(3).state_dict(), tmp_path / "other.pth")
    for name, message in (
        ("gone.pth", "there is no file"),
        ("text.pth", "no torch checkpoint"),
        ("hostile.pth", "no torch checkpoint"),
        ("list.pth", "holds no state dict"),
        ("other.pth", "another network: encoder.conv_stem.weight"),
    ):
        with pytest.raises(OptionError, match=message) as caught:
            load_checkpoint(network, tmp_path / name)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_segmenter_begins_with_the_classifiers_encoder() -> None:
    torch.manual_seed(0)
    classifier, segmenter = LiteClassifier(3), LiteSegmenter(3)
    share_encoder(classifier, segmenter)
    for name, tensor in segmenter.encoder.state_dict().items():
        assert torch.equal(tensor, classifier.encoder.state_dict()[name])
    other = LiteSegmenter(3, encoder="resnet18")
    before = other.encoder.state_dict()["conv1.weight"].clone()
    share_encoder(classifier, other)
    assert torch.equal(other.encoder.state_dict()["conv1.weight"], before)


def config(source: str) -> NetworkConfig:
    return NetworkConfig(architecture="deeplabv3plus_resnet101", initial_weights=source)


def test_resnet101_of_torchvision_fills_the_backbone_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = resnet101(weights=None).state_dict()
    torch.save(source, tmp_path / "resnet101.pth")
    network = DeepLabV3Plus(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    initialise(network, config(str(tmp_path / "resnet101.pth")))
    got = network.state_dict()
    assert {name for name in got if name.startswith("backbone.")} == {
        f"backbone.{name}" for name in source if not name.startswith("fc.")
    }
    for name, tensor in got.items():
        own = name.startswith("backbone.")
        assert torch.equal(tensor, source[name.removeprefix("backbone.")] if own else before[name])


def test_names_of_timms_resnet101_are_torchvisions() -> None:
    with torch.device("meta"):
        ours, theirs = resnet101(weights=None).state_dict(), timm.create_model("resnet101").state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


def test_another_resnet_is_another_network(tmp_path: Path) -> None:
    with torch.device("meta"):
        network, source = DeepLabV3Plus(3), timm.create_model("resnet50").state_dict()
    save_file({name: torch.zeros(()).expand(t.shape).contiguous() for name, t in source.items()}, tmp_path / "r.pth")
    with pytest.raises(OptionError, match=r"another network: backbone\.layer3\.6"):
        load_checkpoint(network, tmp_path / "r.pth")


def test_deeplab_of_other_classes_beside_a_number_of_numpys(tmp_path: Path) -> None:
    """As `deeplab-resnet.pth.tar` is: 21 classes, and the best score as numpy's scalar."""
    torch.manual_seed(0)
    state, network = DeepLabV3Plus(21).state_dict(), DeepLabV3Plus(3)
    torch.save({"epoch": 3, "best_pred": np.float64(0.78), "state_dict": state}, tmp_path / "deeplab-resnet.pth.tar")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    initialise(network, config(str(tmp_path / "deeplab-resnet.pth.tar")))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name] if name.startswith("decoder.last_conv.8.") else state[name])


def test_the_format_before_zip_is_read_and_compressed_parts_are_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = LiteClassifier(3), LiteClassifier(3)
    torch.save(source.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_checkpoint(target, tmp_path / "old.pth")
    assert torch.equal(source.fc8.weight, target.fc8.weight)
    torch.save(source.state_dict(), tmp_path / "new.pth")
    with (
        zipfile.ZipFile(tmp_path / "new.pth") as new,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in new.infolist():
            packed.writestr(entry.filename, new.read(entry))
    with pytest.raises(OptionError, match="compressed"):
        load_checkpoint(target, tmp_path / "packed.pth")


def test_sources_that_there_are_not() -> None:
    with pytest.raises(OptionError, match="timm knows no network 'resnet1001'"):
        hub_weights("timm:resnet1001")
    with pytest.raises(OptionError, match="torchvision or timm:NAME"):
        hub_weights("resnet101")
    with torch.device("meta"):
        classifier = LiteClassifier(3)
    with pytest.raises(OptionError, match="is for the published segmenter"):
        initialise(classifier, NetworkConfig(architecture="lite_classifier", initial_weights="timm:resnet101.a1_in1k"))


def test_a_hub_that_cannot_be_reached_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with torch.device("meta"):
        network = DeepLabV3Plus(3)
    for word in ("torchvision", "imagenet"):
        with pytest.raises(OptionError, match="weights of 'torchvision' could not be had") as caught:
            initialise(network, config(word))
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
