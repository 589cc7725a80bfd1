"""MXNet's files: those that MXNet itself wrote and re-read, ResNet-38 whole, and hostile ones."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from wsiseg.errors import OptionError
from wsiseg.models.networks.resnet38 import ResNet38
from wsiseg.models.weights.checkpoints import read_state
from wsiseg.models.weights.mxnet import read_params, resnet38_arrays, resnet38_name
from wsiseg.training.initial import load_checkpoint

MXNET = ROOT / "tests" / "data" / "parity" / "mxnet"
NAMES = json.loads((MXNET / "names.json").read_text())
WHOLE = {layout: (MXNET / f"{layout}.params").read_bytes() for layout in ("v2", "v1", "legacy", "dtypes")}
V2 = struct.pack("<Ii", 0xF993FAC9, 0)
TYPES = ["<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8"]


def head(array, layout="v2"):
    shape = array.shape
    if layout == "legacy":
        return struct.pack(f"<I{len(shape)}I", len(shape), *shape)
    return (V2 if layout == "v2" else struct.pack("<I", 0xF993FAC8)) + struct.pack(
        f"<I{len(shape)}q", len(shape), *shape
    )


def written(arrays, layout="v2"):
    """The bytes of a file, as the layouts are described in the module."""
    parts = [struct.pack("<3Q", 0x112, 0, len(arrays))]
    for array in arrays.values():
        parts += [head(array, layout), struct.pack("<3i", 1, 0, TYPES.index(array.dtype.str.lstrip("|")))]
        parts.append(array.tobytes())
    parts.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        parts += [struct.pack("<Q", len(name.encode())), name.encode()]
    return b"".join(parts)


def refused(tmp_path, content):
    path = tmp_path / "w.params"
    path.write_bytes(content)
    with pytest.raises(OptionError) as caught:
        read_params(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "expected"),
    [("v2", "expected"), ("v1", "expected"), ("legacy", "expected"), ("dtypes", "dtypes_expected")],
)
def test_arrays_are_those_that_mxnet_read(file, expected):
    got, wanted = read_params(MXNET / f"{file}.params"), np.load(MXNET / f"{expected}.npz")
    assert list(got) == wanted.files
    for name in wanted:
        assert got[name].dtype == wanted[name].dtype
        assert np.array_equal(got[name], wanted[name])


@pytest.mark.parametrize("layout", ["v2", "v1", "legacy"])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_in_every_layout(tmp_path, layout, dtype):
    wanted = {"a": np.arange(6).reshape(1, 2, 3).astype(dtype), "ß": np.array([7], dtype)}
    (tmp_path / "w.params").write_bytes(written(wanted, layout))
    got = read_params(tmp_path / "w.params")
    assert list(got) == ["a", "ß"]
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        assert np.array_equal(got[name], array)


def test_the_rules_of_names_are_those_of_the_list():
    assert len(NAMES) == 191
    assert {name: resnet38_name(name) for name in NAMES} == NAMES
    with torch.device("meta"):
        ours = {name for name in ResNet38(4).state_dict() if not name.endswith("num_batches_tracked")}
    assert set(NAMES.values()) == ours - {"fc8.weight"}
    # Without prefixes, as Gluon writes them.
    assert {resnet38_name(name.partition(":")[2]) for name in NAMES} == set(NAMES.values())


@pytest.mark.parametrize(
    "name",
    [
        *("arg:linear1000_weight", "arg:linear1000_bias", "data", "", ":", "arg:bn7_moving_mean", "aux:bn7_gamma"),
        *("aux:conv1a_weight", "arg:res2a_branch2a_gamma", "arg:bn2a_branch2a_weight", "arg:bn2a_branch1_gamma"),
        *("arg:res8a_branch2a_weight", "arg:res2a_branch2a_weight_", "other:bn7_gamma", "arg:bn7_weight"),
    ],
)
def test_what_is_no_tensor_of_resnet38_has_no_place(name):
    assert resnet38_name(name) is None


def test_names_and_values_of_the_files_that_mxnet_wrote():
    for layout in ("v2", "v1", "legacy"):
        state = read_state(MXNET / f"{layout}.params")
        wanted = np.load(MXNET / "expected.npz")
        assert {NAMES[name] for name in wanted.files if "linear" not in name} == set(state)
        for name in wanted.files:
            if "linear" not in name:
                assert np.array_equal(state[NAMES[name]].numpy(), wanted[name])


def test_imagenet_weights_fill_the_classifier_but_for_its_class_layer(resnet38, tmp_path):
    state = resnet38.state_dict()
    arrays = {name: state[ours].numpy() for name, ours in NAMES.items()}
    arrays["arg:linear1000_weight"] = np.ones((1000, 4096), np.float32)
    path = tmp_path / "ilsvrc-cls_rna-a1_cls1000_ep-0001.params"
    path.write_bytes(written(arrays))
    try:
        network = ResNet38(3)
        before = network.fc8.weight.detach().clone()
        load_checkpoint(network, path)
    finally:
        path.unlink()
    got = network.state_dict()
    assert torch.equal(got.pop("fc8.weight"), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in got.items())


def test_a_file_of_other_tensors_is_of_another_network():
    with torch.device("meta"):
        network = ResNet38(3)
    with pytest.raises(OptionError, match=r"another network: conv1a\.weight should be"):
        load_checkpoint(network, MXNET / "v2.params")
    with pytest.raises(OptionError, match="no state dict"):
        load_checkpoint(network, MXNET / "dtypes.params")


@pytest.mark.parametrize("layout", WHOLE)
def test_a_file_cut_anywhere_is_refused(layout, tmp_path):
    content = WHOLE[layout]
    for end in [*range(0, 400), *range(400, len(content), 7)]:
        if end < len(content):
            refused(tmp_path, content[:end])


@given(st.data())
def test_a_damaged_file_is_arrays_or_one_line(tmp_path_factory, data):
    content = bytearray(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("m") / "w.params"
    path.write_bytes(content)
    try:
        resnet38_arrays(read_params(path))
    except OptionError as error:
        assert "\n" not in str(error)


ONE = np.ones(2, np.float32)
START = struct.pack("<3Q", 0x112, 0, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no MXNet file"),
        (b"PK\3\4 and so on", "no MXNet file"),
        (struct.pack("<3Q", 0x112, 0, 0), "must have 1 to 100000 arrays, it states 0"),
        (struct.pack("<3Q", 0x112, 0, 2**63), "it states 9223372036854775808"),
        (START + struct.pack("<I", 0xF993FACA), "MXNet 2's layout"),
        (START + struct.pack("<Ii", 0xF993FAC9, 1), "sparse"),
        (START + V2 + struct.pack("<I", 0), "has 0 dimensions"),
        (START + struct.pack("<I", 2**31), "has 2147483648 dimensions"),
        (START + V2 + struct.pack("<I2q", 2, 3, -1), "has no size"),
        (START + V2 + struct.pack("<I4q3i", 4, *[2**62] * 4, 1, 0, 0), "ends within array 1 of 1, of shape"),
        (START + V2 + struct.pack("<Iq3i", 1, 2, 1, 0, 7) + bytes(8), "of type 7, expected 0 to 6"),
        (START + V2 + struct.pack("<Iq3i", 1, 2, 1, 0, -1) + bytes(8), "of type -1"),
        (written({"a": ONE}) + b"\0", "goes on for 1 bytes after its end"),
        (written({"a": ONE})[:-17] + struct.pack("<Q", 0), "1 to 100000 names, it states 0"),
        (written({"a": ONE})[:-17] + struct.pack("<2Qc", 2, 1, b"a"), "ends within name 2"),
        (written({"a": ONE})[:-9] + struct.pack("<Q", 2**40), "more than 1024"),
        (written({"a": ONE})[:-1] + b"\xff", "not UTF-8"),
        (written({"a": ONE, "b": ONE})[:-1] + b"a", "two arrays of the name 'a'"),
        (written({"a": ONE, "b": ONE})[:-26] + written({"a": ONE})[-17:], "2 arrays but 1 names"),
    ],
)
def test_hostile_files(tmp_path, content, message):
    assert message in refused(tmp_path, content)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OptionError, match="cannot be read"):
        read_params(tmp_path / "gone.params")
