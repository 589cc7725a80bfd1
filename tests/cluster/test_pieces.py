"""Pieces of one slide over the workers of a real Dask cluster: the bytes of one process, also where workers die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.bundles import coarse_bundle
from tests.helpers.maps import chunks
from wsiseg.errors import ClusterError, OutputError
from wsiseg.geometry import Box
from wsiseg.prediction.executors import Executor
from wsiseg.prediction.job import MapJob
from wsiseg.prediction.options import PredictOptions
from wsiseg.prediction.output import Output
from wsiseg.prediction.progress import ProgressFunction, as_progress
from wsiseg.prediction.result import Prediction
from wsiseg.prediction.run import loaded_model, predict_opened
from wsiseg.slides import open_slide
from wsiseg.system.clock import Clock

pytestmark = pytest.mark.slow  # two minutes, most of them the start of workers
distributed = pytest.importorskip("distributed")
from wsiseg.cluster.pieces import DEATHS, DaskPieces  # noqa: E402

OPTIONS = PredictOptions(
    mpp=0.5, tissue="none", overlap=0.0, gate_context=1.0, max_memory=2**30, runtime="torch", device="cpu"
)  # the gate looks beyond a patch, so that rows of its field are sent


@pytest.fixture(scope="module")
def slide(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real tissue, copied side by side until the map has four pieces."""
    path = tmp_path_factory.mktemp("slide") / "wide.png"
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as opened:
        pixels = opened.read_level(0, Box(600, 900, 400, 300)).pixels
    Image.fromarray(np.tile(pixels, (1, 4, 1))).save(path, compress_level=1)
    return path


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest that there are; workers are told."""
    monkeypatch.setattr("wsiseg.system.memory.PIECE_PX", 512)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coarse_bundle(tmp_path_factory.mktemp("model") / "coarse", mpp=0.5)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two processes of this machine, of one thread each, which are begun anew when they die."""
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as found:
        yield found


def made(
    slide: Path, out: Path, model: Path, executor: Executor | None = None, progress: ProgressFunction | None = None
) -> Prediction:
    loaded, resolved = loaded_model(model, OPTIONS)
    with open_slide(slide, mpp=OPTIONS.mpp) as reader:
        job = MapJob(reader, loaded, str(model), resolved, as_progress(progress), Clock(), executor=executor)
        return predict_opened(job, Output(out))


def test_workers_write_what_one_process_does_also_when_one_dies(
    tmp_path: Path, slide: Path, model: Path, cluster: Any
) -> None:
    alone = made(slide, tmp_path / "alone.zarr", model)
    with distributed.Client(cluster) as client:
        killed: list[int] = []

        def kill(phase: str, done: int, total: int) -> None:
            """As soon as a piece is booked."""
            if phase == "tiles" and 0 < done < total and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        shared = made(slide, tmp_path / "shared.zarr", model, DaskPieces(client), kill)
    assert killed
    assert len(chunks(tmp_path / "alone.zarr")) > 4
    assert chunks(tmp_path / "alone.zarr") == chunks(tmp_path / "shared.zarr")
    assert (alone.areas, alone.counts) == (shared.areas, shared.counts)
    assert {path.name for path in tmp_path.iterdir()} == {"alone.zarr", "shared.zarr"}


def test_what_a_piece_fails_of_is_told_and_the_run_goes_on_elsewhere(
    tmp_path: Path, slide: Path, model: Path, cluster: Any
) -> None:
    out = tmp_path / "m.zarr"

    def fill(phase: str, done: int, total: int) -> None:
        """After the first piece, the store is in the way of the others."""
        if phase == "tiles" and 0 < done < total and store.is_dir():
            store.rename(tmp_path / "away")
            store.write_bytes(b"")

    store = tmp_path / ".m.zarr.unfinished" / "m.zarr"
    with distributed.Client(cluster) as client, pytest.raises((OutputError, NotADirectoryError)):
        made(slide, out, model, DaskPieces(client), fill)
    store.unlink()
    (tmp_path / "away").rename(store)
    assert made(slide, out, model).resumed > 0
    made(slide, tmp_path / "alone.zarr", model)
    assert chunks(out) == chunks(tmp_path / "alone.zarr")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_piece_that_kills_its_workers_fails_by_name_and_so_does_a_lost_scheduler(
    tmp_path: Path, slide: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, dask = tmp_path / "scheduler.json", [sys.executable, "-m", "dask"]
    processes = [
        subprocess.Popen([*dask, *arguments, "--scheduler-file", str(address)], stderr=subprocess.DEVNULL)
        for arguments in (
            ("scheduler", "--port", "0", "--dashboard-address", ":0"),
            ("worker", "--nworkers", "2", "--nthreads", "1"),
        )
    ]
    try:
        while not address.exists():
            time.sleep(0.1)
        client = distributed.Client(scheduler_file=str(address))
        client.wait_for_workers(2, timeout=60)
        with monkeypatch.context() as patch:
            real = client.submit
            patch.setattr(client, "submit", lambda function, sent, **how: real(_deadly, sent, **how))
            with pytest.raises(ClusterError, match=f"died {DEATHS} times at piece"):
                made(slide, tmp_path / "m.zarr", model, DaskPieces(client))
        client.wait_for_workers(2, timeout=60)

        def kill(phase: str, done: int, total: int) -> None:
            if phase == "tiles" and 0 < done < total:
                processes[0].kill()

        with pytest.raises(ClusterError, match="scheduler is gone"):
            made(slide, tmp_path / "m.zarr", model, DaskPieces(client), kill)
        client.close(timeout=1)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
    assert made(slide, tmp_path / "m.zarr", model).resumed > 0
    made(slide, tmp_path / "alone.zarr", model)
    assert chunks(tmp_path / "m.zarr") == chunks(tmp_path / "alone.zarr")


_deadly = partial(lambda _: os.kill(os.getpid(), signal.SIGKILL))
