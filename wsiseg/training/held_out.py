"""Corrections that are kept out of a training, region by region, to see what it made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from wsiseg.datasets.patch import Patch

HELD_SHARE = 0.2
LEAST_REGIONS = 3
"""With fewer regions, keeping one out would cost more than its figure says."""


def hold_out(patches: Sequence[Patch], seed: int, share: float = HELD_SHARE) -> tuple[list[Patch], list[Patch]]:
    """(patches to learn from, corrections kept out): whole regions of touching patches, chosen by `seed`.

    Args:
        patches: of a training; those that are no corrections are learned from.
        seed: of the choice.
        share: about this share of the corrected patches, at least one region.
    """
    regions = regions_of([patch for patch in patches if patch.corrected])
    if len(regions) < LEAST_REGIONS:
        return list(patches), []
    wanted = share * sum(len(region) for region in regions)
    held: list[Patch] = []
    for index in np.random.default_rng(seed).permutation(len(regions)):
        if abs(len(held) + len(regions[index]) - wanted) < abs(len(held) - wanted):
            held += regions[index]
    held = held or min(regions, key=len)
    names = {patch.name for patch in held}
    return [patch for patch in patches if patch.name not in names], held


def regions_of(patches: Sequence[Patch]) -> list[list[Patch]]:
    """Patches that touch each other, side by side or at a corner, on one slide."""
    by_slide: dict[str, dict[tuple[int, int], list[Patch]]] = defaultdict(lambda: defaultdict(list))
    for slide, found in _by_slide(patches).items():
        step = _step(found)
        for patch, x, y in found:
            by_slide[slide][round(x / step), round(y / step)].append(patch)
    regions = []
    for places in by_slide.values():
        left = dict(places)
        while left:
            open_places, region = [next(iter(left))], []
            while open_places:
                column, row = open_places.pop()
                region += left.pop((column, row), [])
                near = [(column + dx, row + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
                open_places += [place for place in near if place in left]
            regions.append(region)
    return sorted(regions, key=lambda region: region[0].name)


def _by_slide(patches: Sequence[Patch]) -> dict[str, list[tuple[Patch, float, float]]]:
    found: dict[str, list[tuple[Patch, float, float]]] = defaultdict(list)
    for patch in patches:
        origin = patch.provenance
        if origin is None or origin.x is None or origin.y is None:
            found[f"{patch.group}/{patch.name}"].append((patch, 0.0, 0.0))  # a region of its own
        else:
            found[origin.slide or patch.group].append((patch, origin.x, origin.y))
    return found


def _step(found: Sequence[tuple[Patch, float, float]]) -> float:
    """Level-0 pixels from patch to patch: the smallest distance, as `correct` cuts them without a gap."""
    gaps = [np.diff(np.unique([place[axis] for place in found])) for axis in (1, 2)]
    positive = np.concatenate(gaps)
    positive = positive[positive >= 1]
    return float(positive.min()) if len(positive) else 1.0
