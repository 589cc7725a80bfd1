"""What a training changed: the model before and the model after, on the same patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsiseg.datasets.patch import Patch
from wsiseg.datasets.sizes import read_square_truth
from wsiseg.metrics import confusion_matrix, segmentation_scores
from wsiseg.models.gate import allowed_classes, gate_logits
from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.tissue_model import normalise
from wsiseg.system.json_values import JsonObject
from wsiseg.training.config import NetworkConfig, TrainingConfig
from wsiseg.training.loading import PatchImages, plain_loader
from wsiseg.training.stage1 import average_precision

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Networks:
    """A model as it is measured: patch by patch, as a gate without context sees them.

    Attributes:
        classifier: of stage 1, in evaluation mode.
        segmenter: of stage 2, likewise.
        thresholds: of the gate, (K,).
        floor: of the gate.
    """

    classifier: Classifier
    segmenter: nn.Module
    thresholds: Tensor
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """How a model agrees with what is known of some patches; None where nothing is known.

    Attributes:
        patches: how many.
        labels: known labels, of all classes together.
        label_accuracy: share of them that the gate decides as they are.
        mean_average_precision: of the classifier, over the classes that occur.
        pixels: that are known.
        pixel_accuracy: share of them that get their class, gated.
        mean_iou: over the classes.
        class_iou: of each class.
    """

    patches: int
    labels: int
    label_accuracy: float | None
    mean_average_precision: float | None
    pixels: int
    pixel_accuracy: float | None
    mean_iou: float | None
    class_iou: list[float | None]

    def to_json(self) -> JsonObject:
        """The figures as plain JSON."""
        return asdict(self)


@torch.inference_mode()
def measure(networks: Networks, patches: Sequence[Patch], config: TrainingConfig, device: torch.device) -> Figures:
    """The figures of a model on patches.

    Args:
        networks: on `device`.
        patches: with labels or masks, all of one size.
        config: its normalisation of pixels.
        device: what computes.
    """
    count = len(networks.thresholds)
    images = PatchImages(patches, count)
    confusion = np.zeros((count, count), np.int64)
    rows, labels = [], []
    for batch in plain_loader(images, _BATCH):
        scores = networks.classifier(_normalised(batch["pixels"], config.classifier, device)).float()
        probabilities = torch.sigmoid(scores).cpu()
        rows.append(probabilities)
        chosen = [patches[index] for index in batch["index"].tolist()]
        labels += [list(patch.label) or [-1] * count for patch in chosen]
        masked = [row for row, patch in enumerate(chosen) if patch.mask is not None]
        if not masked:
            continue
        pixels = batch["pixels"][masked]
        logits = networks.segmenter(_normalised(pixels, config.segmenter, device)).float().cpu()
        allowed = allowed_classes(probabilities[masked], networks.thresholds, networks.floor)
        classes = gate_logits(logits, allowed).max(dim=1).indices.numpy()
        for row, prediction in zip(masked, classes, strict=True):
            confusion += confusion_matrix(read_square_truth(chosen[row], count), prediction, count)
    return _figures(torch.cat(rows), torch.tensor(labels), networks, confusion)


def _figures(probabilities: Tensor, labels: Tensor, networks: Networks, confusion: np.ndarray[Any, Any]) -> Figures:
    known = labels >= 0
    right = (allowed_classes(probabilities, networks.thresholds, networks.floor).long() == labels)[known]
    scores = segmentation_scores(confusion)
    pixels = int(confusion.sum())
    occurs = bool((labels == 1).any())
    return Figures(
        patches=len(labels),
        labels=int(known.sum()),
        label_accuracy=float(right.float().mean()) if len(right) else None,
        mean_average_precision=float(average_precision(probabilities, labels)) if occurs else None,
        pixels=pixels,
        pixel_accuracy=scores.pixel_accuracy if pixels else None,
        mean_iou=scores.mean_iou if pixels else None,
        class_iou=[None if np.isnan(v) else float(v) for v in scores.class_iou],
    )


def told(name: str, before: Figures, after: Figures) -> list[str]:
    """Lines for people: each figure before and after."""
    lines = []
    for field, text in (
        ("label_accuracy", f"of {after.labels} labels right"),
        ("mean_average_precision", "mean average precision of the classifier"),
        ("pixel_accuracy", f"of {after.pixels} pixels right"),
        ("mean_iou", "mean IoU"),
    ):
        one, other = getattr(before, field), getattr(after, field)
        if one is not None and other is not None:
            lines.append(f"{name}: {text} {one:.3f} before, {other:.3f} after ({other - one:+.3f})")
    return lines


def _normalised(pixels: Tensor, config: NetworkConfig, device: torch.device) -> Tensor:
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (config.mean, config.std))
    return normalise(pixels.to(device), mean, std)
