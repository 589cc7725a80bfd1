"""Patches in, gated probabilities out: a class for each way of gating, and the one place that chooses among them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from wsiseg.arrays import Float32Array
from wsiseg.choices import GateMode, GateRule
from wsiseg.models.calibration import Calibration
from wsiseg.models.gate import allowed_classes, gate_logits, gate_published
from wsiseg.models.gate_kinds import RULES
from wsiseg.models.large_tiles import (
    Windows,
    classify_windows,
    predict_shared,
    predict_windows,
    segment_scored,
    shared_thresholds,
)
from wsiseg.models.tissue_model import TissueModel
from wsiseg.tiling.grid import Tiling
from wsiseg.tiling.reading import Patch

if TYPE_CHECKING:
    from wsiseg.prediction.options import ResolvedOptions
    from wsiseg.prediction.piece_reader import PatchBatch

PredictTiles = Callable[[TissueModel, Tensor, Tensor | None, int, int, float | None], tuple[Tensor, Tensor]]
"""What gives probabilities (N, K, T, T) and open classes (N, P, K); see `wsiseg.models.large_tiles.predict_windows`."""


@dataclass(frozen=True, slots=True)
class Gated:
    """What a gate makes of N patches.

    Attributes:
        probabilities: (N, K, P, P) float32, for each map that is made of them; `predict` makes one.
        opened: (N, W, K) bool, the classes left open in each window of a patch.
        presence: (N, W, K) float32, the probability that each class occurs in each window of a patch; None where only
            the maps are wanted.
        distance: (N,) float32, how far each patch is from the model's training data, in limits; None where that is not
            known, or was asked before.
    """

    probabilities: tuple[Tensor, ...]
    opened: Tensor
    presence: Tensor | None = None
    distance: Float32Array | None = None

    @property
    def allowed(self) -> Tensor:
        """The classes left open somewhere in each patch, (N, K) bool."""
        return self.opened.any(dim=1)

    def of(self, patches: slice) -> Gated:
        """The same of some of the patches."""
        presence = None if self.presence is None else self.presence[patches]
        distance = None if self.distance is None else self.distance[patches]
        return Gated(tuple(values[patches] for values in self.probabilities), self.opened[patches], presence, distance)


class Gate(Protocol):
    """Decides which classes a patch may hold, and has the networks say where they are."""

    @property
    def thresholds(self) -> Tensor | None:
        """The probability that each class must exceed, (K,); None where every class is open."""

    @property
    def context(self) -> float:
        """How far it looks beyond a patch, in sides of a patch; 0 where each patch decides alone."""

    @property
    def always_segments(self) -> bool:
        """Whether the segmenter is asked about patches with a single class as well."""

    def __call__(self, batch: PatchBatch) -> Gated:
        """What it makes of a batch."""

    def presence(self, pixels: Tensor) -> Tensor:
        """What it sees in the windows of patches (N, 3, P, P) uint8: probabilities (N, W, K)."""

    def presence_and_distance(self, pixels: Tensor) -> tuple[Tensor, Float32Array | None]:
        """The same, and how far the patches are from the model's training data, (N,); None where that is not known."""


