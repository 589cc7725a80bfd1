"""From a trained classifier: pseudo masks on disk, probabilities of patches, and the gate's thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from wsiseg.classes import ClassTable
from wsiseg.models.bundle import normalise
from wsiseg.models.classifier import Classifier
from wsiseg.training.config import GateConfig, NetworkConfig, TrainingConfig
from wsiseg.training.loading import PatchImages, plain_loader, pseudo_mask_name, read_pseudo_mask
from wsiseg.training.patches import Patch
from wsiseg.training.pseudo_masks import PseudoMaskOptions, pseudo_masks

_BATCH = 32


def write_masks(
    classifier: Classifier,
    images: PatchImages,
    classes: ClassTable,
    config: TrainingConfig,
    folder: Path,
    device: torch.device,
    progress: bool,
) -> None:
    """Write the pseudo masks of all patches to `folder/PM_<depth>`, palette PNGs under the patches' names.

    Args:
        classifier: stage 1, on `device`, in evaluation mode.
        images: the training patches.
        classes: for the palette; value K is background.
        config: of the training.
        folder: of the pseudo masks.
        device: what computes.
        progress: show progress.
    """
    options = PseudoMaskOptions(**config.pseudo_masks.model_dump())
    palette = [value for entry in classes for value in entry.color] + [255, 255, 255]
    batches = plain_loader(images, _BATCH)
    for batch in track(batches, "Pseudo masks", total=len(batches), disable=not progress, transient=True):
        pixels = batch["pixels"]
        masks = pseudo_masks(
            classifier, _normalised(pixels, config.classifier, device), pixels, batch["label"], options
        )
        for depth, values in masks.items():
            for index, mask in zip(batch["index"].tolist(), values.cpu().numpy(), strict=True):
                path = folder / f"PM_{depth}" / pseudo_mask_name(images.patches[index])
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(mask, mode="P")
                picture.putpalette(palette)
                picture.save(path)


@torch.inference_mode()
def classify_patches(
    classifier: Classifier, images: PatchImages, config: TrainingConfig, device: torch.device
) -> Tensor:
    """Probabilities (N, K), float32 on the CPU, of the classes in each patch."""
    rows = [
        torch.sigmoid(classifier(_normalised(batch["pixels"], config.classifier, device)).float()).cpu()
        for batch in plain_loader(images, _BATCH)
    ]
    return torch.cat(rows) if rows else torch.zeros(0, images.num_classes)


def gate_thresholds(probabilities: Tensor, patches: Sequence[Patch], config: GateConfig) -> list[float]:
    """The gate's threshold of each class; see `GateConfig`. Empty where there is no labelled patch.

    Args:
        probabilities: of validation patches, (N, K).
        patches: those patches.
        config: how to choose.
    """
    labels = torch.tensor([patch.label for patch in patches if patch.label])
    if not len(labels) or len(labels) != len(probabilities):
        return []
    chosen = []
    for k in range(probabilities.shape[1]):
        present = np.sort(probabilities[labels[:, k] > 0, k].numpy().astype(np.float32))
        if config.recall is None or not len(present):
            chosen.append(config.threshold)
            continue
        lost = int((1 - config.recall) * len(present) + 1e-9)
        # A class must exceed its threshold: so it is the number before the lowest probability that is to pass.
        passing = float(np.nextafter(present[lost], np.float32(0)))
        chosen.append(min(config.threshold, passing))
    return chosen


def class_shares(folder: Path, patches: Sequence[Patch], num_classes: int) -> npt.NDArray[np.float64]:
    """Share (K,) of each class among the pixels of the pseudo masks of one depth that are no background."""
    counts = np.zeros(num_classes + 1, dtype=np.int64)
    for patch in patches:
        mask = read_pseudo_mask(folder / pseudo_mask_name(patch))
        counts += np.bincount(mask.ravel(), minlength=num_classes + 1)[: num_classes + 1]
    shares: npt.NDArray[np.float64] = counts[:num_classes] / max(1, int(counts[:num_classes].sum()))
    return shares


def _normalised(pixels: Tensor, config: NetworkConfig, device: torch.device) -> Tensor:
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (config.mean, config.std))
    return normalise(pixels.to(device), mean, std)
