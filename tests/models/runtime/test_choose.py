"""What computes the networks must not show in the map: runtimes agree, and what cannot be done is said in one line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers.color_model import color_model
from wsiseg.errors import DeviceError, NonFiniteError, OptionError
from wsiseg.models.bundle import load_model
from wsiseg.models.networks.architectures import build_network
from wsiseg.models.runtime import choose as runtimes
from wsiseg.models.runtime.batches import SmallerBatches, graph_size
from wsiseg.models.runtime.choose import Runtime, choose_runtime, has_bfloat16
from wsiseg.models.runtime.patch_network import PatchNetwork
from wsiseg.models.tissue_model import TissueModel

SAMPLES = Path(__file__).parents[3] / "sample_data" / "patches" / "images"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def patches():
    """Real patches (8, 3, 96, 96), channels last in memory."""
    files = sorted(SAMPLES.iterdir())[:8]
    return torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files])).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def expected(patches):
    model = load_model("tissue-brca-lite", runtime="torch")
    assert model.runtime == Runtime("torch", "float32", exact=True)
    return model.classify(patches), model.segment(patches)


@pytest.fixture(scope="module")
def by_openvino():
    """The shipped model, compiled once."""
    pytest.importorskip("openvino")
    return load_model("tissue-brca-lite", runtime="openvino")


def with_segmenter(segmenter):
    model = color_model()
    return TissueModel(model.spec, model.hash, model.classifier, segmenter)


def flipped(logits, wanted):
    """Share of pixels whose class is another."""
    return float((logits.max(1).indices != wanted.max(1).indices).float().mean())


def test_openvino_computes_what_torch_does(by_openvino, patches, expected):
    assert (by_openvino.runtime.name, by_openvino.runtime.precision) == ("openvino", "float32")
    logits = by_openvino.segment(patches)
    torch.testing.assert_close(by_openvino.classify(patches), expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits, expected[1], rtol=0, atol=1e-4)
    assert flipped(logits, expected[1]) < 1e-4
    assert not by_openvino.notes


def test_auto_is_openvino_where_it_is_installed(patches):
    pytest.importorskip("openvino")
    assert load_model("tissue-brca-lite").runtime == Runtime("openvino", "float32", exact=False, optional=True)
    model = color_model().prepare("auto", exact=False)
    torch.testing.assert_close(model.segment(patches), color_model().segment(patches), rtol=0, atol=1e-4)
    assert set(model.computed_by.values()) == {"openvino"}


def test_openvino_takes_batches_of_any_size_and_layout(by_openvino, patches):
    model = by_openvino
    logits = model.segment(patches)
    kept = logits.clone()
    assert torch.equal(model.segment(patches[5:]), logits[5:])  # a patch does not depend on its neighbours in a batch
    assert torch.equal(logits, kept)  # and later batches do not write over earlier ones
    assert torch.equal(model.segment(patches.contiguous()), logits)
    torn = patches[:, :, :64, :80]
    reference = load_model("tissue-brca-lite", runtime="torch").segment(torn)
    torch.testing.assert_close(model.segment(torn), reference, rtol=0, atol=1e-4)


def test_large_tiles_are_computed_by_the_same_runtime(patches):
    pytest.importorskip("openvino")
    shipped = load_model("tissue-brca-lite", runtime="torch")
    network = build_network("segmenter", "lite_segmenter", 3, {"shared_gate": True})
    torch.nn.init.normal_(network.shared_gate.weight, std=0.1)
    network.load_state_dict(shipped.segmenter.state_dict(), strict=False)
    models = [
        TissueModel(shipped.spec, "0" * 64, shipped.classifier, network).prepare(runtime)
        for runtime in ("torch", "openvino")
    ]
    tiles = torch.cat([patches[:2], patches[2:4]], dim=3)
    expected, given = ((model.activations(tiles), *model.segment_scored(tiles)) for model in models)
    assert [value.shape[1:] for value in given] == [(256, 12, 24), (3, 96, 192), (3, 6, 12)]
    for value, wanted in zip(given, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_bfloat16_is_close(runtime, patches, expected):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    model = load_model("tissue-brca-lite", runtime=runtime, precision="bfloat16")
    probabilities, logits = model.classify(patches), model.segment(patches)
    assert probabilities.dtype == logits.dtype == torch.float32
    assert not torch.equal(logits, expected[1]) or not has_bfloat16(CPU)
    torch.testing.assert_close(probabilities, expected[0], rtol=0, atol=0.05)
    assert flipped(logits, expected[1]) < 0.03
    assert {p.dtype for p in model.segmenter.parameters()} == {torch.float32}  # the model itself is not changed


def test_auto_without_openvino_folds_and_is_close(patches, expected, monkeypatch):
    monkeypatch.setattr(runtimes, "has_openvino", lambda: False)
    model = load_model("tissue-brca-lite")
    assert model.runtime == Runtime("torch", "float32", exact=False, optional=True)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) for network in (model.classifier,)]
    logits = model.segment(patches)
    torch.testing.assert_close(model.classify(patches), expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits, expected[1], rtol=0, atol=1e-4)
    assert flipped(logits, expected[1]) < 1e-4
    folded = PatchNetwork(model.classifier, (0.5,) * 3, (0.5,) * 3, task="classify").folded()
    assert norms == [49]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


class Shared(nn.Module):
    """A convolution whose values are used behind its normalisation and without it; another that is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.twice_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        for norm in (self.first_norm, self.twice_norm):
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, images):
        x = self.first(images)
        x = x + self.first_norm(x)
        return self.twice_norm(self.twice(x)) + self.twice(images)


