"""Features of a frozen encoder, computed once and kept on the disk, instead of in every epoch.

A frozen encoder says the same of the same pixels. So stage 1 and stage 2 can learn from what it said:

    patches ──▶ V augmented views of each ──▶ encoder ──▶ maps, float16 ──▶ DIR/train/*.npy   (V * patches rows)
                with their pseudo masks  ────────────────────────────────▶ DIR/train/masks.npy
    validation patches, as they are ────────▶ encoder ──▶ maps, float16 ──▶ DIR/val/*.npy

A step then takes, for each of its patches, one of its V views at random, and gives the network `EncoderMaps` in place
of images. Row v * P + p is view v of patch p, of P; maps that the decoder does not use are left out.

**What differs** from computing: an augmentation is drawn V times a patch instead of once an epoch, and features have 16
bits. Without a cache nothing changes.

It is bounded: where the rows would take more than is allowed, or than the disk has, nothing is written and the encoder
is computed in every epoch. It is resumable: rows are appended in order, each block's random numbers depend on seed,
view and block alone, and rows of another encoder, augmentation, data set or masks are removed. A finished stage removes
its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Generator, Tensor, nn

from wsiseg.errors import OptionError
from wsiseg.models.networks.encoder_maps import EncoderMaps
from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter
from wsiseg.models.weights.tensor_files import tensors_sha256
from wsiseg.system.json_values import JsonObject
from wsiseg.training.augment import Augmentation
from wsiseg.training.feature_files import FeatureFiles, Layer
from wsiseg.training.loading import PatchImages

BLOCK = 32
"""Patches that the encoder sees at once. It decides which random numbers each view gets."""

_FORMAT = 1
_MASKS = "masks"
_LEFT_FREE = 0.05
"""Share of a disk's free space that is not taken."""


