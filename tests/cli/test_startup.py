"""What is not loaded before the first batch of patches, by name: each of these once cost seconds of every start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.startup import predict_until_first_batch

NEVER = {
    *("torch._dynamo", "torch._inductor", "sympy", "triton", "torchvision", "timm", "segmentation_models_pytorch"),
    *("huggingface_hub", "lightning", "kornia", "torchmetrics", "dask", "xarray", "pandas", "matplotlib"),
    *("skimage.measure", "wsiseg.polygons.simplify", "wsiseg.export.polygons", "wsiseg.training", "scipy"),
}


def loaded(modules: object, names: set[str]) -> set[str]:
    assert isinstance(modules, list)
    return names & set(modules)


def test_torch_alone_is_loaded_before_the_first_batch(sample_data: Path) -> None:
    found = predict_until_first_batch(str(sample_data / "CMU-1-Small-Region.svs"), "torch")
    assert loaded(found["modules"], {"torch", "wsiseg.prediction.stream", "openslide"}) == {
        *("torch", "wsiseg.prediction.stream", "openslide")
    }
    assert not loaded(found["modules"], NEVER | {"openvino"})


def test_openvino_takes_what_it_compiled_before(
    sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    slide = str(sample_data / "CMU-1-Small-Region.svs")
    predict_until_first_batch(slide, "openvino")
    kept = {path: path.stat().st_size for path in (tmp_path / "wsiseg" / "openvino").iterdir()}
    assert len(kept) == 2
    found = predict_until_first_batch(slide, "openvino")
    assert {path: path.stat().st_size for path in (tmp_path / "wsiseg" / "openvino").iterdir()} == kept
    assert loaded(found["modules"], {"openvino"})
    assert not loaded(found["modules"], NEVER)


def run_and_list(arguments: list[str], names: set[str]) -> tuple[str, int, list[str]]:
    """Output and exit code of a command, and those of some modules that it loaded."""
    code = (
        "import sys\n"
        "from wsiseg.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as stop: print(stop.code or 0)\n"
        f"print(*sorted({names!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *_, status, found = done.stdout.splitlines()
    return done.stdout + done.stderr, int(status), found.split()


WITHOUT_A_NETWORK = NEVER | {
    "torch",
    "openvino",
    "zarr",
    "shapely",
    "pydantic",
    "scipy",
    "pydicom",
    "fsspec",
    "tiffslide",
}


@pytest.mark.parametrize("slide", ["CMU-1-Small-Region.svs", "OS-1-detail.ome.tif"])
def test_info_loads_a_reader_and_little_else(sample_data: Path, slide: str) -> None:
    shown, status, found = run_and_list(["info", str(sample_data / slide)], WITHOUT_A_NETWORK | {"tifffile"})
    assert "tissue" in shown
    assert "patches" in shown
    assert (status, found) == (0, ["tifffile"])


def test_models_are_listed_without_numbers(sample_data: Path) -> None:
    shown, status, found = run_and_list(["models"], WITHOUT_A_NETWORK | {"tifffile", "openslide", "click"})
    assert "Lymphocytes" in shown
    assert (status, found) == (0, ["click"])


def test_a_list_with_one_name_twice_is_refused_before_torch_is_loaded(sample_data: Path, tmp_path: Path) -> None:
    slides = [tmp_path / part / "a.svs" for part in ("one", "two")]
    for path in slides:
        path.parent.mkdir()
        path.symlink_to(sample_data / "CMU-1-Small-Region.svs")
    arguments = ["predict", *map(str, slides), "--out", str(tmp_path / "maps")]
    shown, status, found = run_and_list(arguments, {"torch", "openvino", "zarr", "click"})
    assert "a.zarr" in shown
    assert (status, found) == (2, ["click"])
    assert not (tmp_path / "maps").exists()
