"""Patches as batches: kept in memory as uint8 where they fit, in an order that a seed and an epoch decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from wsiseg.datasets.dataset import Patch
from wsiseg.datasets.sizes import read_square, read_square_truth
from wsiseg.errors import DatasetError

CACHE_BYTES = 8 * 2**30
"""Patches that need more than this are read from disk in every epoch."""

Batch = dict[str, Tensor]


class PatchImages(Dataset[Batch]):
    """Patches with their labels and, where given, one pseudo mask for each depth.

    An item holds "pixels" (3, P, P) uint8, "label" (K,) float32 (-1 where it is unknown), "index" and, with masks,
    "masks" (L, P, P) uint8.

    Args:
        patches: in the order of their indices.
        num_classes: K; a patch without label (known by its mask alone) gets zeros.
        mask_folders: where the pseudo masks of each depth lie, under the patches' names with the suffix .png.
    """

    def __init__(self, patches: Sequence[Patch], num_classes: int, mask_folders: Sequence[Path] = ()) -> None:
        self.patches = list(patches)
        self.num_classes = num_classes
        self.mask_folders = list(mask_folders)
        self._cache: dict[int, Batch] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> Batch:
        if index in self._cache:
            return self._cache[index]
        patch = self.patches[index]
        item = {
            "pixels": torch.from_numpy(read_square(patch)).permute(2, 0, 1).contiguous(),
            "label": torch.tensor(patch.label or (0,) * self.num_classes, dtype=torch.float32),
            "index": torch.tensor(index),
        }
        if self.mask_folders:
            masks = np.stack([read_pseudo_mask(folder / pseudo_mask_name(patch)) for folder in self.mask_folders])
            if patch.corrected and patch.mask is not None:  # what a person said of pixels wins, at every depth
                truth = read_square_truth(patch, self.num_classes)
                masks = np.where(truth < self.num_classes, truth, masks)
            item["masks"] = torch.from_numpy(masks)
        size = sum(tensor.nbytes for tensor in item.values())
        if self._cached_bytes + size <= CACHE_BYTES:
            self._cache[index] = item
            self._cached_bytes += size
        return item


def pseudo_mask_name(patch: Patch) -> str:
    """Where the pseudo mask of a patch lies below the folder of its depth."""
    return Path(patch.name).with_suffix(".png").as_posix()


def read_pseudo_mask(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A pseudo mask (P, P), uint8, as `--stage masks` wrote it."""
    try:
        with Image.open(path) as image:
            return np.array(image, dtype=np.uint8)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read, make the pseudo masks again with --stage masks") from error


class EpochSampler(Sampler[int]):
    """Indices in an order that seed and epoch alone decide, so that a resumed run continues unchanged.

    Several processes share an epoch out among them, each as many; what is left over is left out, other indices in
    every epoch.

    Args:
        count: of the indices.
        seed: of the order.
        weights: where given, `count` indices are drawn with replacement, in proportion to these; else all come once.
        processes: how many train in step.
        corrected: which indices are corrections, (N,); where given, every second index is one, whatever their number.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        weights: npt.NDArray[np.float64] | None = None,
        processes: int = 1,
        corrected: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.count, self.seed, self.epoch, self.processes = count, seed, 0, processes
        self.shares = None if weights is None else weights / weights.sum()
        self.corrected = corrected if corrected is not None and 0 < corrected.sum() < len(corrected) else None

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.count // self.processes)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.corrected is not None:
            order = self._halves(generator, self.corrected)
        elif self.shares is None:
            order = generator.permutation(self.count)
        else:
            order = generator.choice(self.count, self.count, p=self.shares)
        rank = torch.distributed.get_rank() if self.processes > 1 and torch.distributed.is_initialized() else 0
        return iter(np.resize(order, max(self.count, self.processes))[rank :: self.processes][: len(self)].tolist())

    def _halves(self, generator: np.random.Generator, corrected: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """`count` indices, old and corrected ones by turns; those of the smaller half come several times."""
        order = np.empty(self.count, np.int64)
        for start, chosen in ((0, np.flatnonzero(~corrected)), (1, np.flatnonzero(corrected))):
            wanted = len(order[start::2])
            if self.shares is None:
                passes = [generator.permutation(chosen) for _ in range(-(-wanted // len(chosen)))]
                order[start::2] = np.concatenate(passes)[:wanted]
            else:
                shares = self.shares[chosen]
                order[start::2] = generator.choice(chosen, wanted, p=shares / shares.sum())
        return order


def train_loader(
    images: PatchImages,
    batch_size: int,
    seed: int,
    weights: npt.NDArray[np.float64] | None = None,
    processes: int = 1,
    drop_incomplete: bool = True,
    corrected: npt.NDArray[np.bool_] | None = None,
) -> DataLoader[Batch]:
    """Batches of an epoch, of each process; an incomplete last one may be dropped, unless it is the only one."""
    sampler = EpochSampler(len(images), seed, weights, processes, corrected)
    return DataLoader(
        images, batch_size=batch_size, sampler=sampler, drop_last=drop_incomplete and len(sampler) >= batch_size
    )


def patch_weights(labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How often each patch is drawn (N,): by the inverse frequency of its rarest class; the median where it has none.

    Args:
        labels: 0, 1 or -1 (unknown), (N, K).
    """
    labels = np.maximum(labels, 0)
    inverse = len(labels) / np.maximum(labels.sum(axis=0), 1)
    weights: npt.NDArray[np.float64] = (labels * inverse).max(axis=1)
    labelled = weights > 0
    weights[~labelled] = np.median(weights[labelled]) if labelled.any() else 1.0
    return weights


def positive_weights(labels: npt.NDArray[np.float64]) -> Tensor:
    """Patches without a class for one with it, (K,), from 0.1 to 10: `pos_weight` of the cross-entropy."""
    present, absent = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    return torch.tensor(np.clip(absent / np.maximum(present, 1), 0.1, 10), dtype=torch.float32)


def plain_loader(images: PatchImages, batch_size: int) -> DataLoader[Batch]:
    """A loader of all patches, in order and each once."""
    return DataLoader(images, batch_size=batch_size, shuffle=False)
