"""The next batch is computed while one is gated and summed: the same map, and errors where they belong."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.maps import chunks
from wsiseg.errors import NonFiniteError
from wsiseg.geometry import Box
from wsiseg.models.bundle import load_model
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.prediction.stream import Stream
from wsiseg.slides import open_slide

pytest.importorskip("openvino")

OPTIONS = PredictOptions(mpp=0.5, tissue="none", runtime="openvino", batch_size=4)


@pytest.fixture(scope="module")
def model() -> TissueModel:
    return load_model("tissue-brca-lite", "cpu", "openvino")


@pytest.fixture(scope="module")
def slide(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "part.png"
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as opened:
        Image.fromarray(opened.read_level(0, Box(600, 900, 440, 300)).pixels).save(path)
    return path


@pytest.mark.parametrize("mode", ["patches", "shared"])
def test_the_map_is_that_of_one_batch_after_the_other(
    mode, tmp_path: Path, slide: Path, model: TissueModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, gate_mode=mode)
    threads = torch.get_num_threads()
    predict(slide, tmp_path / "ahead.zarr", model, options)
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(Stream, "side_by_side", False)
    predict(slide, tmp_path / "after.zarr", model, options)
    assert chunks(tmp_path / "ahead.zarr") == chunks(tmp_path / "after.zarr")


def test_an_error_of_a_batch_ends_the_run_and_leaves_torch_as_it_was(
    tmp_path: Path, slide: Path, model: TissueModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, calls, real = torch.get_num_threads(), 0, model.classify_with_features

    def fails(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise NonFiniteError("made up")
        return real(patches)

    monkeypatch.setattr(model, "classify_with_features", fails)
    with pytest.raises(NonFiniteError, match="made up"):
        predict(slide, tmp_path / "m.zarr", model, OPTIONS)
    assert torch.get_num_threads() == threads
    assert not (tmp_path / "m.zarr").exists()


def test_many_threads_may_ask_one_network(model: TissueModel) -> None:
    random = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 256, (size, 3, 96, 96), dtype=torch.uint8, generator=random) for size in (1, 5, 12) * 4]
    alone = [model.segment(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(model.segment, batches))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
