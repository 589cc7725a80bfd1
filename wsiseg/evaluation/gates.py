"""Every gate that is compared, on the same batch: `predict`'s own, none, that of the truth, and flips averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from wsiseg.arrays import Float32Array
from wsiseg.choices import GateRule
from wsiseg.models.gate import allowed_classes, gate_published
from wsiseg.models.large_tiles import Windows, gate_windows
from wsiseg.prediction.gated import Gated, ModelGate, batch_tensor
from wsiseg.prediction.piece_reader import PatchBatch


class Rule(Protocol):
    """What a gate does to logits."""

    def mean(self, logits: Sequence[Tensor]) -> Tensor:
        """The mean (N, K, T, T) of the logits of several views, turned back."""

    def apply(self, logits: Tensor, presence: Tensor, thresholds: Tensor, windows: Windows) -> Tensor:
        """Probabilities (N, K, T, T) of logits, gated by what is seen in the windows, (N, W, K)."""


class Exclude:
    """A class that may not occur is taken out of its window."""

    def mean(self, logits: Sequence[Tensor]) -> Tensor:
        """See `Rule`; the softmax is averaged, whose logarithm stands for the logits."""
        mean = torch.stack([torch.softmax(view, dim=1) for view in logits]).mean(dim=0)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

    def apply(self, logits: Tensor, presence: Tensor, thresholds: Tensor, windows: Windows) -> Tensor:
        """See `Rule`."""
        return gate_windows(logits, allowed_classes(presence.flatten(0, 1), thresholds).view(presence.shape), windows)


class MultiplyLogits:
    """The published program's rule, of patches alone, where the sign of a logit decides."""

    def mean(self, logits: Sequence[Tensor]) -> Tensor:
        """See `Rule`."""
        return torch.stack(tuple(logits)).mean(dim=0)

    def apply(self, logits: Tensor, presence: Tensor, thresholds: Tensor, windows: Windows) -> Tensor:
        """See `Rule`; the patch is its only window."""
        return torch.softmax(gate_published(logits, presence[:, 0], thresholds), dim=1)


_RULES: dict[GateRule, Rule] = {"exclude": Exclude(), "multiply_logits": MultiplyLogits()}


class ComparedGates:
    """The gate that `predict` has, beside others; gives the maps of `COLUMNS`, in their order.

    A batch's `presence` holds what `Known` knows of each patch: the true classes of its windows, and, where the gate
    looks beyond a patch, what it goes by, plain and averaged over the orientations.

    Args:
        gate: of the model.
        rule: of that gate.
        device: of the model.
        num_classes: K.
    """

    always_segments = True

    def __init__(self, gate: ModelGate, rule: GateRule, device: torch.device, num_classes: int) -> None:
        assert gate.thresholds is not None
        self.thresholds: Tensor = gate.thresholds
        self.context = gate.context
        self._gate = gate
        self._rule = _RULES[rule]
        self._device = device
        self._num_classes = num_classes

    def __call__(self, batch: PatchBatch) -> Gated:
        """See `Gate`."""
        assert batch.presence is not None
        pixels = batch_tensor(batch.patches, self._device)
        windows = self._gate.windows(pixels.shape[-1])
        truth, *foreseen = parted(batch.presence, windows, self._num_classes)
        plain, mean = (torch.from_numpy(seen).to(self._device) for seen in foreseen) if foreseen else (None, None)
        predicted = self._gate(replace(batch, presence=foreseen[0][:, 0] if foreseen else None))
        logits, presence = self._gate.scored(pixels, plain)
        turned = [(logits, presence), *(self._turned(pixels, index, mean, windows) for index in range(1, 8))]
        known = torch.from_numpy(truth > 0).to(self._device)
        columns = (
            torch.softmax(logits, dim=1),
            *predicted.probabilities,
            gate_windows(logits, known | ~known.any(dim=2, keepdim=True), windows),
            self._rule.apply(
                self._rule.mean([view for view, _ in turned]),
                torch.stack([seen for _, seen in turned]).mean(dim=0) if mean is None else mean,
                self.thresholds,
                windows,
            ),
        )
        return Gated(columns, predicted.allowed, presence)

    def presence(self, pixels: Tensor) -> Tensor:
        """What the gate sees, plain and averaged over the orientations, (N, 2 W, K)."""
        windows = self._gate.windows(pixels.shape[-1])
        plain = self._gate.presence(pixels)
        views = [_places_undone(self._gate.presence(oriented(pixels, i)), i, windows) for i in range(1, 8)]
        return torch.cat([plain, torch.stack([plain, *views]).mean(dim=0)], dim=1)

    def _turned(self, pixels: Tensor, index: int, mean: Tensor | None, windows: Windows) -> tuple[Tensor, Tensor]:
        """Logits and presence of an orientation, turned back; `mean` where presence is known."""
        logits, seen = self._gate.scored(oriented(pixels, index), mean)
        return undone(logits, index), seen if mean is not None else _places_undone(seen, index, windows)


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
