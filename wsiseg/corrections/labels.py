"""From known pixels to the label of a patch: 1, 0, or not known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from wsiseg.corrections.evidence import UNKNOWN, Evidence

PRESENT_SHARE = 0.05
"""Of a patch, from which on a class counts as present."""

COMPLETE_SHARE = 0.95
"""Of a patch that must be known not to be a class, before its absence is."""


def patch_labels(
    evidence: Evidence, names: Sequence[str], outside_px: int, dots: Iterable[int] = (), *, coarse: bool = False
) -> dict[str, int]:
    """The label of a patch by class name; a class that is not in it is unknown.

    A class is present where it covers 5 % of the patch, or a class point lies in it. It is absent where it covers
    nothing and 95 % of the patch are known to be something else. In between nobody knows.

    Args:
        evidence: of the patch's pixels.
        names: of the classes, in the order of their channels.
        outside_px: pixels of the patch outside the map, where nothing is.
        dots: channels of the class points in it.
        coarse: an area of a class may hold others as well, so that it says nothing of their absence.
    """
    found = {}
    pointed = set(dots)
    total = evidence.known.size
    for channel, name in enumerate(names):
        present = int((evidence.known == channel).sum())
        other = (evidence.known != UNKNOWN) & (evidence.known != channel) & (not coarse)
        absent = int((other | evidence.none | (evidence.absent == channel)).sum()) + outside_px
        if channel in pointed or present >= PRESENT_SHARE * total:
            found[name] = 1
        elif present == 0 and absent >= COMPLETE_SHARE * total:
            found[name] = 0
    return found


def crop(evidence: Evidence, rows: slice, columns: slice) -> Evidence:
    """The evidence of a part; what moved and conflicts stay with the whole."""
    part = (rows, columns)
    return Evidence(evidence.known[part], evidence.none[part], evidence.absent[part], np.zeros_like(evidence.moved), 0)
