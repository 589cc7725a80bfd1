"""Weights of encoders from files and snapshots: under whose names they may stand, and what is refused."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from wsiseg.errors import OptionError
from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter
from wsiseg.models.weights.encoder_names import with_timm_names
from wsiseg.models.weights.encoder_sources import find_encoder, hub_file, weight_file
from wsiseg.training.config import NetworkConfig
from wsiseg.training.initial import initialise

SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 14, "img_size": 56, "dynamic_img_size": True}
VIT = "vit_tiny_patch16_224"


def network(encoder: str = VIT, arguments: dict[str, object] | None = SMALL) -> LiteClassifier:
    return LiteClassifier(2, encoder, encoder_arguments=arguments).eval()


def load(target: LiteClassifier | LiteSegmenter, source: Path | str, encoder: str = VIT) -> None:
    kind = "lite_classifier" if isinstance(target, LiteClassifier) else "lite_segmenter"
    initialise(target, NetworkConfig(architecture=kind, arguments={"encoder": encoder}, initial_weights=str(source)))


def test_timms_own_state_fills_the_encoder_to_the_bit(tmp_path: Path) -> None:
    source = timm.create_model(VIT, pretrained=False, **SMALL).eval()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    target = network()
    head = target.fc8.weight.clone()
    load(target, tmp_path / "w.safetensors")
    image = torch.rand(1, 3, 56, 56)
    with torch.no_grad():
        theirs = source.forward_intermediates(image, indices=[1, 2, 3], norm=False, intermediates_only=True)
        ours = target.encoder(image)
    for one, other in zip(ours, theirs, strict=True):
        assert one.equal(other)
    assert head.equal(target.fc8.weight)


def test_position_embeddings_of_another_size_are_resampled(tmp_path: Path) -> None:
    source = timm.create_model(VIT, pretrained=False, **{**SMALL, "img_size": 112})
    torch.save({"state_dict": source.state_dict()}, tmp_path / "w.pth")
    target = network()
    load(target, tmp_path / "w.pth")
    state = target.extractor.state_dict()
    assert state["model.blocks.0.attn.qkv.weight"].equal(source.state_dict()["blocks.0.attn.qkv.weight"])
    assert state["model.pos_embed"].shape == (1, 17, 32)


@pytest.mark.parametrize("build", [LiteClassifier, LiteSegmenter])
def test_torchvisions_resnet_fills_a_dilated_encoder(
    tmp_path: Path, build: type[LiteClassifier] | type[LiteSegmenter]
) -> None:
    from torchvision.models import resnet18

    source = resnet18(weights=None).state_dict()
    torch.save(source, tmp_path / "resnet18.pth")
    target = build(2, encoder="resnet18")
    load(target, tmp_path / "resnet18.pth", "resnet18")
    state = target.extractor.state_dict()
    assert len(state) > 100
    assert all(tensor.equal(source[name]) for name, tensor in state.items())


def test_what_is_of_another_encoder_is_one_line(tmp_path: Path) -> None:
    other = timm.create_model(VIT, pretrained=False, **{**SMALL, "embed_dim": 48, "num_heads": 3})
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    save_file({"a.weight": torch.zeros(3, 3)}, tmp_path / "nothing.safetensors")
    torch.save({"x": object}, tmp_path / "pickle.pth")
    for name, message in (
        ("other.safetensors", "holds no weights of vit_tiny_patch16_224"),
        ("nothing.safetensors", "holds no weights of vit_tiny_patch16_224"),
        ("pickle.pth", "no torch checkpoint of plain tensors"),
        ("gone.pth", "there is no file of weights"),
    ):
        with pytest.raises(OptionError, match=message) as caught:
            load(network(), tmp_path / name)
        assert "\n" not in str(caught.value)


def snapshot(folder: Path) -> dict[str, Tensor]:
    """A snapshot of a hub's repository as timm writes one, with a normalisation of its own."""
    torch.manual_seed(3)
    state = timm.create_model(VIT, pretrained=False, num_classes=0, **SMALL).state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    shape = {key: value for key, value in SMALL.items() if key != "dynamic_img_size"}
    fields = {
        **{"architecture": VIT, "num_classes": 0, "num_features": 32, "global_pool": "token", "model_args": shape},
        "pretrained_cfg": {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.1], "input_size": [3, 56, 56]},
    }
    (folder / "config.json").write_text(json.dumps(fields))
    return dict(state)


