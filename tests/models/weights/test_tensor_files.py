"""Plain tensors in files: one hash whatever the file, checkpoints made into safetensors, and licences of pages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsiseg.errors import OptionError, OutputError
from wsiseg.models.weights.licences import NOT_STATED, card_licence, may_be_shared, source_licence
from wsiseg.models.weights.tensor_files import convert, read_tensors, tensors_sha256

LIMIT = 2**20


def state() -> dict[str, torch.Tensor]:
    shared = torch.arange(12.0).reshape(3, 4)
    return {
        "b": shared.T,  # not contiguous, and of the same memory
        "a": shared,
        "count": torch.tensor(3),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 2),
    }


def test_a_checkpoint_and_what_it_is_converted_to_have_one_hash(tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state().items()}}, tmp_path / "w.pth")
    count, digest = convert(tmp_path / "w.pth", tmp_path / "w.safetensors", LIMIT)
    assert count == 5
    found = read_tensors(tmp_path / "w.safetensors", LIMIT)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {n: t.tolist() for n, t in state().items()}
    assert digest == tensors_sha256(found) == tensors_sha256(dict(reversed(list(state().items()))))


@pytest.mark.parametrize(
    "changed",
    [{"a": torch.zeros(3, 4)}, {"a": torch.arange(12.0).reshape(4, 3)}, {"a": torch.arange(12).reshape(3, 4)}],
    ids=["values", "shape", "type"],
)
def test_another_value_shape_type_or_name_is_another_hash(changed: dict[str, torch.Tensor]) -> None:
    before = state()
    assert tensors_sha256({**before, **changed}) != tensors_sha256(before)
    assert tensors_sha256({**before, "c": before["a"]}) != tensors_sha256(before)


def test_what_is_no_safetensors_is_not_read(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.safetensors")
    with pytest.raises(OptionError, match="is not a whole safetensors file"):
        read_tensors(tmp_path / "w.safetensors", LIMIT)
    save_file({"a": torch.zeros(300_000)}, tmp_path / "large.safetensors")
    with pytest.raises(OptionError, match="more than the 1048576"):
        read_tensors(tmp_path / "large.safetensors", LIMIT)


def test_the_command_converts_once(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.bin")
    command = [sys.executable, "-m", "wsiseg", "models", "convert", "w.bin", "w.safetensors", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        **{"file": "w.safetensors", "tensors": 5},
        "tensors_sha256": tensors_sha256(load_file(tmp_path / "w.safetensors")),
    }
    with pytest.raises(OutputError, match="exists; choose another name, or replace it with --overwrite"):
        convert(tmp_path / "w.bin", tmp_path / "w.safetensors", LIMIT)
    convert(tmp_path / "w.bin", tmp_path / "w.safetensors", LIMIT, overwrite=True)
    with pytest.raises(OptionError, match=r"ends in \.safetensors"):
        convert(tmp_path / "w.bin", tmp_path / "w.pth", LIMIT)


@pytest.mark.parametrize(
    ("card", "licence", "shared"),
    [
        ("---\nlicense: apache-2.0\n---\n# Model", "apache-2.0", True),
        ("---\r\nlicense: MIT\r\ntags: [a]\r\n---\r\n", "MIT", True),
        ("---\nlicense: other\nlicense_name: owkin-nc\n---\n", "owkin-nc", False),
        ("---\nlicense: other\n---\n", "other", False),
        ("---\nlicense: [apache-2.0, cc-by-nc-4.0]\n---\n", "apache-2.0, cc-by-nc-4.0", False),
        ("---\nlicense: {a: 1}\n---\n", "", False),
        ("---\ntags: [a]\n---\nlicense: mit\n", "", False),
        ("---\nlicense: [\n---\n", "", False),
        ("---\n- license: mit\n---\n", "", False),
        ("---\nlicense: !!python/object/apply:os.getcwd []\n---\n", "", False),
        ("license: mit", "", False),
    ],
)
def test_the_licence_is_what_the_front_matter_states(tmp_path: Path, card: str, licence: str, shared: bool) -> None:
    (tmp_path / "README.md").write_text(card, newline="")
    assert card_licence(tmp_path) == licence
    assert may_be_shared(licence) is shared
    assert source_licence("resnet18", str(tmp_path)) == (licence or NOT_STATED)


def test_files_are_the_users_own_unless_a_page_beside_them_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    assert source_licence("resnet18", str(tmp_path / "w.safetensors")) == ""
    (tmp_path / "README.md").write_bytes(b"---\nlicense: cc-by-nc-4.0\n---\n")
    assert source_licence("resnet18", str(tmp_path / "w.safetensors")) == "cc-by-nc-4.0"
    (tmp_path / "README.md").write_bytes(b"\xff\xfe---")
    assert card_licence(tmp_path) == ""


def test_timm_states_the_licences_of_its_own() -> None:
    assert source_licence("resnet50.a1_in1k", "imagenet") == "apache-2.0"
    assert not may_be_shared(source_licence("convnextv2_tiny.fcmae", "imagenet"))
