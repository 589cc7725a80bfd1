"""Tiles larger than a patch: their sizes, and what goes with them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from wsiseg.choices import GateMode, GateRule
from wsiseg.errors import BundleError
from wsiseg.models.gate_kinds import MODES, RULES
from wsiseg.tiling.grid import Tiling

MAX_TILE_PX = 8192


def overlap_px(patch_px: int, overlap: float) -> int:
    """Pixels that neighbouring patches share, as `wsiseg.tiling.grid.TileGrid.from_share` has them."""
    return min(patch_px - 1, round(patch_px * overlap))


def check_tile(tile_px: int, patch_px: int, stride_px: int) -> int:
    """How many windows of a patch's side lie along a tile's, a stride apart and filling it; at least one.

    Raises:
        BundleError: where they do not fill it.
    """
    if not 1 <= stride_px <= patch_px:
        raise BundleError(f"windows of {patch_px} px must lie 1 to {patch_px} px apart, got {stride_px}")
    extra = tile_px - patch_px
    if extra < 0 or extra % stride_px:
        nearest = patch_px + max(0, round(extra / stride_px)) * stride_px
        raise BundleError(
            f"a tile's side must be a patch's ({patch_px} px) and a whole number of strides of {stride_px} px, "
            f"got {tile_px}; the nearest is {nearest}"
        )
    return extra // stride_px + 1


def check_margin(tile_px: int, margin_px: int) -> None:
    """Refuse a margin that leaves nothing of a tile.

    Raises:
        BundleError: then.
    """
    if not 0 <= 2 * margin_px < tile_px:
        raise BundleError(
            f"a tile's two margins must be 0 to less than its side of {tile_px} px together, got {margin_px} px each"
        )


def check_gate_mode(mode: GateMode, gate_context: float, gate_rule: GateRule) -> None:
    """Refuse what does not go with large tiles.

    Raises:
        BundleError: a gate that looks beyond its patch, which takes the classifier's probabilities patch by patch; or
            the published rule, whose products of logits are not what windows can be averaged over.
    """
    if not MODES[mode].large_tiles:
        return
    if gate_context > 0:
        raise BundleError(f"gate mode {mode} goes with gate_context 0 alone, got {gate_context:g}: use mode patches")
    if RULES[gate_rule].by_sign:
        raise BundleError(f"gate mode {mode} goes with the rule exclude alone, got {gate_rule}: use mode patches")


def check_sides(mode: GateMode, *arguments: Mapping[str, object]) -> None:
    """Refuse large tiles for networks whose encoder takes no side but a patch's.

    Args:
        mode: of the gate.
        arguments: of each network's builder.

    Raises:
        BundleError: then.
    """
    sides = [given["fixed_px"] for given in arguments if given.get("fixed_px") is not None]
    if MODES[mode].large_tiles and sides:
        raise BundleError(
            f"gate mode {mode} shows tiles larger than a patch, and this encoder's position embeddings are for "
            f"{sides[0]} px alone: use mode patches, or another encoder"
        )


def default_tile(patch_px: int, overlap: float) -> tuple[int, int]:
    """Side and margin of tiles for patches: about twice a patch, and a sixth of one (docs/large-tiles.md)."""
    stride = patch_px - overlap_px(patch_px, overlap)
    return patch_px + max(1, round(patch_px / stride)) * stride, patch_px // 6


def tiling(mode: GateMode, patch_px: int, overlap: float, tile_px: int | None, margin_px: int) -> Tiling:
    """What is read and segmented at once: patches, or in other gate modes tiles.

    Args:
        mode: of the gate.
        patch_px: side of a patch.
        overlap: share of it that its neighbour covers as well.
        tile_px: side of a tile; one that does not fit the patches, or None, gives way to `default_tile`.
        margin_px: half of what neighbouring tiles share.
    """
    shared_px = overlap_px(patch_px, overlap)
    if not MODES[mode].large_tiles:
        return Tiling(patch_px, shared_px)
    if tile_px is None or (tile_px - patch_px) % (patch_px - shared_px):
        tile_px, margin_px = default_tile(patch_px, overlap)
    return Tiling(tile_px, 2 * margin_px)
