"""Which patches to show next: at random, or class by class those that a model is unsure of, and unlike each other.

Selection earns its complexity only where a class is rare, and only class by class: least certain first over all classes
gains nothing (measured; see docs/accuracy.md). Classes of which few patches are known get more of a round, and of them
the most probable patches are shown, alike or not: asking that they differ finds fewer of the rare ones.
A fifth is always at random, so that it stands for the slides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from wsiseg.arrays import Float32Array, Float64Array
from wsiseg.datasets.learnable import FEW
from wsiseg.labelling.answers import Source

RANDOM_SHARE = 0.2
"""Of a class-wise round: what validation and the gate's thresholds rest on."""

POOL = 4
"""The patches of a class with many are chosen from so many times as many of its most uncertain ones."""

GROUP_SHARE = 0.5
"""Most that one patient may have of the chosen ones, where there are several patients."""

COMPONENTS = 64


@dataclass(frozen=True, slots=True)
class Chosen:
    """A patch of a round.

    Attributes:
        index: among the candidates.
        source: how it was chosen.
    """

    index: int
    source: Source


def choose_random(available: Sequence[int], count: int) -> list[Chosen]:
    """The first candidates that are available: their list is in an order by chance, spread over patients."""
    return [Chosen(index, "random") for index in available[:count]]


def choose_classwise(
    available: Sequence[int],
    count: int,
    probabilities: Float32Array,
    features: Float32Array,
    groups: Sequence[str],
    seed: int,
    apart: Collection[str] = (),
    positives: Sequence[int] = (),
) -> list[Chosen]:
    """A fifth at random, the rest class by class: uncertain of that class, and where it has many, unlike each other.

    A class's share of the round goes by one over its positives. Below `FEW` positives it gets the candidates that
    most probably have it. From there on it gets those that lie farthest from what is chosen already (k-centre
    greedy, Sener and Savarese 2018) among `POOL` times as many with the highest binary entropy.

    Args:
        available: indices of the candidates not yet shown, in their order by chance.
        count: how many to choose.
        probabilities: of each class, (N, K), of all candidates.
        features: of all candidates, (N, D).
        groups: patient of each candidate, (N,).
        seed: of the order in which the round is shown.
        apart: patients that are kept for validation: all of them are shown at random, and the others never are, as
            long as there are patches of both.
        positives: patches that are known to have each class, (K,); nothing where none is known.

    Returns:
        At most `count` patches, shuffled, so that the page does not tell how each was chosen.
    """
    rng = np.random.default_rng(seed)
    held = [index for index in available if groups[index] in apart] if apart else available
    chosen = choose_random(held, min(len(available), round(RANDOM_SHARE * count)))
    taken = {one.index for one in chosen}
    left = [index for index in available if index not in taken and groups[index] not in apart]
    kept = [index for index in available if groups[index] in apart and index not in taken]
    if not left:
        return [*chosen, *choose_random(kept, count - len(chosen))]
    reduced = principal(features)
    num_classes, entropies = probabilities.shape[1], entropy(probabilities)
    wanted = min(len(left), count - len(chosen))
    most = _most_of_a_group(groups, available, wanted)
    of_group: dict[str, int] = {}
    centres = [reduced[index] for index in taken]
    known = np.array(positives if len(positives) else [0] * num_classes)
    weights = 1 / np.maximum(known, 1)
    order = np.argsort(known, kind="stable")  # the rarest comes first: what it leaves is for the others
    for place, k in enumerate(order):
        open_ = wanted - sum(one.source == "classwise" for one in chosen)
        share = min(open_, int(np.ceil(open_ * weights[k] / weights[order[place:]].sum())))
        free = np.array([i for i in left if i not in taken and of_group.get(groups[i], 0) < most], dtype=int)
        wished = entropies if known[k] >= FEW else probabilities
        ranked: list[int] = free[np.argsort(-wished[free, k], kind="stable")].tolist()
        if known[k] >= FEW:
            most_uncertain = ranked[: POOL * share]
            ranked = k_centre(reduced, most_uncertain, len(most_uncertain), centres)
        found = 0
        for index in ranked:
            if found == share:
                break
            if of_group.get(groups[index], 0) >= most:
                continue
            found += 1
            of_group[groups[index]] = of_group.get(groups[index], 0) + 1
            taken.add(index)
            centres.append(reduced[index])
            chosen.append(Chosen(index, "classwise"))
    spare = [i for i in left if i not in taken]  # where patients had their share
    chosen += choose_random([*spare, *kept], count - len(chosen))
    return [chosen[place] for place in rng.permutation(len(chosen))]


def _most_of_a_group(groups: Sequence[str], available: Sequence[int], wanted: int) -> int:
    several = len({groups[index] for index in available}) > 1
    return max(1, round(GROUP_SHARE * wanted)) if several else wanted


def entropy(probabilities: Float32Array) -> Float64Array:
    """Binary entropy of probabilities, each by itself."""
    p = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    found: Float64Array = -p * np.log(p) - (1 - p) * np.log(1 - p)
    return found


def k_centre(
    features: Float64Array, candidates: Sequence[int], count: int, centres: Sequence[Float64Array]
) -> list[int]:
    """Candidates that lie farthest from the centres and from each other, one after the other.

    Args:
        features: (N, D).
        candidates: rows of it to choose from; without centres the first is taken as it is.
        count: how many.
        centres: points (D,) that are covered already.
    """
    if not len(candidates) or count < 1:
        return []
    points = features[list(candidates)]
    distance = np.full(len(points), np.inf)
    for centre in centres:
        np.minimum(distance, ((points - centre) ** 2).sum(axis=1), out=distance)
    chosen: list[int] = []
    for _ in range(min(count, len(points))):
        farthest = int(distance.argmax())
        chosen.append(candidates[farthest])
        np.minimum(distance, ((points - points[farthest]) ** 2).sum(axis=1), out=distance)
        distance[farthest] = -1.0
    return chosen


def principal(features: Float32Array, components: int = COMPONENTS) -> Float64Array:
    """Features (N, D) on their first principal components, (N, at most `components`)."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ vectors[:, np.argsort(values)[::-1][:components]])


def groups_of_alike(features: Float64Array, count: int, seed: int) -> list[list[int]]:
    """Rows of features (N, D) in groups of alike ones by k-means, the largest group first, each from its centre on."""
    from scipy.cluster.vq import kmeans2  # noqa: PLC0415  (only for the page of groups)

    count = max(1, min(count, len(features)))
    centres, assigned = kmeans2(features, count, minit="++", seed=np.random.default_rng(seed))
    groups: list[list[int]] = []
    for label in range(count):
        rows = np.flatnonzero(assigned == label)
        distance = ((features[rows] - centres[label]) ** 2).sum(axis=1)
        if len(rows):
            groups.append(rows[distance.argsort(kind="stable")].tolist())
    return sorted(groups, key=len, reverse=True)
