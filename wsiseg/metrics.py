"""Figures that say how well a segmentation agrees with the truth, all from one confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def confusion_matrix(truth: ArrayLike, prediction: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Pixels of each true class (rows) that were given each class (columns): (K, K).

    Matrices of images add up. A class is 0 … K - 1; pixels whose truth is K or more are excluded, whatever was
    predicted there.

    Raises:
        ValueError: where the shapes differ, or a pixel that counts was given no class.
    """
    true, given = np.asarray(truth), np.asarray(prediction)
    if true.shape != given.shape:
        raise ValueError(f"truth and prediction must be of one shape, got {true.shape} and {given.shape}")
    counts = (true >= 0) & (true < num_classes)
    true, given = true[counts].astype(np.int64), given[counts].astype(np.int64)
    if given.size and not (given.min() >= 0 and given.max() < num_classes):
        raise ValueError(f"predictions must be 0 to {num_classes - 1} where the truth is, got up to {given.max()}")
    flat = np.bincount(true * num_classes + given, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


@dataclass(frozen=True, slots=True)
class SegmentationScores:
    """Figures of one confusion matrix, each a share from 0 to 1.

    Attributes:
        class_iou: intersection over union of each class, (K,); NaN for a class neither true nor predicted anywhere.
        mean_iou: their mean, less the NaN.
        frequency_weighted_iou: their mean weighted by how many pixels truly have the class.
        pixel_accuracy: share of pixels given their class.
        class_accuracy: mean over the true classes of the share of their pixels given that class (mean recall).
    """

    class_iou: NDArray[np.float64]
    mean_iou: float
    frequency_weighted_iou: float
    pixel_accuracy: float
    class_accuracy: float


def segmentation_scores(confusion: NDArray[np.int64]) -> SegmentationScores:
    """The figures of a confusion matrix (K, K) as `confusion_matrix` makes it; all NaN where it holds no pixel."""
    hits = np.diag(confusion).astype(np.float64)
    true = confusion.sum(axis=1).astype(np.float64)
    union = true + confusion.sum(axis=0) - hits
    iou = _share(hits, union)
    recall = _share(hits, true)
    total = true.sum()
    return SegmentationScores(
        class_iou=iou,
        mean_iou=_mean(iou),
        frequency_weighted_iou=float((true * np.nan_to_num(iou)).sum() / total) if total else float("nan"),
        pixel_accuracy=float(hits.sum() / total) if total else float("nan"),
        class_accuracy=_mean(recall),
    )


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
