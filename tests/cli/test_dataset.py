"""`wsiseg dataset check` finds everything at once, in tables, JSON and a picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsiseg.cli.main import main


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["dataset", "check", *map(str, arguments)])
    return int(stop.value.code or 0)


def noise(path: Path, seed: int, side: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)).save(path)
    return path


def mask(path: Path, value: int, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), value, np.uint8)).save(path)


@pytest.fixture
def everything_wrong(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    noise(root / "train" / "a-1-[10].png", 1)
    noise(root / "train" / "a-2-[01].png", 1)
    noise(root / "train" / "b-1-[00].png", 2)
    noise(root / "train" / "c-1-[10].png", 3, side=40)
    noise(root / "train" / "d-1.png", 4)
    noise(root / "train" / "e-1-[100].png", 5)
    Image.new("RGB", (32, 32), (250, 250, 250)).save(root / "train" / "f-1-[10].png")
    (root / "train" / "g-1-[10].png").write_bytes(b"no picture")
    for name, value, side in (("a-9", 0, 32), ("h-1", 7, 32), ("i-1", 1, 31), ("k-1-[10]", 1, 32)):
        noise(root / "test" / "img" / f"{name}.png", 1 if name == "a-9" else hash(name) % 1000 + 10)
        mask(root / "test" / "mask" / f"{name}.png", value, side)
    mask(root / "test" / "mask" / "lonely.png", 0)
    (root / "dataset.json").write_text('{"classes": ["[red]A", "B"]}')
    return root


def test_everything_is_found_at_once(
    everything_wrong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(everything_wrong, "--json", tmp_path / "c.json", "--sheet", tmp_path / "s.png") == 1
    shown = capsys.readouterr().out
    assert "[red]A" in shown
    assert "lonely.png" in shown
    found: dict[str, Any] = json.loads((tmp_path / "c.json").read_text())
    assert {p["kind"]: p["count"] for p in found["problems"]} == {
        **{"no label": 1, "label": 1, "no mask": 1, "unreadable": 1, "mask": 1, "mask size": 1, "size": 1, "mpp": 1},
        **{"leak": 1, "copies": 1, "contradiction": 1, "torn group": 1, "disagree": 1, "constant": 1, "no class": 1},
        "few": 2,
    }
    assert found["splits"]["train"] == {"patches": 6, "groups": 5, "masks": 0}
    assert found["sound"] is False
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 400
        assert {(213, 45, 45), (240, 170, 40)} <= {color for _, color in sheet.getcolors(2**24)}


def test_a_sound_set_is_sound_without_decoding_too(sample_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sample_data / "patches", "--no-decode") == 0
    assert "Nothing is wrong" in capsys.readouterr().out


def test_sheet_of_masks_shows_their_colours(tmp_path: Path) -> None:
    noise(tmp_path / "train" / "img" / "a-[10].png", 1)
    mask(tmp_path / "train" / "mask" / "a-[10].png", 9)
    (tmp_path / "classes.json").write_text('["A", "B"]')
    assert run(tmp_path, "--mpp", "1") == 1
    mask(tmp_path / "train" / "mask" / "a-[10].png", 0)
    noise(tmp_path / "train" / "img" / "b-[01].png", 2)
    mask(tmp_path / "train" / "mask" / "b-[01].png", 1)
    assert run(tmp_path, "--mpp", "1", "--excluded", "9") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "is not a folder"),
        (["{data}", "--classes", "nothing"], "neither a file"),
        (["{data}", "--sheet", "{data}/s.jpg"], ".png"),
        (["{data}", "--sheet", "{data}/s.png", "--no-decode"], "--no-decode"),
    ],
)
def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert run(*(a.replace("{data}", str(tmp_path)) for a in arguments)) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
