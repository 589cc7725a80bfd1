"""On what a map is computed: a run that is resumed keeps its number of threads, and what changes is recorded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.color_model import color_model
from tests.helpers.maps import chunks, painted
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.tissue_map.reader import open_map


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_resumed_run_keeps_its_threads_and_records_another_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = tmp_path / "wide.png"
    painted(wide, (200, 6000))  # several pieces
    options = PredictOptions(mpp=1, tissue="none", overlap=0.0, max_memory=2**30, runtime="torch", device="cpu")
    used: set[int] = set()
    stop_after = [0]

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "tiles" and done:
            used.add(torch.get_num_threads())
            if stop_after[0] and done > total * stop_after[0] / 4:
                raise KeyboardInterrupt

    def made(name: str, count: int, stop: int = 0) -> Any:
        torch.set_num_threads(count)
        stop_after[0] = stop
        return predict(wide, tmp_path / name, color_model(), options, progress=progress)

    made("alone.zarr", 1)
    assert open_map(tmp_path / "alone.zarr").metadata["computed_on"][0]["threads"] == 1
    with pytest.raises(KeyboardInterrupt):
        made("resumed.zarr", 1, stop=3)
    used.clear()
    assert made("resumed.zarr", 2).resumed > 0
    assert used == {1}
    assert torch.get_num_threads() == 2
    assert chunks(tmp_path / "resumed.zarr") == chunks(tmp_path / "alone.zarr") != {}
    metadata = open_map(tmp_path / "resumed.zarr").metadata
    assert metadata["computed_on"] == open_map(tmp_path / "alone.zarr").metadata["computed_on"]

    with pytest.raises(KeyboardInterrupt):
        made("moved.zarr", 1, stop=3)
    with monkeypatch.context() as patch:
        patch.setattr("wsiseg.prediction.machine.processor_kind", lambda _: "another kind")
        found = made("moved.zarr", 2)
    assert [one["threads"] for one in open_map(tmp_path / "moved.zarr").metadata["computed_on"]] == [1, 2]
    assert any("another kind (2 threads): last bits" in note for note in found.notes)
