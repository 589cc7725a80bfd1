"""What cannot be learned is said, and with --strict refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.cli.main import main
from wsiseg.datasets.check import check_dataset
from wsiseg.datasets.dataset import read_dataset
from wsiseg.datasets.learnable import FEW, KINDS, learning_findings
from wsiseg.datasets.patch import UNKNOWN, Patch
from wsiseg.datasets.problems import KINDS as PROBLEMS
from wsiseg.errors import DatasetError

NAMES = ("Tumour", "Stroma")


def patches(*labels: tuple[int, ...], group: str = "") -> list[Patch]:
    return [Patch(Path(f"{n}.png"), f"{n}.png", label, group or f"g{n // 2}") for n, label in enumerate(labels)]


def kinds(train: list[Patch], val: list[Patch] | None = None, names: tuple[str, ...] = NAMES) -> list[tuple[str, str]]:
    return [(finding.kind, finding.where) for finding in learning_findings(names, train, val or [])]


GOOD = [(1, 0), (0, 1)] * FEW


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (GOOD, []),
        ([(0, 0)] * 50, [("no labels", "")]),
        ([(1, 1)] * 50, [("no labels", "")]),
        ([(1, UNKNOWN)] * 50, [("constant class", "Tumour"), ("absent", "Stroma")]),
        ([(1, 0)] * 30 + [(0, 0)] * 30, [("absent", "Stroma")]),
        ([(1, 0)] * 30 + [(1, 1)] * 30, [("constant class", "Tumour")]),
        ([(1, 0)] * 30 + [(0, 1)] * (FEW - 1), [("few", "Stroma")]),
        ([(1, 1)] * 30 + [(0, 0)] * 30, [("together", "Tumour")]),
        ([(1, 0)] * 1100 + [(0, 1)] * 22, [("imbalance", "Stroma")]),
        ([(1, 0)] * 1099 + [(0, 1)] * 22, []),
    ],
)
def test_labels(labels: list[tuple[int, ...]], expected: list[tuple[str, str]]) -> None:
    assert kinds(patches(*labels)) == expected


def test_groups() -> None:
    assert kinds(patches(*GOOD, group="only")) == [("one group", "only")]
    lone = [Patch(Path(f"{n}"), f"{n}", label, f"g{n}") for n, label in enumerate(GOOD)]
    assert kinds(lone) == [("no groups", "")]


def test_validation_that_lacks_a_class() -> None:
    assert kinds(patches(*GOOD), patches((1, 0), (1, 0))) == [("val absent", "Stroma")]


def test_all_kinds_have_a_title() -> None:
    assert set(KINDS) <= set(PROBLEMS)


def run(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Six patches without groups."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    for n in range(6):
        Image.fromarray(pixels[n]).save(tmp_path / f"{n}.png")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", *NAMES], *([f"{n}.png", n % 2, 1 - n % 2] for n in range(6))])
    (tmp_path / "dataset.json").write_text('{"mpp": 0.5}')
    return tmp_path


def test_a_check_shows_it_and_strict_makes_it_count(few: Path) -> None:
    found = check_dataset(few)
    assert found.sound
    assert not found.learnable
    assert {"few", "no groups"} <= set(found.problems)
    assert run(["dataset", "check", str(few)]) == 0
    assert run(["dataset", "check", str(few), "--strict"]) == 1


def test_a_training_says_it_or_refuses(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read_dataset(few, val_share=0)
    assert data.check_for_training() == [
        "3 training patches have Tumour, fewer than 20",
        "3 training patches have Stroma, fewer than 20",
        "each of 6 patches is a group of its own: those of one patient may be on both sides",
    ]
    with pytest.raises(DatasetError, match=r"3 training patches have Tumour, fewer than 20 \(3 things in all, wsiseg"):
        data.check_for_training(strict=True)
    assert run(["train", str(few), "--out", str(few / "model"), "--strict"]) == 2
    assert "mend it, or train without --strict" in capsys.readouterr().err
    assert not list(few.glob("model*"))
