"""Patches as batches: kept in memory as uint8 where they fit, in an order that a seed and an epoch decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from wsiseg.errors import DatasetError
from wsiseg.training.patches import Patch, read_image

CACHE_BYTES = 8 * 2**30
"""Patches that need more than this are read from disk in every epoch."""

Batch = dict[str, Tensor]


class PatchImages(Dataset[Batch]):
    """Patches with their labels and, where given, one pseudo mask for each depth.

    An item holds "pixels" (3, P, P) uint8, "label" (K,) float32, "index" and, with masks, "masks" (L, P, P) uint8.

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
            "pixels": torch.from_numpy(read_image(patch.path)).permute(2, 0, 1).contiguous(),
            "label": torch.tensor(patch.label or (0,) * self.num_classes, dtype=torch.float32),
            "index": torch.tensor(index),
        }
        if self.mask_folders:
            masks = [read_pseudo_mask(folder / pseudo_mask_name(patch)) for folder in self.mask_folders]
            item["masks"] = torch.from_numpy(np.stack(masks))
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
    """All indices once, in an order that seed and epoch alone decide, so that a resumed run goes on as it was."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return iter(order.tolist())


def train_loader(images: PatchImages, batch_size: int, seed: int) -> DataLoader[Batch]:
    """Batches of an epoch; an incomplete last one is dropped, unless it is the only one."""
    return DataLoader(
        images,
        batch_size=batch_size,
        sampler=EpochSampler(len(images), seed),
        drop_last=len(images) >= batch_size,
    )


def plain_loader(images: PatchImages, batch_size: int) -> DataLoader[Batch]:
    """All patches in order."""
    return DataLoader(images, batch_size=batch_size, shuffle=False)
