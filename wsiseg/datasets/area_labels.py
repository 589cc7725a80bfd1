"""From known pixels to the label of a patch: 1, 0, or not known. One rule for drawings, corrections and masks."""

from __future__ import annotations

PRESENT_SHARE = 0.05
"""Of a patch, from which on a class counts as present."""

COMPLETE_SHARE = 0.95
"""Of a patch that must be known not to be a class, before its absence is."""


def area_label(present_px: int, absent_px: int, total_px: int) -> int | None:
    """Whether a class occurs in a patch: 1, 0, or None where nobody knows.

    It is present where it covers 5 % of the patch, absent where it covers nothing and 95 % are known not to be it.

    Args:
        present_px: pixels known to be of the class.
        absent_px: pixels known not to be.
        total_px: of the patch.
    """
    if present_px >= PRESENT_SHARE * total_px:
        return 1
    return 0 if present_px == 0 and absent_px >= COMPLETE_SHARE * total_px else None