def test_what_cannot_be_folded_is_left_alone():
    torch.manual_seed(0)
    network = PatchNetwork(Shared(), (0.5,) * 3, (0.5,) * 3, task="segment")
    assert network.folded() is network


def test_auto_means_torch_where_the_gate_is_the_published_one():
    assert choose_runtime("auto", "float32", CPU, exact=True) == Runtime(optional=True)
    model = color_model()
    model.spec = model.spec.model_copy(update={"gate_rule": "multiply_logits"})
    assert model.prepare().runtime.exact
    assert model.prepare("auto", exact=False).runtime.exact is False


def test_precision_auto_follows_the_processor(monkeypatch):
    for flags, precision in (({"avx2", "avx512_bf16"}, "bfloat16"), ({"avx2"}, "float32")):
        monkeypatch.setattr(runtimes, "_cpu_flags", lambda flags=flags: frozenset(flags))
        assert choose_runtime("torch", "auto", CPU, exact=False).precision == precision


def test_unknown_names_are_refused():
    with pytest.raises(OptionError, match="runtime among auto, torch, compiled, openvino, got 'onnx'"):
        load_model("tissue-brca-lite", runtime="onnx")
    with pytest.raises(OptionError, match="precision among float32, bfloat16, auto, got 'int8'"):
        load_model("tissue-brca-lite", precision="int8")


def test_openvino_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"^OpenVINO is not installed: pip install 'wsiseg\[openvino\]'.*$"):
        load_model("tissue-brca-lite", runtime="openvino")
    assert load_model("tissue-brca-lite").runtime.name == "torch"
    with pytest.raises(DeviceError, match="on the CPU"):
        choose_runtime("openvino", "float32", torch.device("cuda"), exact=False)


class Untraceable(nn.Module):
    """Decides by pixels' values, which no graph can hold."""

    def forward(self, images):
        return images * 4 if images.sum().item() > 1e9 else images * 3 + float(images.flatten()[0])


def test_a_network_that_openvino_cannot_compute_falls_back_or_is_refused(patches):
    pytest.importorskip("openvino")
    for runtime in ("auto", "openvino"):
        model = with_segmenter(Untraceable())
        model.prepare(runtime)
        if runtime == "openvino":
            with pytest.raises(DeviceError, match=r"OpenVINO cannot compute the segmenter.*--runtime torch"):
                model.segment(patches)
        else:
            images = patches / 255
            wanted = images * 3 + images.flatten()[0]
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as beside OpenVINO
            torch.testing.assert_close(model.segment(patches), wanted)
            assert torch.get_num_threads() == threads
            assert len(model.notes) == 1
            assert "torch did" in model.notes[0]


