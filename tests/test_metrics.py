import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsiseg.metrics import confusion_matrix, segmentation_scores

TRUTH = arrays(np.uint8, (2, 5, 7), elements=st.integers(0, 3))
GIVEN = arrays(np.uint8, (2, 5, 7), elements=st.integers(0, 2))


def test_the_published_figures(parity):
    scores = segmentation_scores(confusion_matrix(parity.stage1["mask_luad_bn7"], parity.stage2["labels"], 4))
    got = [scores.pixel_accuracy, scores.class_accuracy, scores.mean_iou, scores.frequency_weighted_iou]
    np.testing.assert_allclose(got, parity.stage2["metrics"], rtol=1e-12)
    np.testing.assert_allclose(scores.class_iou, parity.stage2["class_iou"], rtol=1e-12)


def test_by_hand():
    #        truth: class 0 three times, class 1 twice, class 2 never, one pixel (3) excluded
    matrix = confusion_matrix([0, 0, 0, 1, 1, 3], [0, 0, 1, 1, 2, 3], 3)
    assert matrix.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    scores = segmentation_scores(matrix)
    assert scores.class_iou.tolist() == [2 / 3, 1 / 3, 0]
    assert scores.mean_iou == pytest.approx(1 / 3)
    assert scores.frequency_weighted_iou == pytest.approx((3 * 2 / 3 + 2 * 1 / 3) / 5)
    assert scores.pixel_accuracy == 3 / 5
    assert scores.class_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_nowhere_to_be_found_does_not_count():
    scores = segmentation_scores(confusion_matrix([0, 1], [0, 1], 3))
    assert np.isnan(scores.class_iou[2])
    assert (scores.mean_iou, scores.class_accuracy, scores.frequency_weighted_iou) == (1, 1, 1)


def test_no_pixel_at_all_gives_no_figure():
    scores = segmentation_scores(confusion_matrix([4], [0], 2))
    assert np.isnan([scores.mean_iou, scores.pixel_accuracy, scores.frequency_weighted_iou]).all()


def test_what_cannot_be_counted():
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrix([0], [0, 1], 2)
    with pytest.raises(ValueError, match="must be 0 to 1"):
        confusion_matrix([0], [2], 2)


@given(TRUTH, GIVEN)
def test_matrices_of_images_add_up_to_that_of_all(truth, given_):
    whole = confusion_matrix(truth, given_, 3)
    assert (whole == sum(confusion_matrix(t, g, 3) for t, g in zip(truth, given_, strict=True))).all()
    assert whole.sum() == (truth < 3).sum()
    for i in range(3):
        for j in range(3):
            assert whole[i, j] == ((truth == i) & (given_ == j)).sum()


@given(TRUTH)
def test_the_truth_itself_is_perfect(truth):
    scores = segmentation_scores(confusion_matrix(truth, truth, 3))
    if (truth < 3).any():
        assert scores.mean_iou == scores.pixel_accuracy == scores.class_accuracy == 1
        assert scores.frequency_weighted_iou == pytest.approx(1)
