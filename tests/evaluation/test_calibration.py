"""Probabilities whose truth is known: what a calibrated model shows, and one that is too sure of itself."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.color_model import color_model
from tests.helpers.evaluation_data import write_dataset
from wsiseg.evaluation.calibration import CalibrationReport, CalibrationTally
from wsiseg.evaluation.run import evaluate
from wsiseg.evaluation.temperature import calibrated, fit_temperatures
from wsiseg.metrics import confusion_matrix

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