class StageFeatures:
    """What a stage learns from, and is validated on, in place of pixels.

    Args:
        train: rows of the training patches' views.
        val: rows of the validation patches; None where there are none.
        patches: number of training patches.
        maps: how many the encoder gives; those without a layer are not used.
        side_px: of the patches.
    """

    def __init__(self, train: FeatureFiles, val: FeatureFiles | None, patches: int, maps: int, side_px: int) -> None:
        self.train, self.val = train, val
        self.patches, self.maps, self.side_px = patches, maps, side_px

    def training(self, index: Tensor, generator: Generator, device: torch.device) -> tuple[EncoderMaps, Tensor | None]:
        """Maps and masks (N, L, P, P) of patches (N,), each of a view that `generator` draws."""
        views = torch.randint(self.train.rows // self.patches, (len(index),), generator=generator)
        rows = (views * self.patches + index.cpu()).numpy()
        masks = None
        if any(layer.name == _MASKS for layer in self.train.layers):
            masks = torch.from_numpy(self.train.read(_MASKS, rows)).to(device)
        return self._maps(self.train, rows, device), masks

    def validation(self, index: Tensor, device: torch.device) -> EncoderMaps:
        """Maps of validation patches (N,), as they are."""
        assert self.val is not None
        return self._maps(self.val, index.cpu().numpy(), device)

    def _maps(self, files: FeatureFiles, rows: npt.NDArray[np.int64], device: torch.device) -> EncoderMaps:
        kept = {layer.name for layer in files.layers}
        maps = []
        for number in range(self.maps):
            name = _name(number)
            values = torch.from_numpy(files.read(name, rows)) if name in kept else torch.empty(0)
            maps.append(values.to(device).float().contiguous(memory_format=_memory_format(values)))
        return EncoderMaps(tuple(maps), torch.Size((len(rows), 3, self.side_px, self.side_px)))

    def remove(self) -> None:
        """Remove the files."""
        for files in (self.train, self.val):
            if files is not None:
                files.remove()


def _memory_format(values: Tensor) -> torch.memory_format:
    return torch.channels_last if values.ndim == 4 else torch.contiguous_format


def _name(number: int) -> str:
    return f"map{number}"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How patches become maps.

    Attributes:
        network: with the frozen encoder.
        augmentation: of training patches.
        mean: of normalisation, (3, 1, 1).
        std: likewise.
        seed: of everything random.
        views: of each training patch.
        device: what computes.
    """

    network: LiteClassifier | LiteSegmenter
    augmentation: Augmentation
    mean: Tensor
    std: Tensor
    seed: int
    views: int
    device: torch.device

    def facts(self, patches: PatchImages, about: JsonObject) -> JsonObject:
        """What decides the values of the rows."""
        return {
            "format": _FORMAT,
            "encoder": tensors_sha256(self.network.extractor.state_dict()),
            "augmentation": self.augmentation.config.model_dump(mode="json"),
            "normalisation": [self.mean.flatten().tolist(), self.std.flatten().tolist()],
            "seed": self.seed,
            "block": BLOCK,
            "patches": [patch.name for patch in patches.patches],
            **about,
        }

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """All maps of images (N, 3, H, W) in [0, 1]."""
        seen = ((images - self.mean.cpu()) / self.std.cpu()).to(self.device)
        return list(self.network.encoded(seen.contiguous(memory_format=torch.channels_last)))


def prepared(
    encoding: Encoding,
    train: PatchImages,
    val: PatchImages | None,
    folder: Path,
    limit_bytes: int,
    about: JsonObject,
    progress: bool,
) -> StageFeatures | str:
    """The features of a stage's patches, computed as far as they are not there.

    Args:
        encoding: how.
        train: training patches, with pseudo masks where the stage has such.
        val: validation patches; None for none.
        folder: of the files, in the training's folder.
        limit_bytes: that they may take.
        about: what else decides them: the data set's hash, and that of what the pseudo masks were made of.
        progress: show it.

    Returns:
        The features; or, where they would take too much, what to tell the user.

    Raises:
        OptionError: the encoder's values do not fit into 16 bits.
        OSError: the disk is full.
    """
    network, training = encoding.network, encoding.network.training
    network.to(encoding.device).eval()
    try:
        layers, count, side = _layers(encoding, train)
        masks = [Layer(_MASKS, tuple(train[0]["masks"].shape), "u1")] if "masks" in train[0] else []
        found = StageFeatures(
            FeatureFiles(folder / "train", [*layers, *masks], len(train) * encoding.views),
            FeatureFiles(folder / "val", layers, len(val)) if val is not None else None,
            *(len(train), count, side),
        )
        too_much = _too_much(found, folder, limit_bytes, encoding.views)
        if too_much:
            return too_much
        _fill(found.train, encoding, train, encoding.facts(train, about), encoding.views, progress)
        if found.val is not None and val is not None:
            _fill(found.val, encoding, val, encoding.facts(val, about), 0, progress)
    finally:
        network.train(training)
    return found


def _too_much(features: StageFeatures, folder: Path, limit_bytes: int, views: int) -> str:
    wanted = features.train.total_bytes + (features.val.total_bytes if features.val is not None else 0)
    there = next(parent for parent in folder.parents if parent.is_dir())
    held = sum(path.stat().st_size for path in folder.rglob("*.npy")) if folder.is_dir() else 0
    free = int(shutil.disk_usage(there).free * (1 - _LEFT_FREE)) + held
    if wanted <= min(limit_bytes, free):
        return ""
    bound = (
        f"--feature-cache allows {_size(limit_bytes)}" if limit_bytes <= free else f"the disk has {_size(free)} left"
    )
    return (
        f"features of {views} views of each patch take {_size(wanted)}, {bound}: the encoder is computed in every epoch"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{ceil(count / 2**20)} MiB"


def _layers(encoding: Encoding, patches: PatchImages) -> tuple[list[Layer], int, int]:
    """The maps that are kept, how many there are in all, and the side of the patches."""
    pixels = patches[0]["pixels"][None].float() / 255
    maps = encoding.maps(pixels)
    used = encoding.network.uses(maps, pixels.shape)
    layers = [Layer(_name(number), tuple(values.shape[1:]), "f2") for number, values in enumerate(maps) if used[number]]
    return layers, len(maps), pixels.shape[-1]


def _fill(
    files: FeatureFiles, encoding: Encoding, patches: PatchImages, facts: JsonObject, views: int, progress: bool
) -> None:
    """Append the rows that are missing: of so many augmented views, or of the patches as they are with 0."""
    count = len(patches)
    blocks = [(view, start) for view in range(max(1, views)) for start in range(0, count, BLOCK)]
    ends = [view * count + min(start + BLOCK, count) for view, start in blocks]
    done = int(np.searchsorted(ends, files.begin({**facts, "views": views}), "right"))
    files.cut(ends[done - 1] if done else 0)
    hidden = not progress or done == len(blocks)
    for view, start in track(blocks[done:], "Features of the encoder", disable=hidden, transient=True):
        items = [patches[index] for index in range(start, min(start + BLOCK, count))]
        files.append(_rows(encoding, files.layers, items, view if views else None, start))


def _rows(
    encoding: Encoding, layers: Sequence[Layer], items: Sequence[dict[str, Tensor]], view: int | None, start: int
) -> dict[str, npt.NDArray[Any]]:
    images = torch.stack([item["pixels"] for item in items]).float() / 255
    masks = torch.stack([item["masks"] for item in items]) if "masks" in items[0] else None
    if view is not None:
        generator = Generator().manual_seed((encoding.seed * 1_000_003 + view) * 1_000_003 + start)
        images, masks = encoding.augmentation(images, masks, generator)
    maps = encoding.maps(images)
    values: dict[str, npt.NDArray[Any]] = {}
    for layer in layers:
        if layer.name == _MASKS:
            assert masks is not None
            values[layer.name] = masks.numpy()
            continue
        halved = maps[int(layer.name.removeprefix("map"))].half()
        if not bool(torch.isfinite(halved).all()):
            raise OptionError("this encoder's features do not fit into 16 bits: train without --feature-cache")
        values[layer.name] = halved.cpu().numpy()
    return values


def is_lite(network: nn.Module) -> bool:
    """Whether a network takes maps in place of images."""
    return isinstance(network, LiteClassifier | LiteSegmenter)
