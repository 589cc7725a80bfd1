"""Every gate that is compared, on the same batch: `predict`'s own, none, that of the truth, and flips averaged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from wsiseg.arrays import Float32Array
from wsiseg.choices import GateMode, GateRule
from wsiseg.evaluation.result import FLIPS, TITLES
from wsiseg.models.context import context_tiles
from wsiseg.models.gate import allowed_classes, gate_published
from wsiseg.models.large_tiles import Windows, gate_windows
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gate_field import GateField
from wsiseg.prediction.gated import Gated, batch_tensor, make_gate
from wsiseg.prediction.options import ResolvedOptions
from wsiseg.prediction.piece_reader import PatchBatch
from wsiseg.prediction.plan import Plan


class Limits(NamedTuple):
    """What a gate asks of a class: its threshold, (K,), or the floor; see `wsiseg.models.gate.allowed_classes`."""

    thresholds: Tensor
    floor: float | None = None


class Rule(Protocol):
    """What a gate does to logits."""

    def mean(self, logits: Sequence[Tensor]) -> Tensor:
        """The mean (N, K, T, T) of the logits of several views, turned back."""

    def apply(self, logits: Tensor, presence: Tensor, limits: Limits, windows: Windows) -> Tensor:
        """Probabilities (N, K, T, T) of logits, gated by what is seen in the windows, (N, W, K)."""


class Exclude:
    """A class that may not occur is taken out of its window."""

    def mean(self, logits: Sequence[Tensor]) -> Tensor:
        """See `Rule`; the softmax is averaged, whose logarithm stands for the logits."""
        mean = torch.stack([torch.softmax(view, dim=1) for view in logits]).mean(dim=0)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

    def apply(self, logits: Tensor, presence: Tensor, limits: Limits, windows: Windows) -> Tensor:
        """See `Rule`."""
        allowed = allowed_classes(presence.flatten(0, 1), *limits).view(presence.shape)
        return gate_windows(logits, allowed, windows)


class MultiplyLogits:
    """The published program's rule, of patches alone, where the sign of a logit decides."""

    def mean(self, logits: Sequence[Tensor]) -> Tensor:
        """See `Rule`."""
        return torch.stack(tuple(logits)).mean(dim=0)

    def apply(self, logits: Tensor, presence: Tensor, limits: Limits, windows: Windows) -> Tensor:
        """See `Rule`; the patch is its only window."""
        return torch.softmax(gate_published(logits, presence[:, 0], limits.thresholds), dim=1)


_RULES: dict[GateRule, Rule] = {"exclude": Exclude(), "multiply_logits": MultiplyLogits()}


class JudgedGate(ABC):
    """A model's own gate, which is judged by what is known of the patches; a `Gate` for prediction's stream.

    A batch's `presence` holds what `Known` knows of each patch: the true classes of its windows, and, where the gate
    looks beyond a patch, the views of what it sees in context.

    Args:
        model: ready to compute.
        options: resolved.
        flips: whether the mean of the eight orientations is compared as well.

    Attributes:
        columns: keys of the maps that it gives.
        views: of what it sees.
        tiling: of the patches.
        windows: of a patch.
        context: of the model's own gate.
    """

    columns: tuple[str, ...] = ()
    views = 1
    always_segments = True

    def __init__(self, model: TissueModel, options: ResolvedOptions, flips: bool = False) -> None:
        self.own = make_gate(model, options)
        self.context = self.own.context
        self.tiling = model.spec.tiling(self._mode(options), options.overlap)
        self.windows = self.own.windows(self.tiling.side_px)
        self._device = model.device
        self._classes = len(model.classes)
        self._rule = _RULES[options.gate_rule]

    def _mode(self, options: ResolvedOptions) -> GateMode:
        return options.gate_mode

    @property
    def thresholds(self) -> Tensor:
        """See `Gate`."""
        assert self.own.thresholds is not None
        return self.own.thresholds

    @abstractmethod
    def __call__(self, batch: PatchBatch) -> Gated:
        """See `Gate`."""

    def presence(self, pixels: Tensor) -> Tensor:
        """What it sees in the windows, all views of it one after the other, (N, views * W, K)."""
        return self.own.presence(pixels)

    def presence_and_distance(self, pixels: Tensor) -> tuple[Tensor, Float32Array | None]:
        """See `Gate`; nobody asks for distances."""
        return self.presence(pixels), None

    def field(self, plan: Plan) -> GateField | None:
        """Where the views of all patches of an image are put, if the gate looks beyond a patch."""
        if not self.context:
            return None
        tiles = plan.tiles
        values = np.zeros((tiles.rows, tiles.columns, self.views * self.windows.side**2 * self._classes), np.float32)
        return GateField(values, plan.selected, context_tiles(self.context, tiles))


