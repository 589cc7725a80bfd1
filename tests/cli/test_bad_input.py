"""Every mistake ends with one line that says what is wrong and what to do, exit code 2, and nothing half-written."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.cli.main import main

Run = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must be refused and leave `tmp_path` as it is; returns the one line."""

    def run(*arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert stop.value.code == 2, shown
        assert shown.out == ""
        assert shown.err.count("\n") == 1, shown.err
        assert shown.err.startswith("wsiseg: ")
        assert sorted(tmp_path.rglob("*")) == before
        return shown.err

    return run


@pytest.fixture
def slide(sample_data: Path) -> Path:
    return sample_data / "CMU-1-Small-Region.svs"


def test_missing_slide(refused: Run, tmp_path: Path) -> None:
    assert "gone.svs does not exist" in refused("predict", tmp_path / "gone.svs", "--out", tmp_path / "m.zarr")
    refused("info", tmp_path / "gone.svs")


def test_text_called_svs(refused: Run, tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_text("this is no slide\n" * 100)
    assert "a.svs" in refused("predict", tmp_path / "a.svs", "--out", tmp_path / "m.zarr")


@pytest.mark.parametrize("kept", [0, 3, 1000, 300_000])
def test_truncated_svs(refused: Run, tmp_path: Path, slide: Path, kept: int) -> None:
    (tmp_path / "a.svs").write_bytes(slide.read_bytes()[:kept])
    assert "a.svs" in refused("predict", tmp_path / "a.svs", "--out", tmp_path / "m.zarr")


def test_slide_without_mpp_names_the_option(refused: Run, tmp_path: Path) -> None:
    Image.fromarray(np.full((300, 300, 3), 200, np.uint8)).save(tmp_path / "a.png")
    assert "--mpp" in refused("predict", tmp_path / "a.png", "--out", tmp_path / "m.zarr")


@pytest.mark.parametrize("mpp", ["0.01", "50", "-1", "nan"])
def test_implausible_mpp(refused: Run, tmp_path: Path, slide: Path, mpp: str) -> None:
    refused("predict", slide, "--out", tmp_path / "m.zarr", "--mpp", mpp)


def test_output_exists(refused: Run, tmp_path: Path, slide: Path) -> None:
    (tmp_path / "m.zarr").mkdir()
    assert "--overwrite" in refused("predict", slide, "--out", tmp_path / "m.zarr")
    assert "not a tissue map" in refused("predict", slide, "--out", tmp_path / "m.zarr", "--overwrite")
    (tmp_path / "n.geojson").write_text("mine")
    assert "--overwrite" in refused("predict", slide, "--out", tmp_path / "n.zarr")


def test_output_folder_missing_or_not_writable(refused: Run, tmp_path: Path, slide: Path) -> None:
    assert "does not exist" in refused("predict", slide, "--out", tmp_path / "no" / "m.zarr")
    (tmp_path / "file").write_text("")
    refused("predict", slide, "--out", tmp_path / "file" / "m.zarr")
    # A folder that takes no files, for root as well.
    assert "cannot write" in refused("predict", slide, "--out", "/proc/m.zarr", "--no-geojson")


def test_output_of_another_ending(refused: Run, tmp_path: Path, slide: Path) -> None:
    assert ".zarr" in refused("predict", slide, "--out", tmp_path / "m.tif")
    assert ".geojson" in refused("predict", slide, "--out", tmp_path / "m.zarr", "--geojson", tmp_path / "m.json")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the shipped model."""
    from wsiseg.models.folder import find_bundle

    return Path(shutil.copytree(find_bundle("tissue-brca-lite"), tmp_path / "bundle"))


def test_bundle_unknown(refused: Run, tmp_path: Path, slide: Path) -> None:
    line = refused("predict", slide, "--out", tmp_path / "m.zarr", "--model", "tissue-brca-light")
    assert "tissue-brca-lite" in line


def test_bundle_without_a_weight_file(refused: Run, tmp_path: Path, slide: Path, bundle: Path) -> None:
    (bundle / "segmenter.safetensors").unlink()
    assert "segmenter" in refused("predict", slide, "--out", tmp_path / "m.zarr", "--model", bundle)


def test_bundle_with_an_altered_weight_file(refused: Run, tmp_path: Path, slide: Path, bundle: Path) -> None:
    weights = bundle / "classifier.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "altered" in refused("predict", slide, "--out", tmp_path / "m.zarr", "--model", bundle)


def test_bundle_of_a_newer_format(refused: Run, tmp_path: Path, slide: Path, bundle: Path) -> None:
    spec = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({**spec, "format_version": 99}))
    assert "newer" in refused("predict", slide, "--out", tmp_path / "m.zarr", "--model", bundle)


def test_cuda_where_there_is_none(refused: Run, tmp_path: Path, slide: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "cuda" in refused("predict", slide, "--out", tmp_path / "m.zarr", "--device", "cuda")
    refused("predict", slide, "--out", tmp_path / "m.zarr", "--device", "abacus")


@pytest.mark.parametrize(
    "options",
    [
        ["--overlap", "1"],
        ["--gate-threshold", "2"],
        ["--batch-size", "0"],
        ["--tissue", "gone.geojson"],
        ["--reader", "magic"],
        ["--tolerance", "-1"],
        ["--wrong"],
    ],
    ids=" ".join,
)
def test_options_out_of_range(refused: Run, tmp_path: Path, slide: Path, options: list[str]) -> None:
    refused("predict", slide, "--out", tmp_path / "m.zarr", *options)


def test_export_of_what_is_no_map(refused: Run, tmp_path: Path) -> None:
    assert "does not exist" in refused("export", tmp_path / "m.zarr", "--csv", tmp_path / "a.csv")
    (tmp_path / "m.zarr").mkdir()
    refused("export", tmp_path / "m.zarr", "--csv", tmp_path / "a.csv")
    assert "nothing to write" in refused("export", tmp_path / "m.zarr")


def test_unknown_command(refused: Run) -> None:
    refused("perdict")


def test_the_installed_program_does_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wsiseg", "predict", "gone.svs", "--out", "m.zarr"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
