"""From known pixels to the label of a patch: 1, 0, or not known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from wsiseg.corrections.evidence import UNKNOWN, Evidence
from wsiseg.datasets.area_labels import area_label


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
        label = 1 if channel in pointed else area_label(present, absent, total)
        if label is not None:
            found[name] = label
    return found


def crop(evidence: Evidence, rows: slice, columns: slice) -> Evidence:
    """The evidence of a part; what moved and conflicts stay with the whole."""
    part = (rows, columns)
    return Evidence(evidence.known[part], evidence.none[part], evidence.absent[part], np.zeros_like(evidence.moved), 0)
