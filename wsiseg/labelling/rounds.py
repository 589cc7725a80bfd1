"""Rounds of patches to answer: an order that is written down before it is shown, so that a restart shows it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from wsiseg.labelling.answers import Source
from wsiseg.labelling.choose import Chosen
from wsiseg.system.json_values import JsonObject

REPEATED = 0.05
"""Share of a round that is shown a second time, unmarked, to see how well a person agrees with herself."""


@dataclass(frozen=True, slots=True)
class Item:
    """One place of a round.

    Attributes:
        patch: id of the candidate.
        source: why it is shown.
    """

    patch: str
    source: Source


@dataclass(frozen=True, slots=True)
class Round:
    """Patches in the order in which they are shown.

    Attributes:
        number: from 1.
        items: its patches.
        model_hash: of the model or encoder that helped to choose; empty where chance alone did.
    """

    number: int
    items: tuple[Item, ...]
    model_hash: str = ""

    def to_json(self) -> JsonObject:
        """As the journal has it."""
        return {
            "do": "round",
            "number": self.number,
            "items": [[item.patch, item.source] for item in self.items],
            "model_hash": self.model_hash,
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """From what `to_json` gave."""
        items = tuple(Item(patch, source) for patch, source in line["items"])
        return cls(int(line["number"]), items, str(line["model_hash"]))


def with_repeats(
    chosen: Sequence[Chosen], patches: Sequence[str], answered: Sequence[str], number: int, seed: int
) -> tuple[Item, ...]:
    """The items of a round, with some of the patches that were answered before put between them.

    Args:
        chosen: new patches, in order.
        patches: ids of all candidates.
        answered: ids of those that have a label from this person and were not shown again yet.
        number: of the round.
        seed: of the places of the repeats.
    """
    rng = np.random.default_rng([seed, number])
    items = [Item(patches[one.index], one.source) for one in chosen]
    count = min(len(answered), round(REPEATED * len(items)))
    for patch in rng.permutation(sorted(answered))[:count].tolist():
        items.insert(int(rng.integers(len(items) + 1)), Item(patch, "repeat"))
    return tuple(items)
