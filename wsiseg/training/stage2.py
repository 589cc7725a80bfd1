"""Stage 2: a segmenter learns from the pseudo masks of three depths."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wsiseg.datasets.dataset import Patch
from wsiseg.datasets.sizes import read_square_truth
from wsiseg.metrics import confusion_matrix, segmentation_scores
from wsiseg.models.gate import allowed_classes, gate_logits
from wsiseg.models.networks.architectures import ARCHITECTURES
from wsiseg.training.config import TrainingConfig
from wsiseg.training.epochs import ClassFigures
from wsiseg.training.loading import Batch, PatchImages
from wsiseg.training.losses import SupervisionOptions, multilayer_loss
from wsiseg.training.mosaics import MosaicMaker
from wsiseg.training.stage import Stage
from wsiseg.training.stage1 import average_precision, class_precisions

_OF_MOSAICS = 7919


class SegmenterStage(Stage):
    """Multi-layer pseudo-supervision (Han et al. 2022, 3.3).

    Args:
        network: the segmenter.
        config: of the training.
        class_shares: share of each class among the pixels of the pseudo masks, (K,).
        validation: the validation patches, in the order of the validation batches' indices.
        probabilities: of the classes in each of them, by the classifier, (N, K).
        thresholds: of the gate, (K,).
        names: of the classes, for figures of each; none for no such figures.
        images: the training patches with their pseudo masks, of which mosaics are made.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainingConfig,
        class_shares: npt.NDArray[np.float64],
        validation: list[Patch],
        probabilities: Tensor,
        thresholds: Tensor,
        names: Sequence[str] = (),
        images: PatchImages | None = None,
    ) -> None:
        heads = ARCHITECTURES[config.segmenter.architecture].new_layers
        super().__init__(network, config.segmenter, config.stage2, config.augmentation2, heads, config.seed + 1)
        supervision = config.supervision
        self.options = SupervisionOptions(
            supervision.weights, supervision.background_score, supervision.divide_by_batch
        )
        prior = np.log(np.maximum(class_shares, 1e-4)) * supervision.prior_adjustment
        self.register_buffer("prior", torch.tensor(prior, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        weights = torch.ones(len(class_shares) + 1)
        if supervision.class_weights == "inverse_sqrt":
            weights[:-1] = inverse_sqrt_weights(class_shares)
        self.mosaics = MosaicMaker(images, supervision.mosaics) if images is not None and supervision.mosaics else None
        self._weighted = supervision.class_weights != "none"
        self.register_buffer("class_weights", weights, persistent=False)
        self.class_weights: Tensor
        self.validation = validation
        self.allowed: Tensor | None = None
        if len(validation):
            gated = allowed_classes(probabilities, thresholds, config.gate.floor)
            self.allowed = gated if supervision.select_gated else torch.ones_like(gated)
        self._confusion = np.zeros((len(class_shares),) * 2, dtype=np.int64)
        self.names, self.shares = tuple(names), class_shares.tolist()
        self._pixels = np.zeros(len(class_shares), dtype=np.int64)
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    @property
    def _loss_weights(self) -> Tensor | None:
        return self.class_weights if self._weighted else None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch against the masks, the guide (the deepest) first."""
        if self.mosaics is not None:
            batch = self.mosaics(batch, self.generator(batch_idx, _OF_MOSAICS))
        images, masks = self.augmented(batch, batch_idx)
        assert masks is not None
        logits = self.network(images).float() + self.prior
        loss = multilayer_loss(logits, list(masks.unbind(dim=1)), self.options, self._loss_weights)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(images), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Gated, as at prediction: pixels against masks where there are any, else mean probabilities against labels."""
        logits = self.result(self.normalised(batch["pixels"])).float()
        assert self.allowed is not None
        gated = gate_logits(logits, self.allowed.to(logits.device)[batch["index"]])
        classes = gated.max(dim=1).indices.cpu().numpy()
        self._pixels += np.bincount(classes.ravel(), minlength=len(self._pixels))
        if self.validation[0].mask is None:
            self._scores.append(gated.softmax(dim=1).mean(dim=(2, 3)))
            self._labels.append(batch["label"])
            return
        for index, prediction in zip(batch["index"].tolist(), classes, strict=True):
            truth = read_square_truth(self.validation[index], len(self._confusion))
            self._confusion += confusion_matrix(truth, prediction, len(self._confusion))

    def on_validation_epoch_end(self) -> None:
        """Mean IoU against masks, or mean average precision against patch labels; each class, and its pixels."""
        self.found = ClassFigures(self.names) if self.names else None
        if self._scores:
            scores, labels = torch.cat(self._scores), torch.cat(self._labels).long()
            self._scores.clear()
            self._labels.clear()
            self.log("val_map", average_precision(scores, labels), prog_bar=True, sync_dist=True)
            if self.found is not None:
                self.found.figures["val_ap"] = class_precisions(scores, labels)
        else:
            figures = segmentation_scores(self._confusion)
            self._confusion[:] = 0
            self.log("val_miou", figures.mean_iou, prog_bar=True, sync_dist=True)
            if self.found is not None:
                self.found.figures["val_iou"] = [None if isnan(v) else v for v in figures.class_iou.tolist()]
        if self.found is not None:
            occurs = [any(patch.has(k) for patch in self.validation) for k in range(len(self.names))]
            self.found.with_shares((self._pixels / max(1, self._pixels.sum())).tolist(), self.shares, occurs)
            self.log_dict(self.found.logged(), sync_dist=True)
        self._pixels[:] = 0


def inverse_sqrt_weights(shares: npt.NDArray[np.float64]) -> Tensor:
    """Weights (K,) by the inverse square root of the classes' shares (of at least 1e-4), of mean 1 over pixels."""
    roots = 1 / np.sqrt(np.maximum(shares, 1e-4))
    mean = float((roots * shares).sum()) or 1.0
    return torch.tensor(roots / mean, dtype=torch.float32)
