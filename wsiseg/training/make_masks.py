"""From a trained classifier: pseudo masks on disk, probabilities of patches, and the gate's thresholds.

Patches are read ahead and masks are written behind, so that the network does not wait for the disk. The unit that a
killed run is resumed by is the batch: a network's rounding may depend on what a patch shares its batch with, so a
batch of which a mask is missing is computed as a whole, and every file is what an uninterrupted run makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor

from wsiseg.choices import half
from wsiseg.datasets.dataset import Patch, PatchDataset
from wsiseg.datasets.patch import UNKNOWN
from wsiseg.datasets.sizes import read_square
from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.tissue_model import normalise
from wsiseg.system.threads import read_ahead
from wsiseg.training.background_io import WriteBehind
from wsiseg.training.config import GateConfig, NetworkConfig, PseudoMaskConfig, TrainingConfig
from wsiseg.training.loading import PatchImages, plain_loader, pseudo_mask_name, read_pseudo_mask
from wsiseg.training.mask_files import class_counts, finished_counts, made_of, prepare_folder, write_mask
from wsiseg.training.pseudo_masks import PseudoMaskOptions, decided_by_label, maps_needed, pseudo_masks

Content = TypeVar("Content")

_BATCH = 32
_READERS, _AHEAD = 2, 3  # threads, and batches that are under way or wait
_COMPARED_PATCHES = 8
_SEEN = 0.5
"""Probability from which on a class of which nobody said anything counts as present."""


@dataclass(frozen=True, slots=True)
class WrittenMasks:
    """The outcome of `write_masks`.

    Attributes:
        class_shares: share (K,) of each class among the pixels that are not background, at the deepest depth.
        computed: patches whose masks were written.
        kept: patches whose masks were there.
        differing: share of pixels, over all depths, that float32 would have set otherwise, measured on the first
            patches that need the network; None at float32 and where there was nothing to measure.
    """

    class_shares: npt.NDArray[np.float64]
    computed: int
    kept: int
    differing: float | None

    @property
    def notes(self) -> list[str]:
        """Notes for the user."""
        notes = []
        if self.kept:
            notes.append(f"Pseudo masks of {self.kept} patches were there, {self.computed} were made")
        if self.differing is not None:
            notes.append(f"In bfloat16 {self.differing:.2%} of mask pixels differ from float32, on the first patches")
        return notes


def write_masks(
    classifier: Classifier,
    data: PatchDataset,
    config: TrainingConfig,
    folder: Path,
    device: torch.device,
    progress: bool,
) -> WrittenMasks:
    """Write the pseudo masks of all training patches to `folder/PM_<depth>`, palette PNGs under the patches' names.

    Masks that an earlier call wrote are kept where classifier, data set and options are the same, else removed.

    Args:
        classifier: stage 1, on `device`, in evaluation mode.
        data: its training patches; its classes' colours make the palette, value K is background.
        config: of the training.
        folder: of the pseudo masks.
        device: what computes.
        progress: show progress.

    Raises:
        DatasetError: a patch cannot be read.
        OutputError: a mask cannot be written.
    """
    num_classes, patches = len(data.classes), with_labels(data.train, classifier, config, device)
    prepare_folder(folder, made_of(classifier, data, config), classifier.depths, patches)
    paths = [[folder / f"PM_{depth}" / pseudo_mask_name(patch) for depth in classifier.depths] for patch in patches]
    palette = [value for entry in data.classes for value in entry.color] + [255, 255, 255]
    batches = _batches(patches, num_classes, config.pseudo_masks)
    counts = dict(_finished(batches, paths, data.patch_size_px, num_classes))
    kept, differing = len(counts), None
    open_batches = [batch for batch in batches if any(index not in counts for index in batch)]
    with (
        closing(_read_of_batches(open_batches, lambda index: read_square(patches[index]))) as reading,
        WriteBehind() as writer,
    ):
        for batch, images in track(
            reading, "Pseudo masks", total=len(open_batches), disable=not progress, transient=True
        ):
            pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
            labels = _labels([patches[index] for index in batch], num_classes)
            masks = _computed(classifier, pixels, labels, config, device)
            if differing is None:
                differing = _differing(classifier, pixels, labels, masks, config, device)
            for row, index in enumerate(batch):
                if index not in counts:
                    for mask, path in zip(masks, paths[index], strict=True):
                        writer.submit(write_mask, path, mask[row], palette)
                    counts[index] = class_counts(masks[-1][row], num_classes)
    total = sum(counts.values(), np.zeros(num_classes + 1, dtype=np.int64))
    return WrittenMasks(_shares(total), len(patches) - kept, kept, differing)


def with_labels(
    patches: Sequence[Patch], classifier: Classifier, config: TrainingConfig, device: torch.device
) -> Sequence[Patch]:
    """Patches whose unknown labels are the classifier's, as pseudo masks need a whole one; the same where none is."""
    unknown = [index for index, patch in enumerate(patches) if UNKNOWN in patch.label]
    if not unknown:
        return patches
    count = len(patches[unknown[0]].label)
    images = PatchImages([patches[index] for index in unknown], count)
    seen = (classify_patches(classifier, images, config, device) >= _SEEN).int().tolist()
    found = list(patches)
    for index, guess in zip(unknown, seen, strict=True):
        own = patches[index].label
        label = tuple(g if value == UNKNOWN else value for value, g in zip(own, guess, strict=True))
        found[index] = replace(patches[index], label=label)
    return found


