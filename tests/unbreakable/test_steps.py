"""A run that dies at any step of writing, and is repeated, ends as one that was left alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.color_model import COLORS
from tests.unbreakable.faults import DIED
from tests.unbreakable.runs import Server, assert_same

OPTIONS = ["--mpp", "1", "--tissue", "none", "--gate-context", "1"]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pieces of 512 px, and a pyramid with a level that they do not bring."""
    classes = np.ones((300, 1100), np.uint8)
    classes[30:200, 400:600] = 2
    classes[97:131, 101:659] = 3
    path = tmp_path_factory.mktemp("slide") / "p.png"
    Image.fromarray(np.array([(0, 0, 0), *COLORS.values()], np.uint8)[classes]).save(path)
    return path


def command(slide: Path, folder: Path, *more: str) -> list:
    return ["predict", slide, "--out", folder / "m.zarr", *OPTIONS, *more]


MORE = {"piece_px": 512, "colors": True}


def die_everywhere(server: Server, slide: Path, tmp_path: Path, step: int, *more: str) -> int:
    """Die at every `step`-th step, each time from the beginning; returns how many there were."""
    whole, folder = tmp_path / "whole", tmp_path / "dying"
    whole.mkdir()
    assert server.run(command(slide, whole, *more), **MORE)[0] == 0
    number = 1
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        code, said = server.run(
            command(slide, folder, *more), fault="die_at", fault_arguments=[number, str(folder)], **MORE
        )
        assert code in (0, DIED), said
        if code == 0:
            assert_same(folder, whole)
            return number
        code, said = server.run(command(slide, folder, *more), **MORE)
        if code == 2 and "m.zarr exists" in said:
            code = 0  # it had ended but for its lock
        assert code == 0, f"step {number}: {said}"
        assert_same(folder, whole)
        number += step


def test_dying_at_some_steps_of_writing(server: Server, slide: Path, tmp_path: Path) -> None:
    assert die_everywhere(server, slide, tmp_path, 53) > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [[], ["--no-probabilities"], ["--probabilities", "coarse"], ["--gate-context", "0", "--no-geojson"]]
)
def test_dying_at_any_step_of_writing(server: Server, slide: Path, tmp_path: Path, more: list[str]) -> None:
    assert die_everywhere(server, slide, tmp_path, 1, *more) > 100
