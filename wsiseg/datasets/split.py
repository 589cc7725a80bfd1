"""Which groups are set aside for validation: whole ones, so that every class is there in about the same share.

A draw of whole slides alone leaves rare classes to chance: one slide may hold most of a class. So a draw is only where
a search begins that moves single groups, until no move brings the shares of patches and classes nearer to what is
asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wsiseg.datasets.patch import Patch
from wsiseg.errors import OptionError

MOST = 0.5
"""Share of a class's patches that validation does not exceed: training needs at least as many."""

_ABSENT, _TOO_MUCH = 25.0, 100.0
"""What it costs that validation lacks a class, or has more of it than `MOST`, where a class (or all patches) of twice
the share asked for costs 1."""

_STARTS, _MOVES = 8, 2000

Counts = npt.NDArray[np.float64]


def split_groups(patches: Sequence[Patch], share: float, seed: int) -> tuple[list[Patch], list[Patch]]:
    """(training, validation): about `share` of the patches and of each class, whole groups; never all groups.

    The same patches, share and seed give the same split on every machine, in whatever order the patches are listed.

    Args:
        patches: with labels; unknown ones count as absent.
        share: for validation, 0 up to (not with) 1.
        seed: of the draw.

    Raises:
        OptionError: a share out of its range.
    """
    if not 0 <= share < 1:
        raise OptionError(f"the share for validation must be 0 up to (not with) 1, got {share}")
    groups = sorted({patch.group for patch in patches})
    if len(groups) < 2 or share == 0:
        return list(patches), []
    chosen = _chosen(_counts(patches, groups), share, np.random.default_rng(seed))
    names = {group for group, taken in zip(groups, chosen, strict=True) if taken}
    return [p for p in patches if p.group not in names], [p for p in patches if p.group in names]


def fold_groups(patches: Sequence[Patch], folds: int, seed: int) -> list[list[Patch]]:
    """The patches in `folds` parts of about the same size and share of each class, whole groups.

    Fewer parts come back where there are fewer groups.
    """
    left, parts = list(patches), []
    for number in range(folds, 1, -1):
        left, part = split_groups(left, 1 / number, seed)
        if not part:
            break
        parts.append(part)
    return [*parts, left]


def _counts(patches: Sequence[Patch], groups: Sequence[str]) -> Counts:
    """Patches of each group, in all and with each class, (G, 1 + K)."""
    index = {group: number for number, group in enumerate(groups)}
    classes = max((len(patch.label) for patch in patches), default=0)
    counts = np.zeros((len(groups), 1 + classes))
    for patch in patches:
        counts[index[patch.group], 0] += 1
        for channel in range(len(patch.label)):
            counts[index[patch.group], 1 + channel] += patch.has(channel)
    return counts


def _chosen(counts: Counts, share: float, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which groups (G,) are set aside: the best of several searches."""
    counts = counts[:, counts.any(axis=0)]
    can_be = (counts > 0).sum(axis=0) > 1  # a class of a single group is for training
    best: npt.NDArray[np.bool_] | None = None
    least = np.inf
    for _ in range(_STARTS if len(counts) <= _MOVES else 1):
        taken = _drawn(counts, share, generator)
        cost = _improve(taken, counts, share, can_be)
        if cost < least:
            best, least = taken, cost
    assert best is not None
    return best


def _drawn(counts: Counts, share: float, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Groups (G,) in a random order until they have the share of patches; at least one, and never all."""
    order = generator.permutation(len(counts))
    before = np.cumsum(counts[order, 0]) - counts[order, 0]
    taken = np.zeros(len(counts), bool)
    taken[order[before < share * counts[:, 0].sum()]] = True
    taken[order[-1]] = False
    return taken


def _improve(taken: npt.NDArray[np.bool_], counts: Counts, share: float, can_be: npt.NDArray[np.bool_]) -> float:
    """Move groups in or out, each time the one that helps most, until none helps; the cost that is left."""
    total = counts.sum(axis=0)
    inside = counts[taken].sum(axis=0)
    cost = float(_cost(inside[None], total, share, can_be)[0])
    for _ in range(_MOVES):
        moved = inside + np.where(taken[:, None], -counts, counts)
        costs = _cost(moved, total, share, can_be)
        number = int(taken.sum())
        if number == 1:
            costs[taken] = np.inf
        if number == len(taken) - 1:
            costs[~taken] = np.inf
        index = int(costs.argmin())
        if costs[index] >= cost - 1e-9:
            break
        taken[index] = not taken[index]
        inside, cost = moved[index], float(costs[index])
    return cost


def _cost(inside: Counts, total: Counts, share: float, can_be: npt.NDArray[np.bool_]) -> Counts:
    """How far candidates (N, C) are from the share of `total` (C,) that is asked for, (N,)."""
    part = inside / total
    costs = ((part - share) / share) ** 2
    costs += _ABSENT * (can_be & (inside == 0))
    costs += _TOO_MUCH * (part > max(MOST, share)) * (1 + part)
    summed: Counts = costs.sum(axis=1)
    return summed
