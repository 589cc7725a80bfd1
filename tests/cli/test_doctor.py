"""`wsiseg doctor`: what it tells, and what it does not."""

import getpass
import json
import tempfile
from pathlib import Path

import numpy as np

from tests.helpers.commands import Run, run  # noqa: F401
from wsiseg.choices import READERS
from wsiseg.cli.doctor_facts import TILE_PX, _drawn_tile, without_paths


def test_facts_without_a_test_hold_no_paths(run: Run) -> None:  # noqa: F811
    text = run("doctor", "--no-test", "--json")
    found = json.loads(text)
    assert found["versions"]["wsiseg"]
    assert found["system"]["processors this process may use"] >= 1
    assert set(found["readers"]) == set(READERS)
    assert all(found["readers"].values())
    assert found["devices"]["cpu"]
    assert "self-test" not in found
    for secret in (str(Path.home()), str(Path.cwd()), tempfile.gettempdir() + "/"):
        assert secret not in text
    assert f"/{getpass.getuser()}" not in text


def test_paths_are_taken_out_of_messages() -> None:
    text = without_paths(f"no {Path.home()}/a, {tempfile.gettempdir()}/b, /data/x/c", "/data/x")
    assert text == "no <home>/a, <temporary>/b, <folder>/c"


def test_the_drawn_tile_is_the_same_every_time_and_has_nuclei() -> None:
    tile = _drawn_tile()
    assert tile.shape == (TILE_PX, TILE_PX, 3)
    assert np.array_equal(tile, _drawn_tile())
    dark = (tile.astype(int).sum(axis=2) < 400).mean()
    assert 0.02 < dark < 0.5
