"""Bundles come from anywhere: a good one predicts what its networks do, a bad one is refused in one line."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsiseg.classes import ClassTable
from wsiseg.errors import BundleError, DeviceError, OutputError
from wsiseg.models.bundle import load_model, save_bundle
from wsiseg.models.folder import find_bundle, list_bundles
from wsiseg.models.networks.architectures import ARCHITECTURES, build_network
from wsiseg.models.spec import FORMAT_VERSION, BundleSpec, read_spec
from wsiseg.models.tissue_model import normalise

ENCODER = {"encoder": "mobilenetv3_small_050"}
CLASSES = ClassTable.from_names(["Tumour", "Stroma", "Lymphocytes"])
MEAN, STD = [0.7, 0.5, 0.6], [0.2, 0.25, 0.3]


def fields(**changes):
    network = {"arguments": ENCODER, "mean": MEAN, "std": STD}
    return {
        "classes": CLASSES,
        "mpp": 0.5,
        "patch_size_px": 96,
        "overlap": 0.5,
        "gate": [0.1, 0.2, 0.3],
        "networks": {
            "classifier": {"architecture": "lite_classifier", **network},
            "segmenter": {"architecture": "lite_segmenter", **network},
        },
        "licence": "CC0-1.0",
        "training_data": "none: random weights",
        "metrics": [{"name": "balanced accuracy", "value": 0.5, "data": "thirty images", "low": 0.4, "high": 0.6}],
        "training": {"epochs": 3, "stage1": {"mu": 0.98}},
        **changes,
    }


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    built = [build_network(kind, f"lite_{kind}", 3, ENCODER).eval() for kind in ("classifier", "segmenter")]
    for module in built:  # so that no running statistic is still what a fresh network has
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
    return built


@pytest.fixture(scope="module")
def saved(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    save_bundle(folder, fields(), *networks)
    return folder


@pytest.fixture
def bundle(saved, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "tiny")


def edit(bundle, **changes):
    path = bundle / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_network(bundle, kind="classifier", **changes):
    networks = json.loads((bundle / "model.json").read_text())["networks"]
    networks[kind] |= changes
    edit(bundle, networks=networks)


def rewrite(bundle, change, kind="classifier"):
    """Change the weight tensors of a network, and the hash accordingly."""
    path = bundle / f"{kind}.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    edit_network(bundle, kind, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def refused(bundle, *words):
    with pytest.raises(BundleError) as error:
        load_model(bundle)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 500
    for word in words:
        assert word in message


def test_a_loaded_model_computes_what_was_saved(saved, networks):
    model = load_model(saved, runtime="torch")
    patches = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    images = (patches / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.inference_mode():
        classified, segmented = torch.sigmoid(networks[0](images)), networks[1](images)
    torch.testing.assert_close(model.classify(patches), classified)
    torch.testing.assert_close(model.segment(patches), segmented)
    assert model.segment(patches).shape == (2, 3, 96, 96)
    assert model.classify(patches).dtype == torch.float32
    assert model.classes == CLASSES
    assert model.gate.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert not any(p.requires_grad or p.is_meta for p in model.segmenter.parameters())
    assert not model.classifier.training


def test_the_published_normalisation_is_a_division_by_255_exactly():
    patches = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    got = normalise(patches, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    assert torch.equal(got, patches / 255)
    assert patches.flatten()[255] == 255  # the patches themselves are untouched


@pytest.mark.parametrize("patches", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_patches_must_be_a_batch_of_uint8(saved, patches):
    with pytest.raises(ValueError, match="uint8"):
        load_model(saved, runtime="torch").segment(patches)


def test_model_json_says_everything(saved):
    spec = read_spec(saved)
    assert spec == BundleSpec.model_validate_json((saved / "model.json").read_text())
    assert (spec.name, spec.mpp, spec.patch_size_px, spec.overlap) == ("tiny", 0.5, 96, 0.5)
    assert spec.networks.segmenter.architecture == "lite_segmenter"
    assert spec.networks.classifier.mean == tuple(MEAN)
    assert spec.metrics[0].high == 0.6
    assert spec.training == {"epochs": 3, "stage1": {"mu": 0.98}}
    assert sorted(p.name for p in saved.iterdir()) == ["classifier.safetensors", "model.json", "segmenter.safetensors"]


def test_reading_a_spec_needs_no_torch(saved):
    code = "import sys; from wsiseg.models.spec import *; print(read_spec(sys.argv[1]).name, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tiny", "False"]


def test_the_hash_changes_with_the_weights(saved, bundle):
    before = load_model(saved).hash
    assert load_model(bundle).hash == before
    rewrite(bundle, lambda state: state["fc8.weight"].add_(1))
    assert load_model(bundle).hash != before


def test_half_the_size_in_16_bits(networks, saved, tmp_path):
    save_bundle(tmp_path / "half", fields(), *networks, half=True)
    size, full = ((f / "segmenter.safetensors").stat().st_size for f in (tmp_path / "half", saved))
    assert size < 0.6 * full
    model = load_model(tmp_path / "half", runtime="torch")
    assert {p.dtype for p in model.segmenter.parameters()} == {torch.float32}
    patches = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    torch.testing.assert_close(
        model.classify(patches), load_model(saved, runtime="torch").classify(patches), rtol=0, atol=5e-3
    )


def test_one_gate_threshold_stands_for_all_classes(networks, tmp_path):
    given = fields(gate_threshold=0.25)
    del given["gate"]
    assert save_bundle(tmp_path / "scalar", given, *networks).gate == (0.25, 0.25, 0.25)


def test_an_existing_folder_is_overwritten_only_if_asked_and_only_if_a_bundle(bundle, networks, tmp_path):
    with pytest.raises(OutputError, match="exists"):
        save_bundle(bundle, fields(), *networks)
    save_bundle(bundle, fields(mpp=1.0), *networks, overwrite=True)
    assert read_spec(bundle).mpp == 1.0
    (tmp_path / "photos").mkdir()
    with pytest.raises(OutputError, match="no model bundle"):
        save_bundle(tmp_path / "photos", fields(), *networks, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "tiny"]


def test_bad_fields_leave_nothing_behind(networks, tmp_path):
    for wrong in ({"mpp": 0}, {"gate": [0.1]}, {"overlap": 1.0}, {"colour": 1}, {"training": {"x": float("nan")}}):
        with pytest.raises(BundleError):
            save_bundle(tmp_path / "bad", fields(**wrong), *networks)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(networks, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        save_bundle(tmp_path / "file" / "tiny", fields(), *networks)


def test_a_missing_bundle_names_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("wsiseg.models.folder.BUNDLES_FOLDER", tmp_path)
    (tmp_path / "shipped-one").mkdir()
    refused("no-such-model", "'no-such-model'", "shipped models: none")
    (tmp_path / "shipped-one" / "model.json").write_text("{}")
    refused(tmp_path / "nowhere", "neither a shipped model nor a folder", "shipped models: shipped-one")
    refused(tmp_path / "shipped-one" / "model.json", "is a file")
    assert list_bundles() == ["shipped-one"]
    assert find_bundle("shipped-one") == tmp_path / "shipped-one"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "one JSON object"),
        ("\x00", "not JSON"),
        ("{}", "format_version"),
    ],
)
def test_a_model_json_that_is_none(bundle, text, word):
    (bundle / "model.json").write_text(text)
    refused(bundle, word)


def test_a_model_json_that_is_missing_or_no_text_or_endless(bundle):
    (bundle / "model.json").write_bytes(b"\xff\xfe\xfa")
    refused(bundle, "not JSON")
    (bundle / "model.json").write_text(" " * (5 * 2**20))
    refused(bundle, "more than")
    (bundle / "model.json").unlink()
    refused(bundle, "has no model.json")


@pytest.mark.parametrize("version", ["1", None, True, 0, 1.5])
def test_a_format_version_that_is_none(bundle, version):
    edit(bundle, format_version=version)
    refused(bundle, "format_version must be a whole number")


def test_a_newer_format_is_refused_whatever_else_it_says(bundle):
    edit(bundle, format_version=FORMAT_VERSION + 1, networks="changed beyond recognition")
    refused(bundle, "made by a newer wsiseg", "update")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"surprise": 1}, "surprise"),
        ({"mpp": -1}, "mpp"),
        ({"mpp": float("nan")}, "mpp"),
        ({"patch_size_px": 10**9}, "patch_size_px"),
        ({"overlap": 1}, "overlap"),
        ({"gate": [0.1, 0.2]}, "3 classes"),
        ({"gate": [0.1, 0.2, 7]}, "gate.2"),
        ({"gate_threshold": 0.1}, "not both"),
        ({"classes": []}, "class"),
        ({"classes": "Tumour"}, "list"),
        ({"classes": [{"index": 1, "name": "Tumour"}]}, "color"),
        ({"networks": {}}, "networks"),
    ],
)
def test_a_field_that_makes_no_sense(bundle, changes, word):
    edit(bundle, **changes)
    refused(bundle, word)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "unet"}, ["unknown classifier architecture 'unet'", "resnet38"]),
        ({"architecture": "lite_segmenter"}, ["unknown classifier architecture 'lite_segmenter'"]),
        ({"arguments": {"encoder": "no_such_encoder"}}, ["no_such_encoder"]),
        ({"arguments": {"encoder": "hf-hub:someone/something"}}, ["hf-hub"]),
        ({"arguments": {"width": 3}}, ["lite_classifier cannot be built"]),
        ({"arguments": {"num_classes": 9}}, ["lite_classifier cannot be built"]),
        ({"std": [1, 0, 1]}, ["std"]),
        ({"mean": [1, 1]}, ["mean"]),
        ({"sha256": "0" * 63}, ["sha256"]),
        ({"file": "segmenter.safetensors"}, ["weight file each"]),
    ],
)
def test_a_network_that_is_unknown_or_ill_described(bundle, changes, words):
    edit_network(bundle, **changes)
    refused(bundle, *words)


@pytest.mark.parametrize(
    "name", ["../w.safetensors", "/etc/w.safetensors", "a/w.safetensors", "w.pth", ".safetensors", ""]
)
def test_a_file_name_that_leaves_the_folder_or_is_no_safetensors(bundle, name):
    edit_network(bundle, file=name)
    refused(bundle, "networks.classifier.file")


def test_a_link_out_of_the_folder_is_refused(bundle, tmp_path):
    weights = bundle / "classifier.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    refused(bundle, "outside its bundle")


def test_a_pipe_in_place_of_weights_does_not_hang(bundle):
    weights = bundle / "classifier.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    refused(bundle, "has no classifier.safetensors")


def test_missing_altered_and_oversized_weights(bundle):
    weights = bundle / "segmenter.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused(bundle, "altered", "segmenter.safetensors")
    with weights.open("wb") as file:
        file.truncate(5 * 2**30)  # sparse: takes no space
    refused(bundle, "bytes, more than")
    weights.unlink()
    refused(bundle, "has no segmenter.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100],
        lambda content: content[:4],
        lambda content: b"",
        lambda content: (2**60).to_bytes(8, "little") + content[8:],
        lambda content: b"\x80\x02}q\x00." * 50,
    ],
    ids=["truncated", "no header", "empty", "absurd header", "a pickle"],
)
def test_weights_that_are_no_safetensors_even_with_the_right_hash(bundle, damage):
    path = bundle / "classifier.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    edit_network(bundle, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    refused(bundle, "not a whole safetensors file")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda s: s.pop("fc8.weight"), "lacks tensor 'fc8.weight'"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown tensor 'extra'"),
        (
            lambda s: s.update({"fc8.weight": s["fc8.weight"][:2].clone()}),
            "must be of shape (3, 256, 1, 1), got (2, 256, 1, 1)",
        ),
        (lambda s: s.update({"fc8.weight": s["fc8.weight"].to(torch.uint8)}), "of type U8"),
    ],
)
def test_weights_of_another_network(bundle, change, word):
    rewrite(bundle, change)
    refused(bundle, word)


def test_an_absurd_network_is_refused_before_memory_is_taken(bundle):
    edit_network(bundle, "segmenter", architecture="deeplabv3plus_resnet101", arguments={})
    refused(bundle, "belongs to another network")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there(saved):
    with pytest.raises(DeviceError, match=r"'cuda' cannot be used on this machine, which has cpu"):
        load_model(saved, "cuda")
    with pytest.raises(DeviceError, match="'nonsense'"):
        load_model(saved, "nonsense")


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_has_as_many_channels_as_classes(name):
    entry = ARCHITECTURES[name]
    network = build_network(entry.kind, name, 5, {}).eval()
    with torch.inference_mode():
        shape = network(torch.rand(1, 3, 64, 64)).shape
    assert shape == ((1, 5) if entry.kind == "classifier" else (1, 5, 64, 64))
    parameters = [parameter for parameter, _ in network.named_parameters()]
    assert all(any(parameter.startswith(layer) for parameter in parameters) for layer in entry.new_layers)
