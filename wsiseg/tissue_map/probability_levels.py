"""How much of its probabilities a map keeps. Pure.

"full" keeps them at every level. "coarse" leaves out the two finest levels, rounds the next one to steps of 5/255, and
takes the others from that: a map is then about a ninth as large. The steps are such that 0, 1 and what lies to either
side of 0.5 and of 0.6, where places count as uncertain, stay so. `docs/tissue-map.md` has what this loses, and what
other forms would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wsiseg.arrays import UInt8Array
from wsiseg.choices import Probabilities
from wsiseg.errors import OptionError
from wsiseg.system.json_values import JsonObject, is_whole

MOST_FIRST = 8
MOST_STEP = 51


@dataclass(frozen=True, slots=True)
class ProbabilityLevels:
    """Which levels of a map's pyramid have probabilities, and how fine these are.

    Attributes:
        first: the finest level that has them; all coarser ones do.
        step: at that level they are multiples of this, in 255ths; coarser levels are means of it.
    """

    first: int = 0
    step: int = 1

    @property
    def word(self) -> Probabilities:
        """What is chosen to get these."""
        return "full" if self == FULL else "coarse"

    @property
    def factor(self) -> int:
        """Map pixels along a pixel of the finest level that has probabilities."""
        return int(2**self.first)

    def rounded(self, values: UInt8Array) -> UInt8Array:
        """The nearest multiples of the step."""
        if self.step == 1:
            return values
        table = (np.arange(256) + self.step // 2) // self.step * self.step
        return np.asarray(table.astype(np.uint8)[values])

    def to_json(self) -> bool | JsonObject:
        """As a map's metadata has it: true of all, as maps had it before there was a choice."""
        return True if self == FULL else {"first_level": self.first, "step": self.step}

    @classmethod
    def from_json(cls, value: object) -> ProbabilityLevels | None:
        """The inverse of `to_json`; None where a map keeps no probabilities.

        Raises:
            OptionError: for anything else.
        """
        if value is None or isinstance(value, bool):
            return FULL if value else None
        fields = value if isinstance(value, Mapping) else {}
        first, step = fields.get("first_level"), fields.get("step")
        if not (is_whole(first) and 0 <= first <= MOST_FIRST and is_whole(step) and 1 <= step <= MOST_STEP):
            raise OptionError(
                f"probabilities must be true, false, or first_level (0 to {MOST_FIRST}) with step (1 to {MOST_STEP}), "
                f"got {value!r:.80}"
            )
        return cls(first, step)


FULL = ProbabilityLevels()
COARSE = ProbabilityLevels(2, 5)


def levels_of_choice(choice: Probabilities | bool) -> ProbabilityLevels | None:
    """What is kept where "full" (or true), "coarse" or "none" (or false) is chosen; None for nothing."""
    return {"full": FULL, True: FULL, "coarse": COARSE}.get(choice)
