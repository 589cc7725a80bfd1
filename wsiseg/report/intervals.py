"""Intervals by resampling: of a slide over blocks of its area, of a cohort over patients and their slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from wsiseg.arrays import Float64Array, Int64Array

LEAST_BLOCKS = 6.0
"""Blocks, in effect, from which on an interval is given; fewer do not tell how much they vary."""

LEAST_PATIENTS = 5

LEVEL = 0.95

_BATCH = 250


def effective(sizes: Float64Array) -> float:
    """How many blocks of equal size say as much about a mean as blocks of these sizes, (B,)."""
    total = float(sizes.sum())
    return total**2 / float((sizes**2).sum()) if total > 0 else 0.0


def tails(count: float, alike: float = 1.0) -> tuple[float, float]:
    """Percentiles of the resampled figures to take, wider the fewer were drawn from, and the more alike neighbours are.

    The percentile interval is too narrow for few draws: it lacks the factor n / (n - 1) of the variance, and Student's
    t. Its percentiles are moved out by what both would add (Hesterberg 2015), and by the variance that blocks drawn one
    by one do not show, see `likeness`.

    Args:
        count: blocks (or patients) in effect.
        alike: what the variance is to be multiplied by.
    """
    quantile = stats.t.ppf((1 - LEVEL) / 2, max(1.0, count - 1))
    outer = float(stats.norm.cdf(quantile * np.sqrt(alike * count / max(count - 1, 0.5))))
    return 100 * outer, 100 * (1 - outer)


def likeness(residuals: Float64Array, places: Int64Array) -> float:
    """What the variance of a sum over blocks is, as a multiple of what it would be if neighbours were not alike.

    Of blocks side by side, and corner to corner, the mean product of residuals is taken; that of farther ones is not,
    which is small where blocks are wider than the structures. A mean that was estimated makes products too small by
    1 / B, which is made good. It is never below 1, so that chance narrows no interval.

    Args:
        residuals: (B,) how far each block is from what the figure says of it.
        places: (B, 2) row and column of each block.
    """
    count = len(residuals)
    square = float((residuals**2).mean())
    if count < 2 or square <= 0:
        return 1.0
    table = np.zeros(places.max(axis=0) + 2)
    table[tuple(places.T)] = residuals
    known = np.zeros_like(table)
    known[tuple(places.T)] = 1.0
    found = 1.0
    for one, other in _NEIGHBOURS:
        pairs = float((known[one] * known[other]).sum())
        if pairs:
            correlation = float((table[one] * table[other]).sum()) / pairs / square + 1 / count
            found += 2 * pairs / count * correlation
    return float(np.clip(found, 1.0, MOST_ALIKE))


_ALL, _LESS, _MORE = slice(None), slice(None, -1), slice(1, None)
_NEIGHBOURS = (
    ((_LESS, _ALL), (_MORE, _ALL)),
    ((_ALL, _LESS), (_ALL, _MORE)),
    ((_LESS, _LESS), (_MORE, _MORE)),
    ((_LESS, _MORE), (_MORE, _LESS)),
)
"""Parts of a table of blocks that lie over one another where it is moved by one."""

MOST_ALIKE = 9.0
"""More than if nine blocks were one: then blocks are too small for the structures, and no factor helps."""


def spatial(
    blocks: Float64Array,
    statistic: Callable[[Float64Array], Float64Array],
    resamples: int,
    seed: int,
    count: float,
    alike: float = 1.0,
) -> tuple[float, float]:
    """The interval of a figure over resampled blocks.

    Args:
        blocks: (B, ...) what each block adds to the sums that the figure is made of.
        statistic: from such sums (R, ...) of R resamples to the figure (R,).
        resamples: how many.
        seed: of the draws; the same blocks give the same interval on every machine.
        count: blocks in effect, see `effective`.
        alike: how much more the figure varies since neighbours are alike, see `likeness`.

    Returns:
        Low and high.
    """
    rng = np.random.default_rng(seed)
    number = len(blocks)
    flat = blocks.reshape(number, -1)
    found = []
    for start in range(0, resamples, _BATCH):  # memory is that of one batch, whatever the section's size
        rounds = min(_BATCH, resamples - start)
        weights = rng.multinomial(number, np.full(number, 1 / number), size=rounds).astype(np.float64)
        found.append(statistic((weights @ flat).reshape(rounds, *blocks.shape[1:])))
    low, high = np.nanpercentile(np.concatenate(found), tails(count, alike))
    return float(low), float(high)


def nested(groups: Sequence[Float64Array], resamples: int, seed: int) -> tuple[float, float]:
    """The interval of the mean over patients of their slides' means: patients are drawn, then slides in each.

    Args:
        groups: a patient's values each, (n,), no NaN among them.
        resamples: how many.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    longest = max(len(group) for group in groups)
    table = np.zeros((len(groups), longest))
    for row, group in enumerate(groups):
        table[row, : len(group)] = group
    sizes = np.array([len(group) for group in groups])
    found = []
    for start in range(0, resamples, _BATCH):
        rounds = min(_BATCH, resamples - start)
        drawn = rng.integers(len(groups), size=(rounds, len(groups)))
        slides = (rng.random((rounds, len(groups), longest)) * sizes[drawn][..., None]).astype(np.int64)
        values = table[drawn[..., None], slides]
        used = np.arange(longest) < sizes[drawn][..., None]
        found.append(((values * used).sum(axis=2) / sizes[drawn]).mean(axis=1))
    low, high = np.percentile(np.concatenate(found), tails(len(groups)))
    return float(low), float(high)