class Broken(nn.Module):
    def forward(self, images):
        values = images * 4
        values[-1, 0, 3, 5] = float("nan")
        return values


@pytest.mark.parametrize("runtime", ["auto", "torch"])
def test_values_that_are_no_numbers_end_the_run(runtime, patches):
    model = with_segmenter(Broken())
    model.prepare(runtime)
    with pytest.raises(NonFiniteError, match="the segmenter of colours gave values that are no finite numbers"):
        model.segment(patches)
    model.prepare("torch", "bfloat16")
    with pytest.raises(NonFiniteError, match="use --precision float32"):
        model.segment(patches)


class SmallMemory:
    """A network on a device that holds so many patches."""

    def __init__(self, most):
        self.most = most
        self.asked = []

    def __call__(self, patches):
        self.asked.append(len(patches))
        if len(patches) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (patches.float().mean(dim=(1, 2, 3)),)


def test_memory_that_is_too_small_halves_the_batch_for_good():
    pixels = torch.randint(0, 256, (10, 4, 4, 3), dtype=torch.uint8)
    batches, network = SmallerBatches(), SmallMemory(3)
    wanted = pixels.float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(batches(network, pixels)[0], wanted)
    assert batches.most == 2
    assert network.asked == [10, 5, 2, 2, 2, 2, 2]
    torch.testing.assert_close(batches(network, pixels)[0], wanted)
    assert network.asked[7:] == [2] * 5  # the second batch does not try again
    with pytest.raises(DeviceError, match="one patch of 4 x 4 pixels"):
        SmallerBatches()(SmallMemory(0), pixels)


class Hungry(nn.Module):
    def forward(self, images):
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images * 4


def test_smaller_batches_are_told_once(patches):
    model = with_segmenter(Hungry())
    model.prepare("torch")
    for _ in range(2):
        torch.testing.assert_close(model.segment(patches), patches / 255 * 4)
    assert len(model.notes) == 1
    assert "segmenter, which got 4 at once" in model.notes[0]


def test_where_nothing_compiles_the_other_runtime_is_named(patches, monkeypatch):
    def no_compiler(module, **options):
        def run(pixels):
            raise RuntimeError("InductorError: no C++ compiler\nfound")

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    model = with_segmenter(Hungry()).prepare("compiled")
    with pytest.raises(
        DeviceError, match=r"^torch cannot compile for cpu here .*no C\+\+ compiler found.*runtime torch$"
    ):
        model.segment(patches)


@pytest.mark.slow
def test_compiled_networks_take_batches_of_any_size(patches):
    model = color_model().prepare("compiled")
    for part in (patches, patches[:3], patches[:1]):
        torch.testing.assert_close(model.segment(part), part / 255 * 4)


def test_cuda_graphs_are_made_for_few_sizes():
    assert {count: graph_size(count, 12) for count in (1, 2, 3, 4, 6, 7, 12, 13)} == {
        1: 1, 2: 3, 3: 3, 4: 6, 6: 6, 7: 12, 12: 12, 13: 13,
    }  # fmt: skip


WATCHED = """
import sys
seen = []
watched = ("socket.connect", "socket.getaddrinfo", "os.fork", "urllib.Request")
sys.addaudithook(lambda event, _: seen.append(event) if event in watched else None)
import torch
from wsiseg.models.runtime.openvino import OpenVinoNetwork

class Mean(torch.nn.Module):
    def forward(self, patches):
        return (patches.float().mean((1, 2)),)

    def settled(self, height, width):
        return self

(values,) = OpenVinoNetwork(Mean(), "float32", 1)(torch.full((2, 32, 32, 3), 7, dtype=torch.uint8))
assert values.tolist() == [[7.0] * 3] * 2, values
assert "openvino.tools.ovc" in sys.modules
assert "openvino_telemetry" not in sys.modules
assert not seen, seen
"""


def test_openvino_sends_nothing_and_leaves_the_home_as_it_is(tmp_path):
    pytest.importorskip("openvino")
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", WATCHED]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()
