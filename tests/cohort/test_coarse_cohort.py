"""A list of slides keeps coarse probabilities unless told otherwise, and maps of either kind count as done."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.color_model import color_model
from tests.helpers.maps import chunks, painted
from wsiseg.cohort.names import Cohort
from wsiseg.cohort.run import CohortOptions, CohortRun
from wsiseg.cohort.slide_source import SlideSource
from wsiseg.prediction.options import PredictOptions
from wsiseg.prediction.run import predict
from wsiseg.tissue_map.reader import open_map

OPTIONS = PredictOptions(mpp=1, tissue="none", device="cpu")


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Two slides."""
    for index, name in enumerate("ab"):
        painted(tmp_path / f"{name}.png", (60 + index, 60))
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    return Cohort(SlideSource(str(tmp_path / "list.txt")))


def run(cohort: Cohort, folder: Path, options: PredictOptions = OPTIONS) -> list[tuple[str, str]]:
    """What was done of each slide, with the reason where it failed."""
    made = CohortRun(cohort, folder, color_model(), options, CohortOptions(polygons=False))
    return [(found.status, found.error or "") for found in made]


def kept(folder: Path) -> list[str]:
    words = []
    for name in ("a", "b"):
        levels = open_map(folder / f"{name}.zarr").probability_levels
        words.append("none" if levels is None else levels.word)
    return words


def test_coarse_is_the_default_of_a_list_and_its_classes_are_those_of_a_single_run(
    cohort: Cohort, tmp_path: Path
) -> None:
    assert run(cohort, tmp_path / "maps") == [("done", "")] * 2
    assert kept(tmp_path / "maps") == ["coarse"] * 2
    predict(tmp_path / "a.png", tmp_path / "a.zarr", color_model(), OPTIONS)
    assert open_map(tmp_path / "a.zarr").probability_levels.word == "full"
    assert chunks(tmp_path / "maps/a.zarr/labels") == chunks(tmp_path / "a.zarr/labels") != {}
    assert run(cohort, tmp_path / "maps") == []


def test_a_folder_of_full_maps_goes_on_and_what_is_asked_for_is_obeyed(cohort: Cohort, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    assert run(cohort, maps, replace(OPTIONS, probabilities="full")) == [("done", "")] * 2
    assert kept(maps) == ["full"] * 2
    before = chunks(maps / "a.zarr")
    assert [status for status, _ in run(cohort, maps)] == ["kept"] * 2  # nothing was asked for, and nothing lacks
    assert chunks(maps / "a.zarr") == before
    for choice in ("coarse", "none"):
        found = run(cohort, maps, replace(OPTIONS, probabilities=choice))
        assert [status for status, _ in found] == ["failed"] * 2
        assert all(f"probabilities full, this run has {choice}" in reason for _, reason in found)
    assert kept(maps) == ["full"] * 2