class ModelGate(Gate, Protocol):
    """A gate of the model's own: one map, and what it is made of."""

    @property
    def floor(self) -> float | None:
        """See `wsiseg.models.gate.allowed_classes`."""

    @property
    def measures_distance(self) -> bool:
        """Whether what it asks of the model tells how far a patch is from the training data."""

    def of_pixels(self, pixels: Tensor, presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Probabilities (N, K, P, P) float32, and the classes (N, K) left open somewhere in each patch.

        Args:
            pixels: (N, 3, P, P) uint8.
            presence: probabilities (N, K) that take the place of the classifier's.
        """

    def windows(self, side_px: int) -> Windows:
        """The W windows of a patch of this side, each of which it decides about."""

    def scored(self, pixels: Tensor, presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (N, K, P, P), not gated, and what it sees in the windows, (N, W, K); that may be given as well."""

    def warm_up(self) -> None:
        """Have every network that may be asked made ready, by an empty patch."""


class PatchGate:
    """Gates and segments each patch by itself.

    Args:
        model: both networks.
        options: resolved.
    """

    def __init__(self, model: TissueModel, options: ResolvedOptions) -> None:
        self.thresholds = _thresholds(model, options, model.spec.gate)
        self.context = options.gate_context if options.gate else 0.0
        self.floor = options.gate_floor
        self.always_segments = RULES[options.gate_rule].by_sign
        self._model = model
        self._rule = options.gate_rule
        self._side_px = _tiling(model, options).side_px

    def __call__(self, batch: PatchBatch) -> Gated:
        """See `Gate`."""
        pixels, presence, distance = batch_tensor(batch.patches, self._model.device), None, None
        if batch.presence is not None:
            presence = torch.from_numpy(batch.presence)
        elif self.measures_distance:
            presence, distance = classified(self._model, pixels)
        probabilities, allowed = self.of_pixels(pixels, presence)
        return Gated((probabilities,), allowed[:, None], distance=distance)

    @property
    def measures_distance(self) -> bool:
        """See `ModelGate`; without a gate, the classifier is not asked."""
        return self._model.distance is not None and self.thresholds is not None

    def presence(self, pixels: Tensor) -> Tensor:
        """See `Gate`; a patch is its only window."""
        return self._model.classify(pixels)[:, None]

    def presence_and_distance(self, pixels: Tensor) -> tuple[Tensor, Float32Array | None]:
        """See `Gate`."""
        presence, distance = classified(self._model, pixels)
        return presence[:, None], distance

    def of_pixels(self, pixels: Tensor, presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `ModelGate`."""
        return predict_patches(self._model, pixels, self.thresholds, self._rule, presence, self.floor)

    def windows(self, side_px: int) -> Windows:
        """See `ModelGate`."""
        return Windows(side_px, side_px, side_px)

    def scored(self, pixels: Tensor, presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `ModelGate`."""
        return self._model.segment(pixels), self.presence(pixels) if presence is None else presence

    def warm_up(self) -> None:
        """See `ModelGate`."""
        pixels = _blank(self._side_px)
        self.of_pixels(pixels, classified(self._model, pixels)[0] if self.measures_distance else None)
        self._model.segment(pixels)  # which the gate may have left out


class LargeTileGate(ABC):
    """Gates large tiles by the windows that cover each pixel; what the modes for large tiles have in common.

    Args:
        model: both networks.
        options: resolved.
        thresholds: of the model's gate in this mode, (K,).
        predict: what computes tiles; see `wsiseg.models.large_tiles.predict_windows`.
    """

    context = 0.0
    always_segments = False
    measures_distance = False

    def __init__(
        self, model: TissueModel, options: ResolvedOptions, thresholds: Sequence[float], predict: PredictTiles
    ) -> None:
        self.thresholds = _thresholds(model, options, thresholds)
        self.floor = options.gate_floor
        self._model = model
        self._predict = predict
        self._side_px = _tiling(model, options).side_px
        windows = model.spec.tiling("patches", options.overlap)
        self._window_px, self._stride_px = windows.side_px, windows.side_px - windows.overlap_px

    def __call__(self, batch: PatchBatch) -> Gated:
        """See `Gate`."""
        probabilities, opened = self._of_tiles(batch_tensor(batch.patches, self._model.device))
        return Gated((probabilities,), opened)

    @abstractmethod
    def presence(self, pixels: Tensor) -> Tensor:
        """See `Gate`."""

    def presence_and_distance(self, pixels: Tensor) -> tuple[Tensor, Float32Array | None]:
        """See `Gate`; large tiles are not measured."""
        return self.presence(pixels), None

    def of_pixels(self, pixels: Tensor, presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `ModelGate`; windows have no context, so that `presence` is None."""
        assert presence is None
        probabilities, opened = self._of_tiles(pixels)
        return probabilities, opened.any(dim=1)

    def _of_tiles(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (N, K, T, T), and the classes (N, W, K) left open in each window."""
        return self._predict(self._model, pixels, self.thresholds, self._window_px, self._stride_px, self.floor)

    def windows(self, side_px: int) -> Windows:
        """See `ModelGate`."""
        return Windows(side_px, self._window_px, self._stride_px)

    def warm_up(self) -> None:
        """See `ModelGate`."""
        self.of_pixels(_blank(self._side_px))


class WindowGate(LargeTileGate):
    """Shows large tiles to both networks, and averages the classifier's activations over each window."""

    def __init__(self, model: TissueModel, options: ResolvedOptions) -> None:
        super().__init__(model, options, model.spec.gate, predict_windows)

    def presence(self, pixels: Tensor) -> Tensor:
        """See `Gate`."""
        return classify_windows(self._model, pixels, self.windows(pixels.shape[-1]))

    def scored(self, pixels: Tensor, presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `ModelGate`."""
        return self._model.segment(pixels), self.presence(pixels) if presence is None else presence


class SharedGate(LargeTileGate):
    """Shows large tiles to the segmenter alone, whose encoder has a gate of its own."""

    def __init__(self, model: TissueModel, options: ResolvedOptions) -> None:
        thresholds = shared_thresholds(model.spec) if options.gate and options.gate_threshold is None else ()
        super().__init__(model, options, thresholds, predict_shared)

    def presence(self, pixels: Tensor) -> Tensor:
        """See `Gate`."""
        return self.scored(pixels)[1]

    def scored(self, pixels: Tensor, presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `ModelGate`; both come out of one pass."""
        logits, seen = segment_scored(self._model, pixels, self.windows(pixels.shape[-1]))
        return logits, seen if presence is None else presence


_CLASSES: dict[GateMode, type[PatchGate] | type[WindowGate] | type[SharedGate]] = {
    "patches": PatchGate,
    "windows": WindowGate,
    "shared": SharedGate,
}


def make_gate(model: TissueModel, options: ResolvedOptions) -> ModelGate:
    """The gate that resolved options ask for.

    Raises:
        BundleError: the model has no such gate.
    """
    return _CLASSES[options.gate_mode](model, options)


def calibration_of(model: TissueModel, options: ResolvedOptions) -> Calibration | None:
    """What is done to the map's probabilities; None for nothing.

    It was chosen behind the model's gate. The published rule and an open gate give other probabilities.
    """
    return model.calibration if options.gate and not options.published_gate else None


def classified(model: TissueModel, patches: Tensor) -> tuple[Tensor, Float32Array | None]:
    """Probabilities (N, K), and distances (N,) from the training data where the model knows them, in one pass."""
    if model.distance is None:
        return model.classify(patches), None
    presence, features = model.classify_with_features(patches)
    return presence, model.distance.of(features.cpu().numpy())


def _thresholds(model: TissueModel, options: ResolvedOptions, of_model: Sequence[float]) -> Tensor | None:
    """What the gate asks of each class, (K,): what the options say, else the model; None where there is no gate."""
    if not options.gate:
        return None
    if options.gate_threshold is not None:
        return torch.full_like(model.gate, options.gate_threshold)
    return torch.tensor(of_model, dtype=torch.float32, device=model.device)


def _tiling(model: TissueModel, options: ResolvedOptions) -> Tiling:
    return model.spec.tiling(options.gate_mode, options.overlap)


def _blank(side_px: int) -> Tensor:
    """A black patch (1, 3, side, side), channels last in memory as patches come."""
    return torch.zeros(1, side_px, side_px, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


def batch_tensor(batch: Sequence[Patch], device: torch.device | None = None) -> Tensor:
    """Patches as one tensor (N, 3, H, W) uint8, channels last in memory, as they come from the slide.

    For a GPU it is built in pinned memory and sent while the device still computes.
    """
    first = batch[0].pixels
    pinned = device is not None and device.type == "cuda"
    out = torch.empty((len(batch), *first.shape), dtype=torch.uint8, pin_memory=pinned)
    np.stack([patch.pixels for patch in batch], out=out.numpy())
    pixels = out.permute(0, 3, 1, 2)
    return pixels.to(device, non_blocking=True) if pinned else pixels


@torch.inference_mode()
def predict_patches(
    model: TissueModel,
    patches: Tensor,
    thresholds: Tensor | None,
    rule: GateRule = "exclude",
    presence: Tensor | None = None,
    floor: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Probabilities of patches, gated.

    Where the gate leaves a single class its probability is 1 whatever the segmenter says, so it is not asked; by the
    published rule it always is.

    Args:
        model: both networks.
        patches: (N, 3, H, W) uint8.
        thresholds: of the gate, (K,); None leaves every class open.
        rule: see `PredictOptions.gate_rule`.
        presence: probabilities (N, K) that the gate goes by; None asks the classifier, about each patch by itself.
        floor: see `wsiseg.models.gate.allowed_classes`; the published rule has none.

    Returns:
        Probabilities (N, K, H, W) float32, and which classes the gate allowed, (N, K) bool.
    """
    count, height, width = patches.shape[0], patches.shape[2], patches.shape[3]
    if thresholds is None:
        allowed = torch.ones(count, len(model.classes), dtype=torch.bool, device=model.device)
        return torch.softmax(model.segment(patches), dim=1), allowed
    presence = model.classify(patches) if presence is None else presence.to(model.device)  # (N, K)
    if RULES[rule].by_sign:
        return torch.softmax(gate_published(model.segment(patches), presence, thresholds), dim=1), presence > thresholds
    allowed = allowed_classes(presence, thresholds, floor)
    several = allowed.sum(dim=1) > 1
    if several.all():
        return torch.softmax(gate_logits(model.segment(patches), allowed), dim=1), allowed
    probabilities = allowed[:, :, None, None].float().repeat(1, 1, height, width)
    if several.any():
        logits = model.segment(patches[several.to(patches.device)])  # (n, K, H, W)
        probabilities[several] = torch.softmax(gate_logits(logits, allowed[several]), dim=1)
    return probabilities, allowed
