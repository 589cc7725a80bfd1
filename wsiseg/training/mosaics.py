"""Mosaics of patches that hold a single class: borders between classes whose masks are exact.

Activation maps say roughly where a class is. Where a patch has one class, all of its tissue is that class, and a canvas
of four such pieces has true borders. The idea is that of PistoSeg (Fang et al. 2023) and HisynSeg (2024); the code is
not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wsiseg.datasets.patch import Patch
from wsiseg.errors import OptionError
from wsiseg.training.loading import Batch, PatchImages

NEAREST, FARTHEST = 0.2, 0.8
"""Shares of a side between which the point lies where the four pieces of a mosaic meet."""


class MosaicMaker:
    """Puts mosaics in the place of some patches of each batch of stage 2.

    Args:
        images: the training patches, with pseudo masks.
        share: of each batch, 0 to 1, rounded.

    Raises:
        OptionError: fewer than two classes have patches that hold nothing else.
    """

    def __init__(self, images: PatchImages, share: float) -> None:
        self.images, self.share = images, share
        self.single = single_class_patches(images.patches, images.num_classes)
        if sum(bool(indices) for indices in self.single) < 2:
            found = ", ".join(str(len(indices)) for indices in self.single)
            raise OptionError(
                "mosaics are made of patches that hold a single class, of two classes at least; the classes have "
                f"{found} such patches: leave out supervision.mosaics"
            )

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with mosaics in its last rows.

        Args:
            batch: "pixels" (N, 3, P, P) and "masks" (N, L, P, P), both uint8; the rest is left as it is.
            generator: of everything random.
        """
        count = round(self.share * len(batch["pixels"]))
        if not count:
            return batch
        pixels, masks = batch["pixels"].clone(), batch["masks"].clone()
        for row in range(len(pixels) - count, len(pixels)):
            self._fill(pixels[row], masks[row], generator)
        return {**batch, "pixels": pixels, "masks": masks}

    def _fill(self, pixels: Tensor, masks: Tensor, generator: torch.Generator) -> None:
        """Draw one mosaic over a patch (3, P, P) and its masks (L, P, P)."""
        side = pixels.shape[-1]
        low, high = round(NEAREST * side), round(FARTHEST * side)
        y, x = (low + _drawn(high - low + 1, generator) for _ in range(2))
        classes = [indices for indices in self.single if indices]
        for rows in (slice(0, y), slice(y, side)):
            for columns in (slice(0, x), slice(x, side)):
                indices = classes[_drawn(len(classes), generator)]
                item = self.images[indices[_drawn(len(indices), generator)]]
                height, width = rows.stop - rows.start, columns.stop - columns.start
                top, left = _drawn(side - height + 1, generator), _drawn(side - width + 1, generator)
                taken = (slice(None), slice(top, top + height), slice(left, left + width))
                pixels[:, rows, columns] = item["pixels"][taken].to(pixels.device)
                masks[:, rows, columns] = item["masks"][taken].to(masks.device)


def single_class_patches(patches: Sequence[Patch], num_classes: int) -> list[list[int]]:
    """Indices of the patches of each class that are known to hold it and nothing else."""
    return [
        [i for i, patch in enumerate(patches) if patch.label and patch.label == only]
        for only in (tuple(int(k == one) for k in range(num_classes)) for one in range(num_classes))
    ]


def _drawn(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))