def test_a_snapshots_folder_says_how_it_is_built(tmp_path: Path) -> None:
    state = snapshot(tmp_path / "snapshot")
    found = find_encoder(str(tmp_path / "snapshot"))
    assert (found.architecture, found.normalisation) == (VIT, ((0.7, 0.6, 0.7), (0.2, 0.2, 0.1)))
    assert found.arguments == SMALL
    target = network(found.architecture, dict(found.arguments))
    load(target, found.weights)
    for name, tensor in target.extractor.state_dict().items():
        assert tensor.equal(state[name.removeprefix("model.")])


def test_a_hubs_name_is_found_in_its_cache_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--name"
    state = snapshot(repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = find_encoder("hf-hub:owner/name")
    assert (found.weights, found.arguments) == ("hf-hub:owner/name", SMALL)
    assert weight_file(found.weights).name == "model.safetensors"
    target = network()
    load(target, found.weights)
    assert target.extractor.state_dict()["model.cls_token"].equal(state["cls_token"])
    with pytest.raises(
        OptionError, match=r"config.json of hf-hub:owner/other could not be had .* give the folder"
    ) as caught:
        find_encoder("hf-hub:owner/other")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hf-hub:owner", "hf-hub:../../etc/passwd", "hf-hub:a/b/c"])
def test_names_that_no_hub_has_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match="expected hf-hub:OWNER/NAME"):
        hub_file(name, ["config.json"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold one JSON object"),
        ('{"architecture": "no_such"}', "knows no encoder 'no_such'"),
        ('{"architecture": "vit_tiny_patch16_224", "model_args": {"depth": 1e9}}', "depth = 1000000000.0 is no"),
        ('{"architecture": "vit_tiny_patch16_224", "model_args": {"pretrained": true}}', "pretrained = True is no"),
        ('{"model_type": "bert"}', "describes bert: expected an encoder of timm"),
        ('{"model_type": "dinov2", "hidden_size": 8}', "cannot be built here"),
    ],
)
def test_a_bad_configuration_is_one_line(tmp_path: Path, fields: str, message: str) -> None:
    (tmp_path / "config.json").write_text(fields)
    with pytest.raises(OptionError, match=message) as caught:
        find_encoder(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none_is_said() -> None:
    with pytest.raises(OptionError, match=r"there is no folder './nowhere'"):
        find_encoder("./nowhere")


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov2_with_registers", "gated"])
def test_transformers_weights_give_the_same_features(kind: str, tmp_path: Path) -> None:
    """The reference is transformers itself, with random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {
        **{"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 56, "patch_size": 14},
        "attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0,
    }  # fmt: skip
    if kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**shape, intermediate_size=128), add_pooling_layer=False)
    elif kind == "dinov2_with_registers":
        model = transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**shape, mlp_ratio=4, num_register_tokens=4)
        )
    else:
        model = transformers.Dinov2Model(
            transformers.Dinov2Config(**shape, mlp_ratio=4, use_swiglu_ffn=kind == "gated")
        )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.eval().save_pretrained(tmp_path)
    found = find_encoder(str(tmp_path))
    target = network(found.architecture, dict(found.arguments or {}))
    load(target, found.weights)
    image = torch.rand(1, 3, 56, 56)
    with torch.no_grad():
        hidden = model(image, output_hidden_states=True).hidden_states
        ours = target.encoder(image)
    for one, tokens in zip(ours, [hidden[2], hidden[3], hidden[4]], strict=True):
        cells = tokens[:, -16:].transpose(1, 2).reshape(1, 32, 4, 4)
        torch.testing.assert_close(one, cells, rtol=1e-3, atol=1e-4)


def test_names_that_are_timms_already_stay() -> None:
    state = {"blocks.0.norm1.weight": torch.ones(2), "patch_embed.proj.weight": torch.ones(1)}
    assert with_timm_names(state) == state
    inside = with_timm_names(
        {f"trunk.{name}": tensor for name, tensor in state.items()} | {"logit_scale": torch.ones(1)}
    )
    assert sorted(inside) == sorted(state)
