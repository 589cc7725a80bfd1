"""The gate's figures on tiles small enough to do by hand."""

import numpy as np
import pytest

from wsiseg.errors import OptionError
from wsiseg.evaluation.gate import average_precision, gate_report, thresholds_for_recall

PROBABILITIES = np.array([[0.9, 0.2], [0.8, 0.6], [0.3, 0.6], [0.1, 0.05]])
TRUTH = np.array([[True, False], [False, True], [True, True], [False, False]])


def test_figures_by_hand() -> None:
    report = gate_report(PROBABILITIES, TRUTH, np.array([0, 0, 1, 1]), np.array([0.5, 0.1]), ("A", "B"), 50, 0)
    assert report.per_class["A"] == pytest.approx(
        {"recall": 0.5, "specificity": 0.5, "precision": 0.5, "average_precision": (1 + 2 / 3) / 2, "prevalence": 0.5}
    )
    assert report.per_class["B"] == pytest.approx(
        {"recall": 1.0, "specificity": 0.5, "precision": 2 / 3, "average_precision": 1.0, "prevalence": 0.5}
    )
    assert report.brier.value == pytest.approx(((PROBABILITIES - TRUTH) ** 2).mean())
    # Bins of 0.05; 0.1; 0.2; 0.3; 0.6 twice; 0.8; 0.9.
    error = (0.05 + 0.1 + 0.2 + 0.7 + 0.8 + 0.8 + 0.1) / 8
    assert report.calibration_error.value == pytest.approx(error)
    assert report.brier.low <= report.brier.value <= report.brier.high
    assert sum(row["count"] for row in report.reliability) == 8
    assert report.reliability[6]["count"] == 2
    assert report.reliability[6]["share"] == 1


def test_equal_probabilities_are_taken_at_once() -> None:
    for order in ([True, False, False], [False, False, True]):
        assert average_precision(np.full(3, 0.4), np.array(order)) == pytest.approx(1 / 3)
    assert np.isnan(average_precision(np.array([0.4]), np.array([False])))


@pytest.mark.parametrize(("recall", "lost"), [(1.0, 0), (0.98, 0), (0.75, 1), (0.5, 2)])
def test_the_highest_threshold_that_keeps_the_recall(recall: float, lost: int) -> None:
    probabilities = np.array([[0.2], [0.4], [0.6], [0.8], [0.95]], np.float32).astype(float)
    truth = np.array([[True], [True], [True], [True], [False]])
    (chosen,) = thresholds_for_recall(probabilities, truth, recall)
    assert (probabilities[truth[:, 0], 0] > chosen).sum() == 4 - lost
    assert chosen == pytest.approx([0.2, 0.4, 0.6][lost])


def test_a_recall_outside_its_range_is_refused() -> None:
    with pytest.raises(OptionError, match="share"):
        thresholds_for_recall(PROBABILITIES, TRUTH, 0)
