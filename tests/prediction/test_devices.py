"""Several processes, one map: the bytes of one process, and no half-written map where one of them fails."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.bundles import coarse_bundle
from tests.helpers.maps import chunks
from wsiseg.errors import OptionError, WsisegError
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.tissue_map.reader import open_map


@pytest.fixture(scope="module")
def slide(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real tissue, copied side by side until the map has several pieces."""
    from wsiseg.slides import open_slide

    path = tmp_path_factory.mktemp("slide") / "wide.png"
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as opened:
        from wsiseg.geometry import Box

        pixels = opened.read_level(0, Box(600, 900, 400, 300)).pixels
    Image.fromarray(np.tile(pixels, (1, 11, 1))).save(path)
    return path


def test_two_processes_write_what_one_does(tmp_path: Path, slide: Path) -> None:
    options = {"mpp": 0.5, "tissue": "none", "overlap": 0.0, "max_memory": 2**30, "runtime": "torch"}
    model = coarse_bundle(tmp_path / "model", mpp=0.5)
    one = predict(slide, tmp_path / "1.zarr", model, PredictOptions(device="cpu", **options))
    seen: list[tuple[int, int]] = []
    two = predict(
        slide,
        tmp_path / "2.zarr",
        model,
        PredictOptions(device="cpu,cpu", **options),
        progress=lambda phase, done, total: seen.append((done, total)) if phase == "tiles" else None,
    )
    assert len(chunks(tmp_path / "1.zarr")) > 4
    assert chunks(tmp_path / "1.zarr") == chunks(tmp_path / "2.zarr")
    assert (one.areas, one.counts) == (two.areas, two.counts)
    assert seen[-1][0] == seen[-1][1]
    assert open_map(tmp_path / "2.zarr").metadata["parameters"]["device"] == "cpu,cpu"


def test_a_process_that_fails_ends_the_run_with_its_reason(tmp_path: Path, slide: Path) -> None:
    from tests.helpers.color_model import color_model

    with pytest.raises(OptionError, match="name or folder"):
        predict(slide, tmp_path / "m.zarr", color_model(), PredictOptions(mpp=0.5, device="cpu,cpu"))
    with pytest.raises(WsisegError, match="cuda:9"):
        predict(
            slide,
            tmp_path / "m.zarr",
            options=PredictOptions(mpp=0.5, tissue="none", device="cpu,cuda:9", runtime="torch"),
        )
    assert not (tmp_path / "m.zarr").exists()
    shutil.rmtree(tmp_path / ".m.zarr.unfinished", ignore_errors=True)
    assert list(tmp_path.iterdir()) == []
