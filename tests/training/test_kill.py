"""A training that is killed (SIGKILL), wherever, and resumed ends as one that was left alone: to the bit."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SETTINGS = """
sheet_patches = 2
[classifier]
initial_weights = "none"
arguments = {encoder = "resnet10t"}
[segmenter]
initial_weights = "none"
arguments = {encoder = "resnet10t"}
[stage1]
epochs = 3
batch_size = 4
[stage2]
epochs = 3
batch_size = 4
"""


def command(root: Path, out: Path, *options: str) -> list[str]:
    settings = root.parent / "settings.toml"
    settings.write_text(SETTINGS)
    return [
        *(sys.executable, "-m", "wsiseg", "train", str(root), "--config", str(settings), "--out", str(out)),
        *("--device", "cpu", *options),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


def complete(arguments: list[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def killed_when(arguments: list[str], reached: Callable[[], bool]) -> None:
    """Start the program, and kill it as soon as something is there."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True
    )
    end = time.monotonic() + 1200
    while not reached():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    source, root = sample_data / "patches", tmp_path_factory.mktemp("kill") / "patches"
    (root / "images").mkdir(parents=True)
    header, *rows = (source / "labels.csv").read_text().splitlines()
    chosen = [row for row in rows if row.endswith("train")][::40][:12] + [row for row in rows if row.endswith("val")][
        :4
    ]
    (root / "labels.csv").write_text("\n".join([header, *chosen]) + "\n")
    for row in chosen:
        shutil.copy(source / row.split(",")[0], root / "images")
    shutil.copy(source / "dataset.json", root)
    return root


@pytest.fixture(scope="module")
def whole(dataset: Path) -> Path:
    out = dataset.parent / "whole"
    complete(command(dataset, out))
    return out


def of(out: Path) -> Path:
    return out.with_name(out.name + ".training")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def figures(out: Path) -> list[list[dict[str, str]]]:
    return [table(of(out) / stage / "logs" / "metrics.csv") for stage in ("stage1", "stage2")]


@pytest.mark.slow
def test_killed_in_every_step_and_resumed_is_the_same(dataset: Path, whole: Path) -> None:
    out = dataset.parent / "killed"
    steps = of(out)
    moments: list[Callable[[], bool]] = [
        (steps / "run.json").is_file,
        (steps / "stage1" / "last.ckpt").is_file,
        lambda: any((steps / "stage1").glob("sheets/epoch_002.png")),
        (steps / "stage1" / "classifier.safetensors").is_file,
        lambda: len(list((steps / "train_PM").rglob("*.png"))) >= 5,
        (steps / "stage2" / "sheets" / "epoch_001.png").is_file,
        lambda: len(table(steps / "stage2" / "logs" / "metrics.csv")) == 2,
        (steps / "stage2" / "segmenter.safetensors").is_file,
    ]
    for index, reached in enumerate(moments):
        killed_when(command(dataset, out, *(["--resume"] if index else [])), reached)
        assert not out.exists()
    complete(command(dataset, out, "--resume"))
    for file in ("classifier.safetensors", "segmenter.safetensors"):
        assert (out / file).read_bytes() == (whole / file).read_bytes()
    assert figures(out) == figures(whole)
    assert [[row["epoch"] for row in rows] for rows in figures(out)] == [["0", "1", "2"]] * 2
    assert not list(steps.rglob("*.partial"))
    for stage in ("stage1", "stage2"):
        assert sorted(path.name for path in (steps / stage / "sheets").iterdir()) == [
            *(f"epoch_00{i}.png" for i in (1, 2, 3))
        ]


@pytest.mark.slow
def test_two_processes_of_torchrun(dataset: Path) -> None:
    out = dataset.parent / "two"
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517", "-m"]
    arguments = [*program, *command(dataset, out, "--devices", "2", "--batch-size", "3")[2:]]
    said = complete(arguments)
    assert said.count("Stage 1 is finished") == said.count("Model:") == 1
    rows = figures(out)
    assert [int(row["step"]) for row in rows[0]] == [2, 4, 6], "12 patches, 2 processes, 3 a batch"
    assert (out / "model.json").is_file()
    assert (of(out) / "summary.html").is_file()
