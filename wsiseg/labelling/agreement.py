"""How well answers agree: Cohen's kappa a class, and the interval of a share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsiseg.labelling.answers import Answer

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement on one class.

    Attributes:
        name: of the class.
        pairs: how many patches were answered twice.
        agreement: share of them with equal answers, NaN without any.
        kappa: Cohen's kappa; NaN without pairs, or where all answers of both are the same and chance explains it.
    """

    name: str
    pairs: int
    agreement: float
    kappa: float


def kappas(pairs: Iterable[tuple[Answer, Answer]], classes: Sequence[str]) -> list[Kappa]:
    """Agreement of pairs of answers to the same patches, class by class.

    Only answers that are labels count, and only classes that both were asked about.
    """
    labelled = [(a, b) for a, b in pairs if a.status == b.status == "labelled"]
    return [
        _kappa(
            name, [(a.classes[name], b.classes[name]) for a, b in labelled if name in a.classes and name in b.classes]
        )
        for name in classes
    ]


def _kappa(name: str, pairs: list[tuple[bool, bool]]) -> Kappa:
    count = len(pairs)
    if not count:
        return Kappa(name, 0, math.nan, math.nan)
    agreement = sum(a == b for a, b in pairs) / count
    first, second = sum(a for a, _ in pairs) / count, sum(b for _, b in pairs) / count
    chance = first * second + (1 - first) * (1 - second)
    return Kappa(name, count, agreement, (agreement - chance) / (1 - chance) if chance < 1 else math.nan)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score method (1927), which holds for few cases; (0, 1) for none."""
    if count == 0:
        return 0.0, 1.0
    share = hits / count
    spread = Z_95**2 / count
    centre = share + spread / 2
    width = Z_95 * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, (centre - width) / (1 + spread)), min(1.0, (centre + width) / (1 + spread))
