"""Initial weights: checkpoints of the same network, of other classes, of other networks, and hostile files."""

import pickle
from pathlib import Path

import pytest
import torch

from wsiseg.errors import OptionError
from wsiseg.models.lite import LiteClassifier, LiteSegmenter
from wsiseg.training.initial import load_checkpoint, share_encoder


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
