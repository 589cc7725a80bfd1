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
    *("skimage.measure", "wsiseg.polygons.simplify", "wsiseg.export.polygons", "wsiseg.training"),
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


def test_info_loads_no_torch(sample_data: Path) -> None:
    code = (
        "import sys\n"
        "from wsiseg.cli.main import main\n"
        f"try: main(['info', {str(sample_data / 'CMU-1-Small-Region.svs')!r}])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"print(sorted({NEVER | {'torch', 'zarr', 'openvino', 'shapely'}!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tissue" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
