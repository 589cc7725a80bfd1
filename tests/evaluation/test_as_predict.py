"""The predicted gate's map is, pixel by pixel, the file that `predict` writes: in all ways of gating, by two runtimes.

The truth of the data set is what `predict` wrote, so that every pixel that evaluation sees otherwise would be counted
as an error.
"""

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from wsiseg.evaluation.run import EvaluateOptions, evaluate
from wsiseg.geometry import Box
from wsiseg.models.bundle import load_model
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.run import PredictOptions, predict
from wsiseg.slides import open_slide
from wsiseg.tissue_map.reader import open_map

NAMES = ("Tumour", "Stroma", "Lymphocytes")
MPP = 0.4990  # of CMU-1-Small-Region
CROPS = [Box(1040, 600, 170, 140), Box(1240, 700, 96, 96), Box(1300, 820, 110, 97)]
"""Small ones share a batch with their neighbours."""

WAYS: dict[str, dict[str, Any]] = {
    "patches": {"gate_mode": "patches"},
    "patches in context": {"gate_mode": "patches", "gate_context": 1.0},
    "windows": {"gate_mode": "windows"},
    "shared": {"gate_mode": "shared"},
    "published": {},
}
OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="the extra openvino is not installed")


@pytest.fixture(scope="module", params=["torch", pytest.param("openvino", marks=OPENVINO)])
def model(request: pytest.FixtureRequest) -> TissueModel:
    return load_model("tissue-brca-lite", "cpu", request.param)


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    with open_slide(ROOT / "sample_data" / "CMU-1-Small-Region.svs") as slide:
        return [slide.read_level(0, box).pixels for box in CROPS]


@pytest.mark.parametrize("way", WAYS)
def test_every_pixel_is_the_one_that_predict_wrote(
    way: str, model: TissueModel, crops: list[np.ndarray], tmp_path: Path
) -> None:
    before = model.spec
    if way == "published":
        model.spec = before.model_copy(update={"gate_rule": "multiply_logits"})
    try:
        written = [_predicted(model, crop, tmp_path / str(number), way) for number, crop in enumerate(crops)]
        data = _dataset(tmp_path / "data", crops, written)
        found = evaluate(model, data, EvaluateOptions(batch_size=8, resamples=0, flips=True, **WAYS[way]))
    finally:
        model.spec = before
    counts = np.bincount(np.concatenate([classes.ravel() for classes in written]), minlength=3)
    assert (counts > 0).sum() >= 2, "a map of one class proves nothing"
    assert found.columns["predicted_gate"].confusion.tolist() == np.diag(counts).tolist()
    assert any((column.confusion != np.diag(counts)).any() for column in found.columns.values())


def _predicted(model: TissueModel, crop: np.ndarray, path: Path, way: str) -> np.ndarray:
    """The class channels (h, w) that `predict` writes of a picture."""
    Image.fromarray(crop).save(path.with_suffix(".png"))
    options = PredictOptions(mpp=MPP, tissue="none", white=False, batch_size=8, **WAYS[way])
    predict(path.with_suffix(".png"), path.with_suffix(".zarr"), model, options)
    return open_map(path.with_suffix(".zarr")).class_map().compute() - 1


def _dataset(root: Path, crops: list[np.ndarray], truths: list[np.ndarray]) -> Path:
    """A data set whose masks are what was predicted."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    Image.fromarray(crops[0][:96, :96]).save(root / "images" / "train.png")  # a data set needs one
    rows = [["images/train.png", 1, 1, 1, "t", "train", ""]]
    for number, (crop, truth) in enumerate(zip(crops, truths, strict=True)):
        Image.fromarray(crop).save(root / "images" / f"{number}.png")
        Image.fromarray(truth).save(root / "masks" / f"{number}.png")
        label = [int((truth == k).any()) for k in range(3)]
        rows.append([f"images/{number}.png", *label, f"g{number}", "test", f"masks/{number}.png"])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", *NAMES, "group", "split", "mask"], *rows])
    (root / "dataset.json").write_text(json.dumps({"mpp": MPP, "classes": list(NAMES)}))
    return root
