"""Stage 1: a classifier learns from patch labels which tissues occur in a patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_average_precision

from wsiseg.models.networks.architectures import ARCHITECTURES
from wsiseg.models.networks.classifier import Classifier
from wsiseg.training.config import TrainingConfig
from wsiseg.training.epochs import ClassFigures
from wsiseg.training.loading import Batch
from wsiseg.training.stage import Stage


class ClassifierStage(Stage):
    """Multilabel soft-margin loss, with progressive dropout attention from an epoch on (Han et al. 2022, 3.2).

    Args:
        network: the classifier.
        config: of the training.
        positive_weights: of the cross-entropy, (K,); None weighs all alike.
        unknown: whether there are labels of -1, which the loss leaves out.
        names: of the classes, K, for figures of each; none for no such figures.
    """

    def __init__(
        self,
        network: Classifier,
        config: TrainingConfig,
        positive_weights: Tensor | None = None,
        unknown: bool = False,
        names: Sequence[str] = (),
    ) -> None:
        heads = ARCHITECTURES[config.classifier.architecture].new_layers
        super().__init__(network, config.classifier, config.stage1, config.augmentation1, heads, config.seed)
        self.attention = config.attention
        self.register_buffer("positive_weights", positive_weights, persistent=False)
        self.positive_weights: Tensor | None
        self.unknown = unknown
        self.names = tuple(names)
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    @property
    def result(self) -> Classifier:
        """The classifier that is kept."""
        return cast(Classifier, super().result)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        images, _ = self.augmented(batch, batch_idx)
        network = cast(Classifier, self.network)
        deepest = network.features(images)[network.depths[-1]]
        logits = network.head(deepest, self.attention.drop_above(self.current_epoch), self.attention.normalise)
        if self.unknown:
            loss = known_loss(logits.float(), batch["label"], self.positive_weights)
        elif self.positive_weights is None:
            loss = F.multilabel_soft_margin_loss(logits.float(), batch["label"])
        else:
            loss = F.binary_cross_entropy_with_logits(logits.float(), batch["label"], pos_weight=self.positive_weights)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(images), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect probabilities of validation patches."""
        self._scores.append(torch.sigmoid(self.result(self.normalised(batch["pixels"])).float()))
        self._labels.append(batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Average precision of each class, and its mean."""
        scores, labels = torch.cat(self._scores), torch.cat(self._labels).long()
        self._scores.clear()
        self._labels.clear()
        precision = average_precision(scores, labels)
        self.log("val_map", precision, prog_bar=True, sync_dist=True)
        if self.names:
            self.found = ClassFigures(self.names)
            self.found.with_precisions(class_precisions(scores, labels), prevalence(labels))
            self.log_dict(self.found.logged(), sync_dist=True)


def known_loss(logits: Tensor, labels: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (N, K) against labels (N, K), the mean over those that are known: not -1."""
    known = labels >= 0
    losses = F.binary_cross_entropy_with_logits(
        logits, labels.clamp_min(0), pos_weight=positive_weights, reduction="none"
    )
    return losses.where(known, 0).sum() / known.sum().clamp_min(1)


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over the classes that occur of the average precision of scores (N, K) against labels (N, K).

    Labels are 1, 0, or -1 where they are unknown, and then left out.
    """
    each = [precision for precision in _precisions(scores, labels) if precision is not None]
    return torch.stack(each).mean() if each else scores.new_tensor(0.0)


def class_precisions(scores: Tensor, labels: Tensor) -> list[float | None]:
    """Average precision of each class, (K,); None where it does not occur; as `average_precision`."""
    return [None if precision is None else float(precision) for precision in _precisions(scores, labels)]


def prevalence(labels: Tensor) -> list[float]:
    """Share of the patches that have each class, (K,), among those of which it is known; labels (N, K)."""
    known = (labels >= 0).sum(dim=0).clamp_min(1)
    shares: list[float] = ((labels == 1).sum(dim=0) / known).tolist()
    return shares


def _precisions(scores: Tensor, labels: Tensor) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for k in range(labels.shape[1]):
        known = labels[:, k] >= 0
        occurs = bool((labels[:, k] == 1).any())
        found.append(binary_average_precision(scores[known, k], labels[known, k]) if occurs else None)
    return found