class LabelGate(JudgedGate):
    """Says what the gate sees, and no more: for patches of which the labels alone are known."""

    def _mode(self, options: ResolvedOptions) -> GateMode:
        return "patches"  # whatever it is: the patch is its only window

    def __call__(self, batch: PatchBatch) -> Gated:
        """See `Gate`; there are no maps."""
        assert batch.presence is not None
        _, *seen = parted(batch.presence, self.windows, self._classes)
        presence = torch.from_numpy(seen[0]) if seen else self.presence(batch_tensor(batch.patches, self._device))
        return Gated((), presence > self.thresholds.to(presence.device), presence)


class ComparedGate(JudgedGate):
    """Beside the gate that `predict` has: none, that of the true classes, and, where asked, the mean of eight views."""

    def __init__(self, model: TissueModel, options: ResolvedOptions, flips: bool = False) -> None:
        super().__init__(model, options, flips)
        self.columns = tuple(key for key in TITLES if flips or key != FLIPS)
        self.views = 2 if flips else 1

    def __call__(self, batch: PatchBatch) -> Gated:
        """See `Gate`."""
        assert batch.presence is not None
        pixels = batch_tensor(batch.patches, self._device)
        truth, *seen = parted(batch.presence, self.windows, self._classes)
        predicted = self.own(replace(batch, presence=seen[0][:, 0] if seen else None))
        views = [torch.from_numpy(view).to(self._device) for view in seen]
        logits, presence = self.own.scored(pixels, views[0] if views else None)
        known = torch.from_numpy(truth > 0).to(self._device)
        maps = {
            "no_gate": torch.softmax(logits, dim=1),
            "predicted_gate": predicted.probabilities[0],
            "oracle_gate": gate_windows(logits, known | ~known.any(dim=2, keepdim=True), self.windows),
        }
        if FLIPS in self.columns:
            maps[FLIPS] = self._averaged(pixels, logits, presence, views[1] if views else None)
        return Gated(tuple(maps[key] for key in self.columns), predicted.opened, presence)

    def _averaged(self, pixels: Tensor, logits: Tensor, presence: Tensor, mean: Tensor | None) -> Tensor:
        """Probabilities by the mean of the eight orientations; `mean` of what the gate sees, where that is known."""
        turned = [(logits, presence), *(self._turned(pixels, index, mean) for index in range(1, 8))]
        if mean is None:
            mean = torch.stack([view for _, view in turned]).mean(dim=0)
        return self._rule.apply(
            self._rule.mean([view for view, _ in turned]), mean, Limits(self.thresholds, self.own.floor), self.windows
        )

    def presence(self, pixels: Tensor) -> Tensor:
        """What it sees in the patch, and where it is compared the mean of the orientations."""
        plain = self.own.presence(pixels)
        if self.views == 1:
            return plain
        turned = (self.own.presence(oriented(pixels, index)) for index in range(1, 8))
        views = [_places_undone(seen, index, self.windows) for index, seen in enumerate(turned, start=1)]
        return torch.cat([plain, torch.stack([plain, *views]).mean(dim=0)], dim=1)

    def _turned(self, pixels: Tensor, index: int, mean: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits and presence of an orientation, turned back; `mean` where that is known."""
        logits, seen = self.own.scored(oriented(pixels, index), mean)
        return undone(logits, index), seen if mean is not None else _places_undone(seen, index, self.windows)


def parted(presence: Float32Array, windows: Windows, num_classes: int) -> list[Float32Array]:
    """What is known of patches, (N, C), as arrays (N, W, K): the truth, and what gates in context go by."""
    count = presence.shape[1] // (windows.side**2 * num_classes)
    parts = presence.reshape(len(presence), count, windows.side**2, num_classes)
    return [parts[:, index] for index in range(count)]


def _places_undone(presence: Tensor, index: int, windows: Windows) -> Tensor:
    """What was seen in the windows (N, W, K) of `oriented(…, index)`, in the order of the plain ones."""
    count, _, classes = presence.shape
    grid = presence.transpose(1, 2).reshape(count, classes, windows.side, windows.side)  # (N, K, R, R)
    return undone(grid, index).flatten(2).transpose(1, 2)


def orientations(patches: Tensor) -> list[Tensor]:
    """The eight flips and rotations of square patches (N, C, P, P)."""
    return [oriented(patches, index) for index in range(8)]


def oriented(patches: Tensor, index: int) -> Tensor:
    """One of the eight flips and rotations of square patches (N, C, P, P); 0 leaves them as they are."""
    return torch.rot90(patches.flip(3) if index >= 4 else patches, index % 4, (2, 3)).contiguous()


def undone(values: Tensor, index: int) -> Tensor:
    """What was computed on `oriented(…, index)`, turned back."""
    back = torch.rot90(values, -(index % 4), (2, 3))
    return back.flip(3) if index >= 4 else back
