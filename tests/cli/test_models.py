"""`wsiseg models import`: published checkpoints in every form predict what the published program predicts."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.conftest import Parity
from wsiseg.cli.main import main
from wsiseg.models.networks.deeplab import DeepLabV3Plus
from wsiseg.models.networks.resnet38 import ResNet38
from wsiseg.models.spec import read_spec
from wsiseg.tissue_map.reader import TissueMap, open_map

Bundles = dict[str, Path]


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order: on some processors another one turns a pixel whose two best logits are all but equal."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def published(parity: Parity, resnet38: ResNet38, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundles]:
    """Bundles of the parity weights, each imported through the command line from another form of checkpoint."""
    folder = tmp_path_factory.mktemp("published")
    stage1 = resnet38.state_dict()
    stage2 = parity.filled(DeepLabV3Plus).state_dict()
    optimiser = {"state": {}, "param_groups": [{"lr": 0.01, "momentum": 0.9}]}
    torch.save(stage1, folder / "stage1.pth")
    torch.save({"state_dict": stage2, "optimizer": optimiser}, folder / "stage2.pth")
    run("models", "import", "--stage1", folder / "stage1.pth", "--stage2", folder / "stage2.pth",
        "--classes", "luad", "--mpp", "1", "--out", folder / "plain")  # fmt: skip
    torch.save({"state_dict": {f"module.{n}": t for n, t in stage1.items()}}, folder / "stage1.pth")
    save_file({name: t.contiguous() for name, t in stage2.items()}, folder / "stage2.safetensors")
    run("models", "import", "--stage1", folder / "stage1.pth", "--stage2", folder / "stage2.safetensors",
        "--classes", "luad-histoseg", "--mpp", "1", "--out", folder / "faithful", "--faithful")  # fmt: skip
    yield {name: folder / name for name in ("plain", "faithful")}
    shutil.rmtree(folder)


def predicted(tmp_path: Path, parity: Parity, patches: tuple[int, ...], *options: object) -> list[TissueMap]:
    """Maps of parity patches, through the command line, by a model that is loaded once."""
    files = [tmp_path / f"{index}.png" for index in patches]
    for index, file in zip(patches, files, strict=True):
        Image.fromarray(parity.patches[index].permute(1, 2, 0).numpy()).save(file)
    run("predict", *files, "--mpp", 1, "--tissue", "none", "--gate-threshold", 0.5, "--out", tmp_path / "maps",
        "--no-geojson", "--quiet", *options)  # fmt: skip
    return [open_map(tmp_path / "maps" / f"{index}.zarr") for index in patches]


def test_the_published_class_map_behind_the_gate(published: Bundles, parity: Parity, tmp_path: Path) -> None:
    options = ("--overlap", 0, "--runtime", "torch", "--no-white")
    maps = predicted(tmp_path, parity, (0, 1, 2), "--model", published["plain"], *options)
    for index, found in enumerate(maps):
        assert (np.asarray(found.class_map()) != parity.stage2["labels_gated"][index] + 1).sum() == 0
        assert found.metadata["parameters"]["gate_rule"] == "exclude"


@pytest.mark.parametrize(
    ("bundle", "patches", "options"),
    [
        ("faithful", (0, 1, 2), ("--overlap", 0)),
        ("plain", (0, 1), ("--faithful",)),
        ("plain", (2,), ("--gate-rule", "multiply_logits", "--overlap", 0)),
    ],
)
def test_the_published_class_map_as_the_program_gates(
    bundle: str,
    patches: tuple[int, ...],
    options: tuple[object, ...],
    published: Bundles,
    parity: Parity,
    tmp_path: Path,
) -> None:
    maps = predicted(tmp_path, parity, patches, "--model", published[bundle], *options)
    for index, found in zip(patches, maps, strict=True):
        assert (np.asarray(found.class_map()) != parity.stage2["labels_gated_published"][index] + 1).sum() == 0
        parameters = found.metadata["parameters"]
        assert (parameters["gate_rule"], parameters["overlap"]) == ("multiply_logits", 0)
        assert parameters["faithful"] is ("--faithful" in options)


def test_a_bundle_says_where_its_weights_came_from(published: Bundles) -> None:
    plain, faithful = (read_spec(published[name]) for name in ("plain", "faithful"))
    assert plain.classes.names == ("Tumour epithelium", "Necrosis", "Lymphocyte", "Tumour-associated stroma")
    assert (plain.mpp, plain.patch_size_px, plain.overlap, plain.gate) == (1, 224, 0.5, (0.1,) * 4)
    assert (plain.gate_rule, faithful.gate_rule, faithful.overlap) == ("exclude", "multiply_logits", 0)
    assert plain.networks.classifier.mean == plain.networks.segmenter.mean == (0, 0, 0)
    assert plain.networks.classifier.std == plain.networks.segmenter.std == (1, 1, 1)
    assert plain.training_data == "LUAD-HistoSeg"
    assert "Han et al." in plain.citation
    imported: Any = plain.training["imported"]
    assert imported["classifier"]["file"] == "stage1.pth"
    assert len(imported["segmenter"]["sha256"]) == 64
    assert json.loads((published["plain"] / "model.json").read_text())["gate_rule"] == "exclude"


class Hostile:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, ("this must never run",)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `wsiseg models import`, which must be refused and leave no bundle; returns its one line."""

    def call(stage1: Path, *options: object, classes: object = "luad", mpp: object = 1) -> str:
        command = ["models", "import", "--stage1", stage1, "--stage2", stage1, "--classes", classes, "--mpp", mpp]
        with pytest.raises(SystemExit) as stop:
            main([str(part) for part in [*command, "--out", tmp_path / "bundle", *options]])
        shown = capsys.readouterr()
        assert stop.value.code == 2
        assert shown.out == ""
        assert shown.err.count("\n") == 1, shown.err
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]
        return shown.err

    return call