def mask_options(config: PseudoMaskConfig) -> PseudoMaskOptions:
    """The part of a configuration that says how activation maps become masks."""
    return PseudoMaskOptions(**config.model_dump(exclude={"precision", "batch_size"}))


def _batches(patches: Sequence[Patch], num_classes: int, config: PseudoMaskConfig) -> list[list[int]]:
    """Indices of patches in batches: patches that need equally many backward passes together, so that none idles."""
    present, options = _labels(patches, num_classes) > 0, mask_options(config)
    passes = maps_needed(present, options).sum(dim=1).masked_fill(decided_by_label(present, options), 0)
    order: list[int] = torch.argsort(passes, stable=True).tolist()
    return [order[i : i + config.batch_size] for i in range(0, len(order), config.batch_size)]


def _read_of_batches(
    batches: Iterable[Sequence[int]], read: Callable[[int], Content]
) -> Generator[tuple[Sequence[int], list[Content]], None, None]:
    """Batches of indices and what `read` makes of each index, a few batches ahead."""
    return read_ahead(batches, lambda batch: [read(index) for index in batch], workers=_READERS, ahead=_AHEAD)


def _finished(
    batches: Sequence[Sequence[int]], paths: Sequence[Sequence[Path]], side_px: int, num_classes: int
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Index and `class_counts` of each patch whose masks are all there."""
    for batch, found in _read_of_batches(batches, lambda i: finished_counts(paths[i], side_px, num_classes)):
        yield from ((index, counts) for index, counts in zip(batch, found, strict=True) if counts is not None)


def _computed(
    classifier: Classifier, pixels: Tensor, labels: Tensor, config: TrainingConfig, device: torch.device
) -> list[npt.NDArray[np.uint8]]:
    """Masks (N, H, W) of a batch at each depth."""
    images = _normalised(pixels, config.classifier, device)
    options, precision = mask_options(config.pseudo_masks), config.pseudo_masks.precision
    masks = pseudo_masks(classifier, images, pixels, labels, options, precision)
    return [mask.cpu().numpy() for mask in masks.values()]


def _differing(
    classifier: Classifier,
    pixels: Tensor,
    labels: Tensor,
    masks: Sequence[npt.NDArray[np.uint8]],
    config: TrainingConfig,
    device: torch.device,
) -> float | None:
    """Share of pixels that float32 sets otherwise, on the first patches of a batch that need the network; or None."""
    needing = ~decided_by_label(labels > 0, mask_options(config.pseudo_masks))
    rows = needing.nonzero().flatten()[:_COMPARED_PATCHES]
    if not half(config.pseudo_masks.precision) or not len(rows):
        return None
    exact = _computed(
        classifier, pixels[rows], labels[rows], config.changed(pseudo_masks={"precision": "float32"}), device
    )
    return float(np.mean([mask[rows.numpy()] != other for mask, other in zip(masks, exact, strict=True)]))


def _labels(patches: Sequence[Patch], num_classes: int) -> Tensor:
    """Labels (N, K) of patches; zeros where none is known."""
    return torch.tensor([patch.label or (0,) * num_classes for patch in patches]).reshape(-1, num_classes)


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
    # Those with the class alone count, so that a label that is not known is none.
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
    """Share (K,) of each class among the pixels of the pseudo masks of one depth that are not background."""
    total = np.zeros(num_classes + 1, dtype=np.int64)
    for patch in patches:
        total += class_counts(read_pseudo_mask(folder / pseudo_mask_name(patch)), num_classes)
    return _shares(total)


def _shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Shares (K,) of the classes without background, from pixel counts (K + 1,)."""
    shares: npt.NDArray[np.float64] = counts[:-1] / max(1, int(counts[:-1].sum()))
    return shares


def _normalised(pixels: Tensor, config: NetworkConfig, device: torch.device) -> Tensor:
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (config.mean, config.std))
    return normalise(pixels.to(device), mean, std)
