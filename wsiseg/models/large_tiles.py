"""Tiles larger than a patch: one pass of each network over all of a tile, and a gate for every patch inside it.

Patches that overlap by half show each pixel to both networks four times. Here a tile is shown once. The patches are
then windows of the tile, on a regular grid: the gate's logit of a window is the mean over it of a map of scores, and a
pixel's probabilities are the blended ones of the windows that cover it, as `wsiseg.tiling.blending` would blend
patches. What differs from patches is what a network sees beside a window, where a patch has its border.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from wsiseg.errors import BundleError
from wsiseg.models.gate import allowed_classes, gate_logits
from wsiseg.models.networks.segmenter import Segmenter
from wsiseg.models.spec import BundleSpec
from wsiseg.models.tile_shape import check_tile
from wsiseg.models.tissue_model import TissueModel
from wsiseg.tiling.blending import window

_RANGE = 80.0
"""Smallest logit that counts, below a pixel's greatest: its exponential is still a normal float32."""


@dataclass(frozen=True)
class Windows:
    """The patches inside a square tile: a regular grid that fills it.

    Attributes:
        tile_px: side of the tile.
        patch_px: side of a window.
        stride_px: from one window to the next, at most `patch_px`.
    """

    tile_px: int
    patch_px: int
    stride_px: int

    def __post_init__(self) -> None:
        check_tile(self.tile_px, self.patch_px, self.stride_px)

    @property
    def side(self) -> int:
        """R, windows along a side; the window of row r and column c is number r * R + c of P = R * R."""
        return check_tile(self.tile_px, self.patch_px, self.stride_px)

    @cached_property
    def ramps(self) -> Tensor:
        """Weight (R, T) of each pixel along a side in each window: the blending's, which is a product of two such."""
        ramp = torch.from_numpy(window(self.patch_px, self.patch_px - self.stride_px)[self.patch_px // 2])
        ramps = torch.zeros(self.side, self.tile_px)
        for number, row in enumerate(ramps):
            row[number * self.stride_px : number * self.stride_px + self.patch_px] = ramp
        return ramps

    def shares(self, cells: int, cell_px: float) -> Tensor:
        """Share (R, cells) of each window that each of `cells` cells along a side covers; each row adds up to 1.

        Whole cells where `cell_px` divides patch and stride; else cells at a window's edge count for their part.
        """
        starts = torch.arange(cells, dtype=torch.float64) * cell_px
        first = torch.arange(self.side, dtype=torch.float64)[:, None] * self.stride_px
        inside = (starts + cell_px).minimum(first + self.patch_px) - starts.maximum(first)
        inside = inside.clamp_min(0)
        return (inside / inside.sum(dim=1, keepdim=True)).float()

    def means(self, maps: Tensor, cell_px: float) -> Tensor:
        """Means (N, C, R, R), float32, over each window of maps (N, C, h, w) whose places are `cell_px` wide."""
        rows, columns = (self.shares(cells, cell_px).to(maps.device) for cells in maps.shape[2:])
        with torch.autocast(maps.device.type, enabled=False):
            return rows @ maps.float() @ columns.T


def shared_thresholds(spec: BundleSpec) -> tuple[float, ...]:
    """The thresholds (K,) of a bundle's shared gate.

    Raises:
        BundleError: where the bundle has no shared gate.
    """
    if spec.shared_gate is None:
        raise BundleError(f"{spec.name} has no shared gate: train with --gate shared, or use another gate mode")
    return spec.shared_gate


@torch.inference_mode()
def predict_windows(
    model: TissueModel,
    tiles: Tensor,
    thresholds: Tensor | None,
    patch_px: int,
    stride_px: int,
    floor: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Probabilities of large tiles, each pixel gated by the windows that cover it; the classifier is asked.

    A tile whose windows are all left a single class is not segmented, as its pixels follow from that.

    Args:
        model: both networks.
        tiles: (N, 3, T, T) uint8.
        thresholds: of the gate, (K,); None leaves every class open.
        patch_px: side of a window, the model's patch.
        stride_px: from window to window; T must be `patch_px` and a whole number of these.
        floor: of the gate, see `wsiseg.models.gate.allowed_classes`.

    Returns:
        Probabilities (N, K, T, T) float32, and which classes the gate allowed in each of the P windows, row by row,
        (N, P, K) bool.

    Raises:
        BundleError: for any other tile.
    """
    windows = _windows_of(tiles, patch_px, stride_px)
    if thresholds is None:
        return _all_open(model, tiles, windows)
    allowed = _allowed(classify_windows(model, tiles, windows), thresholds.to(model.device), floor)
    several = (allowed.sum(dim=2) > 1).any(dim=1)  # (N,)
    logits = torch.zeros(len(tiles), len(model.classes), windows.tile_px, windows.tile_px, device=model.device)
    if several.any():
        logits[several] = model.segment(tiles[several.to(tiles.device)])
    return gate_windows(logits, allowed, windows), allowed


@torch.inference_mode()
def predict_shared(
    model: TissueModel,
    tiles: Tensor,
    thresholds: Tensor | None,
    patch_px: int,
    stride_px: int,
    floor: float | None = None,
) -> tuple[Tensor, Tensor]:
    """As `predict_windows`, but by the segmenter's own gate, which comes with the logits: the classifier is not asked.

    Raises:
        BundleError: as there, or where the segmenter has no shared gate.
    """
    windows = _windows_of(tiles, patch_px, stride_px)
    if thresholds is None:
        return _all_open(model, tiles, windows)
    logits, presence = segment_scored(model, tiles, windows)
    allowed = _allowed(presence, thresholds.to(model.device), floor)
    return gate_windows(logits, allowed, windows), allowed


def _windows_of(tiles: Tensor, patch_px: int, stride_px: int) -> Windows:
    if tiles.ndim != 4 or tiles.shape[2] != tiles.shape[3]:
        raise BundleError(f"tiles must be square, (N, 3, T, T), got {tuple(tiles.shape)}")
    return Windows(tiles.shape[-1], patch_px, stride_px)


def _all_open(model: TissueModel, tiles: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    allowed = torch.ones(len(tiles), windows.side**2, len(model.classes), dtype=torch.bool, device=model.device)
    return torch.softmax(model.segment(tiles), dim=1), allowed


def _allowed(presence: Tensor, thresholds: Tensor, floor: float | None) -> Tensor:
    return allowed_classes(presence.flatten(0, 1), thresholds, floor).view(presence.shape)


@torch.inference_mode()
def classify_windows(model: TissueModel, tiles: Tensor, windows: Windows) -> Tensor:
    """The classifier's probability (N, P, K), float32, of each class in each window of tiles (N, 3, T, T), uint8."""
    classifier = model.classifier
    deepest = model.activations(tiles)  # (N, C, h, w)
    means = windows.means(deepest, classifier.cell_px or windows.tile_px / deepest.shape[-1])  # (N, C, R, R)
    places = means.permute(0, 2, 3, 1).reshape(-1, means.shape[1], 1, 1)  # (N * P, C, 1, 1)
    return torch.sigmoid(classifier.head(places)).float().view(len(tiles), windows.side**2, -1)


@torch.inference_mode()
def segment_scored(model: TissueModel, tiles: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Logits of tiles and what the shared gate sees, in one pass of the segmenter.

    Args:
        model: its segmenter alone is asked.
        tiles: (N, 3, T, T) uint8.
        windows: of the tiles.

    Returns:
        Logits (N, K, T, T) float32, not gated, and the probability (N, P, K), float32, of each class in each window.

    Raises:
        BundleError: where the segmenter has no shared gate.
    """
    logits, scores = model.segment_scored(tiles)
    assert isinstance(model.segmenter, Segmenter)
    return logits, window_probabilities(scores, model.segmenter.cell_px, windows)


def window_probabilities(scores: Tensor, cell_px: float, windows: Windows) -> Tensor:
    """The probability (N, P, K) of each class in each window, from maps of scores (N, K, h, w)."""
    return torch.sigmoid(windows.means(scores, cell_px)).flatten(2).transpose(1, 2)


def gate_windows(logits: Tensor, allowed: Tensor, windows: Windows) -> Tensor:
    """Probabilities (N, K, T, T), as if every window were a patch: its softmax over its classes, and all blended.

    With e = exp(logit), w the weight of a window at a pixel and S its classes, class k gets
    sum over the windows with k in S of w * e_k / sum(e over S), divided by the sum of all w. A window counts through
    its classes alone, so windows of equal classes are taken together, and e is computed once.

    Args:
        logits: (N, K, T, T) float32; what is more than `_RANGE` below a pixel's greatest counts as that.
        allowed: (N, P, K) bool, at least one class in each window.
        windows: of the tiles.
    """
    if logits.device.type == "cpu":  # one tile's values stay in the cache, and it has fewer sets of classes than all
        return torch.cat([_gated(logits[n : n + 1], allowed[n : n + 1], windows) for n in range(len(logits))])
    return _gated(logits, allowed, windows)


def _gated(logits: Tensor, allowed: Tensor, windows: Windows) -> Tensor:
    sets, index = torch.unique(allowed.flatten(0, 1), dim=0, return_inverse=True)  # (S, K), (N * P,)
    if len(sets) == 1:
        return torch.softmax(gate_logits(logits, sets.expand(len(logits), -1)), dim=1)
    ramps = windows.ramps.to(logits.device)
    with torch.autocast(logits.device.type, enabled=False):
        has = index.view(1, -1, windows.side, windows.side) == torch.arange(len(sets), device=index.device).view(
            -1, 1, 1, 1
        )
        weights = ramps.T @ has.float() @ ramps  # (S, N, T, T)
    exponentials = (logits - logits.amax(dim=1, keepdim=True)).clamp_(min=-_RANGE).exp_()
    factors, certain = torch.zeros_like(logits), torch.zeros_like(logits)
    for classes, weight in zip(sets.tolist(), weights, strict=True):
        open_classes = [k for k, is_open in enumerate(classes) if is_open]
        if len(open_classes) == 1:
            certain[:, open_classes[0]] += weight  # whatever the logit: exactly 1 where no other window says otherwise
            continue
        share = weight / exponentials[:, open_classes].sum(dim=1)  # (N, T, T)
        for k in open_classes:
            factors[:, k] += share
    return certain.addcmul_(factors, exponentials).div_(weights.sum(dim=0)[:, None])
