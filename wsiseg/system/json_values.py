"""JSON: an object's type, and what counts as a number in what comes from outside. Pure."""

from __future__ import annotations

import math
from typing import Any, TypeAlias, TypeGuard

JsonObject: TypeAlias = dict[str, Any]
"""What is written as JSON or was read from it. Values on their way between functions have types of their own."""


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number: neither a truth value, nor 1.0, nor "1"."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number that a float holds: neither a truth value, nor text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False
