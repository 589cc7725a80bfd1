"""Masks held against the labels and the pictures that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wsiseg.classes import ClassTable
from wsiseg.datasets.files import Facts
from wsiseg.datasets.patch import UNKNOWN, Patch
from wsiseg.datasets.problems import Report
from wsiseg.errors import DatasetError

LOOKED_AT = 100
"""Masks, at most, that are read once more in another coding."""

MOSTLY, WHOLLY, PART = 0.5, 0.9, 0.05
"""Shares: of white among the pixels of a class in all masks, and in one; and of the mask that these are, at least."""


def check_coding(disagreeing: Sequence[tuple[Patch, Sequence[int]]], report: Report) -> None:
    """Tell where masks agree with their labels once 0 is read as unlabelled and the classes begin at 1.

    Args:
        disagreeing: patches whose mask says something else than their label, and that label.
        report: takes what is found.
    """
    chosen = [(p, label) for p, label in disagreeing if p.coding and (p.coding.offset, p.coding.excluded) == (0, None)]
    chosen = chosen[:: -(-len(chosen) // LOOKED_AT) or 1]
    agreeing = [patch for patch, label in chosen if _agrees(patch, label)]
    if agreeing and 2 * len(agreeing) > len(chosen):
        report(
            "coding",
            agreeing[0].name,
            f"{len(agreeing)} of {len(chosen)} masks that disagree with their labels, {agreeing[0].name} among them, "
            "agree if 0 is unlabelled and the first class is 1",
        )


def _agrees(patch: Patch, label: Sequence[int]) -> bool:
    assert patch.coding is not None
    assert patch.mask is not None
    coding = replace(patch.coding, excluded=0, offset=1)
    try:
        truth = coding.read(patch.mask)
    except DatasetError:
        return False
    there = np.bincount(truth.ravel(), minlength=len(label) + 1)[:-1] > 0
    return all(said in (UNKNOWN, int(found)) for said, found in zip(label, there, strict=False))


def check_white(
    splits: Mapping[str, Sequence[Patch]],
    facts: Mapping[str, Sequence[Facts]],
    classes: ClassTable | None,
    report: Report,
) -> None:
    """Tell of classes that masks give to white pixels: everywhere, or in single masks."""
    masked = [
        (patch, seen.pixels, seen.white)
        for split, patches in splits.items()
        for patch, seen in zip(patches, facts[split], strict=True)
        if seen.pixels is not None and seen.white is not None
    ]
    if classes is None or not masked:
        return
    pixels = np.sum([of_class for _, of_class, _ in masked], axis=0)
    white = np.sum([bright for _, _, bright in masked], axis=0)
    for channel, name in enumerate(classes.names):
        if white[channel] > MOSTLY * pixels[channel]:
            share = 100 * white[channel] / pixels[channel]
            report("white class", name, f"{name}: {share:.0f} % of its pixels in masks are white in the images")
            continue
        for patch, of_class, bright in masked:
            if bright[channel] > max(WHOLLY * of_class[channel], PART * of_class.sum()):
                share = 100 * bright[channel] / of_class[channel]
                report("white", patch.name, f"{patch.name}: {share:.0f} % of what its mask calls {name} is white")
