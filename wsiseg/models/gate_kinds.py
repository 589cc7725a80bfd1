"""What the modes and rules of the gate ask of a model and of a run. No name of one is compared anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wsiseg.choices import GateMode, GateRule
from wsiseg.errors import BundleError


@dataclass(frozen=True, slots=True)
class ModeKind:
    """What a mode of the gate is like.

    Attributes:
        large_tiles: it is shown tiles larger than a patch, and gates them in windows of a patch's size.
        shared_head: a head on the segmenter's own encoder gates, with thresholds of its own; the classifier is not
            asked.
    """

    large_tiles: bool
    shared_head: bool


@dataclass(frozen=True, slots=True)
class RuleKind:
    """What a rule of the gate is like.

    Attributes:
        by_sign: a class that may not occur keeps a score of 0, so that the sign of a logit decides whether it wins.
            Networks are then computed exactly and asked about every patch, white gets no rule of its own, and windows
            of large tiles, which are averages, do not go with it.
    """

    by_sign: bool


MODES: Mapping[GateMode, ModeKind] = {
    "patches": ModeKind(large_tiles=False, shared_head=False),
    "windows": ModeKind(large_tiles=True, shared_head=False),
    "shared": ModeKind(large_tiles=True, shared_head=True),
}

RULES: Mapping[GateRule, RuleKind] = {
    "exclude": RuleKind(by_sign=False),
    "multiply_logits": RuleKind(by_sign=True),
}


def check_gate_floor(floor: float | None, rule: GateRule) -> None:
    """Refuse a floor where the sign of a logit decides, as the published rule has none.

    Raises:
        BundleError: then.
    """
    if floor is not None and RULES[rule].by_sign:
        raise BundleError(f"the gate rule {rule} has no floor, got {floor:g}: leave it out, or use the rule exclude")
