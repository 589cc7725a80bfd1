"""Figures of matrices small enough to do by hand, and intervals against a plain loop."""

import numpy as np
import pytest

from wsiseg.evaluation.figures import bootstrap, confusion_figures, draws
from wsiseg.metrics import segmentation_scores

MATRIX = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])


def test_figures_by_hand() -> None:
    found = confusion_figures(MATRIX)
    assert found["iou"][:2] == pytest.approx([6 / 9, 3 / 6])
    assert np.isnan(found["iou"][2])
    assert found["recall"][:2] == pytest.approx([6 / 8, 3 / 4])
    assert found["precision"][:2] == pytest.approx([6 / 7, 3 / 5])
    assert found["f1"][:2] == pytest.approx([12 / 15, 6 / 9])
    assert found["mean_iou"] == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert found["frequency_weighted_iou"] == pytest.approx((8 * 6 / 9 + 4 * 3 / 6) / 12)
    assert found["pixel_accuracy"] == found["accuracy"] == pytest.approx(9 / 12)
    assert found["class_accuracy"] == found["balanced_accuracy"] == pytest.approx(0.75)


def test_figures_of_stacks_agree_with_training() -> None:
    stack = np.random.default_rng(0).integers(0, 50, (7, 3, 3))
    stack[0, 1] = stack[0, :, 1] = 0
    found = confusion_figures(stack)
    for index, matrix in enumerate(stack):
        scores = segmentation_scores(matrix)
        np.testing.assert_allclose(found["iou"][index], scores.class_iou)
        assert found["mean_iou"][index] == pytest.approx(scores.mean_iou)
        assert found["frequency_weighted_iou"][index] == pytest.approx(scores.frequency_weighted_iou)
        assert found["pixel_accuracy"][index] == pytest.approx(scores.pixel_accuracy)
        assert found["class_accuracy"][index] == pytest.approx(scores.class_accuracy)


def test_every_resample_draws_as_many_groups_as_there_are() -> None:
    counts = draws(5, 200, seed=1)
    assert (counts.sum(axis=1) == 5).all()
    assert (counts == draws(5, 200, seed=1)).all()
    assert (counts != draws(5, 200, seed=2)).any()


def test_intervals_are_those_of_a_plain_loop_over_groups() -> None:
    groups = np.random.default_rng(3).integers(0, 40, (6, 3, 3))
    found = bootstrap(groups, confusion_figures, 300, seed=4)
    random = np.random.default_rng(4)
    means, recalls = [], []
    for _ in range(300):
        total = np.zeros((3, 3), int)
        for index in random.integers(6, size=6):
            total += groups[index]
        means.append(segmentation_scores(total).mean_iou)
        recalls.append(total[1, 1] / total[1].sum())
    assert found["mean_iou"][0].value == pytest.approx(segmentation_scores(groups.sum(axis=0)).mean_iou)
    assert [found["mean_iou"][0].low, found["mean_iou"][0].high] == pytest.approx(np.percentile(means, [2.5, 97.5]))
    assert [found["recall"][1].low, found["recall"][1].high] == pytest.approx(np.percentile(recalls, [2.5, 97.5]))


def test_one_group_has_no_interval() -> None:
    figure = bootstrap(MATRIX[None], confusion_figures, 100, 0)["mean_iou"][0]
    assert np.isnan(figure.low)
    assert figure.to_json()["low"] is None
