"""Probabilities whose truth is known: what a calibrated model shows, and one that is too sure of itself."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.color_model import color_model
from tests.helpers.evaluation_data import write_dataset
from wsiseg.errors import BundleError, OptionError
from wsiseg.evaluation.calibrate import calibration_from
from wsiseg.evaluation.calibration import CalibrationReport, CalibrationTally
from wsiseg.evaluation.card import write_card
from wsiseg.evaluation.result import Evaluation
from wsiseg.evaluation.run import EvaluateOptions, evaluate
from wsiseg.evaluation.temperature import calibrated, fit_temperatures
from wsiseg.metrics import confusion_matrix
from wsiseg.models.calibration import networks_of, save
from wsiseg.models.folder import BUNDLES_FOLDER
from wsiseg.models.spec import read_spec

NAMES = ("A", "B", "C")


def pixels(count: int, seed: int, sharper: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (K, N) uint8 that are true, then taken to a power and normalised again; and the truth (N,)."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet([1, 1, 1], count)
    truth = (rng.random((count, 1)) > true.cumsum(axis=1)).sum(axis=1)
    said = true**sharper
    said /= said.sum(axis=1, keepdims=True)
    return np.rint(255 * said).astype(np.uint8).T, np.minimum(truth, 2)


def report(sharper: float = 1.0, groups: int = 6) -> CalibrationReport:
    tally, confusion = CalibrationTally(3), np.zeros((3, 3), np.int64)
    for group in range(groups):
        values, truth = pixels(4000, group, sharper)
        given = values.argmax(axis=0).astype(np.uint8)
        truth[:50] = 3  # not known
        tally.add(group, values, given, truth)
        confusion += confusion_matrix(truth, given, 3)
    found = tally.report(confusion, NAMES, 200, 0)
    assert found is not None
    return found


def test_a_calibrated_model_has_no_error() -> None:
    found = report()
    assert found.error.value < 0.02
    assert found.error.low <= found.error.value <= found.error.high + 0.01
    assert all(error.value < 0.02 for error in found.class_errors.values())
    for row in found.reliability:
        if row["count"] > 500:
            assert row["share"] == pytest.approx(row["mean_probability"], abs=0.05)
    assert sum(row["count"] for row in found.reliability) == 6 * 3950
    assert found.temperatures is not None
    assert found.temperatures.one == pytest.approx(1, abs=0.08)
    for area in found.areas.values():
        assert area.summed == pytest.approx(area.true, abs=0.02)


def test_a_model_that_is_too_sure_gets_the_temperature_that_it_needs() -> None:
    found = report(sharper=2.0)
    assert found.error.value > 0.08
    best = found.temperatures
    assert best is not None
    assert best.one == pytest.approx(2, abs=0.2)
    assert best.error[0] > 0.08 > 3 * best.error[1]
    assert best.loss[1] < best.loss[0]
    assert set(best.per_class) == set(NAMES)
    values, _ = pixels(1000, 9, 2.0)
    true, _ = pixels(1000, 9, 1.0)
    cooled = calibrated(values.T / 255, np.full(3, 2.0))
    assert np.abs(cooled - true.T / 255).mean() < 0.02


def test_areas_are_those_of_counted_and_of_summed_pixels() -> None:
    tally = CalibrationTally(2)
    values = np.array([[178, 178, 178, 51], [77, 77, 77, 204]], np.uint8)  # 0.7, 0.7, 0.7, 0.2 of the first
    given = np.array([0, 0, 0, 1], np.uint8)
    truth = np.array([0, 0, 1, 1])
    tally.add(0, values, given, truth)
    found = tally.report(confusion_matrix(truth, given, 2), ("A", "B"), 0, 0)
    assert found is not None
    one = found.areas["A"]
    assert (one.true, one.counted) == (0.5, 0.75)
    assert one.summed == pytest.approx((3 * 178 + 51) / 255 / 4)
    assert found.areas["B"].summed == pytest.approx(1 - one.summed, abs=1e-9)
    assert found.temperatures is None, "four pixels tell nothing of it"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["areas"]["A"]["counted_minus_true"] == 0.25


def test_a_single_group_is_not_cross_fitted() -> None:
    values, truth = pixels(2000, 0, 2.0)
    found = fit_temperatures(values.T.copy(), truth.astype(np.uint8), np.zeros(2000, np.int64), NAMES)
    assert found is not None
    assert found.one == pytest.approx(2, abs=0.3)
    assert math.isnan(found.error[1])
    assert found.to_json()["expected_calibration_error"]["one"] is None


def test_an_evaluation_has_it(tmp_path: Path) -> None:
    """Of a model that gives 0.96 to what it sees, and is right in three quarters."""
    shown = np.zeros((64, 64), np.uint8)
    truth = shown.copy()
    truth[:16] = 1
    images = [(shown, shown, "t", "train"), (shown, truth, "a", "test"), (shown, truth, "b", "test")]
    found = evaluate(color_model(), write_dataset(tmp_path / "d", images)).calibration
    assert found is not None
    assert found.areas["Red"].true == 0.75
    assert found.areas["Red"].counted == 1
    assert found.areas["Red"].summed == 1, "the gate leaves one class alone"
    assert found.error.value == pytest.approx(0.25)


def too_sure(root: Path) -> Path:
    """A data set on which a pixel is often of another class than its colour; each image shows all three colours."""
    rng = np.random.default_rng(5)
    images = []
    for split, group in (("train", "t"), ("val", "a"), ("val", "b"), ("val", "c"), ("test", "d"), ("test", "e")):
        shown = np.repeat(np.arange(3), 22)[:64][:, None].repeat(64, axis=1)
        wrong = rng.random(shown.shape) < 0.4
        images.append((shown, np.where(wrong, rng.integers(0, 3, shown.shape), shown), group, split))
    return write_dataset(root, images)


def test_a_temperature_is_chosen_on_validation_and_judged_on_test(tmp_path: Path) -> None:
    model, data = color_model(gate=0.01), too_sure(tmp_path / "d")
    chosen = calibration_from(evaluate(model, data, EvaluateOptions(split="val")), model.spec.networks)
    assert chosen.temperature > 1.5
    assert chosen.networks == networks_of(model.spec.networks)
    errors = chosen.fitted["expected_calibration_error"]
    assert errors["after"] < 0.5 * errors["before"]
    before = evaluate(model, data).calibration
    model.calibration = chosen
    result = evaluate(model, data)
    after = result.calibration
    assert before is not None
    assert after is not None
    assert after.before is not None
    assert after.before[0].value == before.error.value
    assert after.error.value < 0.5 * before.error.value
    assert after.temperatures == before.temperatures  # of what the networks give
    assert {name: area.counted for name, area in after.areas.items()} == {n: a.counted for n, a in before.areas.items()}
    said = json.loads(json.dumps(result.to_json(), allow_nan=False))["calibration"]["before_temperature"]
    assert said["expected_calibration_error"]["value"] == pytest.approx(before.error.value, abs=1e-6)
    again = calibration_from(evaluate(model, data, EvaluateOptions(split="val")), model.spec.networks)
    assert again == chosen  # whatever the model brings with it


def test_no_temperature_is_chosen_where_it_would_not_help_or_nothing_is_known() -> None:
    found = report()
    result = Evaluation("pixels", NAMES, {}, None, None, {}, {}, {}, found)  # type: ignore[arg-type]
    assert found.temperatures is not None
    worse = replace(found.temperatures, error=(0.01, 0.02, 0.02))
    with pytest.raises(OptionError, match="the model needs none"):
        calibration_from(replace(result, calibration=replace(found, temperatures=worse)), color_model().spec.networks)
    with pytest.raises(OptionError, match="that takes masks or cell dots"):
        calibration_from(replace(result, calibration=None), color_model().spec.networks)


def test_the_card_shows_reliability_before_and_after(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(BUNDLES_FOLDER / "tissue-brca-lite", tmp_path / "bundle"))
    assert "probabilities are as the networks give them" in write_card(bundle).read_text(encoding="utf-8")
    model = color_model(gate=0.01)
    chosen = calibration_from(
        evaluate(model, too_sure(tmp_path / "d"), EvaluateOptions(split="val")), read_spec(bundle).networks
    )
    chosen.fitted["data"] = "<b>patches</b>"
    save(chosen, bundle)
    card = write_card(bundle).read_text(encoding="utf-8")
    errors = chosen.fitted["expected_calibration_error"]
    assert f"<p>{chosen.temperature:g}, fitted to" in card
    assert f"falls from {errors['before']:.3f} to {errors['after']:.3f}" in card
    assert "<th>before: mean</th>" in card
    assert "<th>after: mean</th>" in card
    assert card.count("<polyline") == 3
    assert "<b>patches" not in card
    assert "&lt;b&gt;patches" in card
    save(replace(chosen, fitted={"reliability": {"before": 3}}), bundle)
    with pytest.raises(BundleError, match=r"holds no figures of wsiseg evaluate: remove it"):
        write_card(bundle)
