"""Predicting with coarse probabilities: classes as of a full map; resumed like any, refused with another choice."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.color_model import color_model
from tests.helpers.maps import chunks, painted
from wsiseg.errors import OptionError, OutputError
from wsiseg.geometry import Box
from wsiseg.prediction.run import Prediction, PredictOptions, predict
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.measure import MeasureOptions, measure
from wsiseg.report.roles import roles_of
from wsiseg.system import memory
from wsiseg.tissue_map.probability_levels import COARSE
from wsiseg.tissue_map.pyramid import halved
from wsiseg.tissue_map.reader import TissueMap, open_map

OPTIONS = PredictOptions(mpp=1, tissue="none", gate=False, overlap=0, device="cpu")


def in_pieces(
    folder: Path, name: str, options: PredictOptions, progress: Callable[..., None] | None = None
) -> Prediction:
    """A map of four pieces, whose probabilities have a level that no piece brings."""
    slide = folder / "p.png"
    if not slide.exists():
        painted(slide, (530, 530))
    return predict(slide, folder / name, color_model(), options, progress=progress)


def test_classes_areas_and_what_is_kept_are_those_of_a_full_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PIECE_PX", 512)
    results = {choice: in_pieces(tmp_path, f"{choice}.zarr", replace(OPTIONS, probabilities=choice))
               for choice in ("full", "coarse", "none")}  # fmt: skip
    full, coarse, none = (open_map(tmp_path / f"{choice}.zarr") for choice in results)
    assert chunks(full.path / "labels") == chunks(coarse.path / "labels") == chunks(none.path / "labels") != {}
    assert results["full"].areas == results["coarse"].areas  # the mean probabilities among them: of all there were
    level_2 = halved(full.probabilities(1).compute(), labels=False)
    assert np.array_equal(coarse.probabilities(2).compute(), COARSE.rounded(level_2))
    assert [one.metadata["parameters"]["probabilities"] for one in (full, coarse, none)] == ["full", "coarse", "none"]
    assert not none.has_probabilities


def test_true_false_and_nothing_are_words() -> None:
    assert PredictOptions(probabilities=True) == PredictOptions(probabilities="full")
    assert PredictOptions(probabilities=False) == PredictOptions(probabilities="none")
    assert PredictOptions().resolved(color_model()).probabilities == "full"
    with pytest.raises(OptionError, match=r"probabilities.*full.*coarse.*none"):
        PredictOptions(probabilities="some")  # type: ignore[arg-type]


def test_a_run_cut_short_goes_on_to_the_same_bytes_and_another_choice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PIECE_PX", 512)
    options = replace(OPTIONS, probabilities="coarse")
    in_pieces(tmp_path, "whole.zarr", options)

    def stop_when(step: str) -> Callable[..., None]:
        def progress(*told: object) -> None:
            journal = tmp_path / ".m.zarr.unfinished" / "journal.jsonl"
            if journal.exists() and f'"{step}"' in journal.read_text():
                raise KeyboardInterrupt

        return progress

    for step in ("piece", "level"):
        with pytest.raises(KeyboardInterrupt):
            in_pieces(tmp_path, "m.zarr", options, stop_when(step))
        assert (tmp_path / ".m.zarr.unfinished").is_dir()
        for other in ("full", "none", None):
            with pytest.raises(OutputError, match=r"had probabilities coarse, this one has (full|none).*--restart"):
                in_pieces(tmp_path, "m.zarr", replace(options, probabilities=other))
    in_pieces(tmp_path, "m.zarr", options)
    assert chunks(tmp_path / "m.zarr") == chunks(tmp_path / "whole.zarr") != {}


def figures(found: TissueMap) -> dict[str, float]:
    """Each endpoint of the report, and the ends of its interval."""
    measured = measure(CoarseMap.of(found), roles_of(found.classes, {}), MeasureOptions())
    every = [*measured.counted, *(one for some in measured.variants.values() for one in some)]
    return {f"{one.name} {part}": getattr(one, part) for one in every for part in ("value", "low", "high")}


def size_of(found: TissueMap) -> int:
    return sum(file.stat().st_size for file in found.path.rglob("*") if file.is_file())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slide", "mpp", "smaller", "endpoints"),
    [
        ("CMU-1-Small-Region.svs", None, 8, False),  # too little tumour for any
        ("tcga-cr-7395-01a-01-ts1.svs", 0.25, 4, True),  # 96 % of its patches have one class, so there is less to save
    ],
)
def test_real_sections_are_a_fraction_and_say_the_same(
    tmp_path: Path, shared: Path, slide: str, mpp: float | None, smaller: float, endpoints: bool
) -> None:
    for choice in ("full", "coarse"):
        options = PredictOptions(mpp=mpp, probabilities=choice)
        predict(shared / "data" / "slides" / slide, tmp_path / f"{choice}.zarr", options=options)
    full, coarse = (open_map(tmp_path / f"{choice}.zarr") for choice in ("full", "coarse"))
    assert chunks(full.path / "labels") == chunks(coarse.path / "labels") != {}
    assert size_of(full) > smaller * size_of(coarse)
    expected, found = figures(full), figures(coarse)
    assert any(np.isfinite(list(expected.values()))) == endpoints
    assert found == pytest.approx(expected, rel=0.01, nan_ok=True)
    means = []
    for one in (full, coarse):
        box = Box.from_size(one.size)
        classes = one.read(box)
        means.append(255 - one.estimate_probabilities(box).max(axis=0)[(classes > 0) & (classes < 255)].mean())
    assert means[1] == pytest.approx(means[0], rel=0.01)
    for path in (full.path, coarse.path):
        shutil.rmtree(path)