def expanded(shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of a shape that takes four bytes, in memory and in a file."""
    return torch.zeros(()).expand(shape)


def test_what_is_no_published_checkpoint(tmp_path: Path, parity: Parity, refused: Callable[..., str]) -> None:
    file = tmp_path / "w.pth"
    state = {name: expanded(tuple(shape)) for name, shape in parity.states[0].items()}
    assert "no file of weights" in refused(tmp_path / "gone.pth")
    file.write_text("no weights")
    assert "no torch checkpoint" in refused(file)
    file.write_bytes(b"")
    assert "no torch checkpoint" in refused(file)
    torch.save({"state_dict": state, "hook": Hostile()}, file)
    assert "no torch checkpoint of plain tensors" in refused(file)
    torch.save(ResNet38, file)
    assert "no torch checkpoint of plain tensors" in refused(file)
    torch.save(state, file)
    file.write_bytes(file.read_bytes()[:-100])
    assert "no torch checkpoint" in refused(file)
    torch.save({"state_dict": state, "epoch": 3}["epoch"], file)
    assert "no state dict" in refused(file)
    torch.save({**state, "fc8.weight": "text"}, file)
    assert "'fc8.weight' is no tensor but str" in refused(file)
    torch.save({name: tensor for name, tensor in state.items() if name != "b3.conv_branch1.weight"}, file)
    assert "another network: b3.conv_branch1.weight should be" in refused(file)
    torch.save({**state, "extra": torch.zeros(1)}, file)
    assert "unknown tensor 'extra'" in refused(file)
    torch.save({**state, "conv1a.weight": torch.full((64, 3, 3, 3), torch.nan)}, file)
    assert "'conv1a.weight' has values that are no numbers" in refused(file)
    torch.save({**state, "fc8.weight": expanded((3, 4096, 1, 1))}, file)
    assert "trained on 3 classes, the class table names 4" in refused(file)
    torch.save({name: expanded(tuple(shape)) for name, shape in parity.states[1].items()}, file)
    assert "another network: conv1a.weight" in refused(file)
    (tmp_path / "w.safetensors").write_bytes(b"\1\0\0\0\0\0\0\0{")
    assert "not a whole safetensors file" in refused(tmp_path / "w.safetensors")


def test_other_mistakes(tmp_path: Path, refused: Callable[..., str]) -> None:
    file = tmp_path / "w.pth"
    torch.save({}, file)
    assert "neither a file nor one of" in refused(file, classes="lung")
    assert "mpp" in refused(file, mpp=900)
    assert "overlap" in refused(file, "--overlap", 1)
    assert "patch_size_px" in refused(file, "--patch-size", 0)
    (tmp_path / "bundle").write_text("mine")
    assert "no model bundle" in refused(file, "--overwrite")


def test_a_list_is_shown_either_way(capsys: pytest.CaptureFixture[str]) -> None:
    run("models")
    first = capsys.readouterr().out
    run("models", "list")
    assert first == capsys.readouterr().out
    assert first.startswith("tissue-brca-lite: Tumour, Stroma, Lymphocytes")


def test_the_faithful_way_has_one_gate(tmp_path: Path, sample_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--no-gate", "--gate-rule=exclude"):
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(sample_data / "CMU-1-Small-Region.svs"), "--out", str(tmp_path / "m.zarr"),
                  "--faithful", option])  # fmt: skip
        assert stop.value.code == 2
        assert "--faithful" in capsys.readouterr().err
