"""Candidates for labelling: patches of tissue at the model's resolution, spread over slides and patients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from wsiseg.errors import OptionError
from wsiseg.geometry import Box, ceil_div
from wsiseg.prediction.plan import plan
from wsiseg.slides.base import SlideReader
from wsiseg.tiling.grid import Tiling

LEAST_TISSUE = 0.5
"""Share of a patch that must be tissue for it to be shown."""


@dataclass(frozen=True, slots=True)
class LabelSlide:
    """A slide that patches are taken from.

    Attributes:
        name: of the file, without its folder.
        path: path or address, for reading.
        hash: of its content; see `wsiseg.slides.base.SlideReader.quick_hash`.
        group: patient, or the slide itself where none is known.
    """

    name: str
    path: str
    hash: str
    group: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A patch that may be labelled.

    Attributes:
        id: made from slide and place; tells nothing of either.
        slide: name of the slide.
        group: the slide's.
        x: left edge in level-0 pixels, None where it is not known.
        y: upper edge in level-0 pixels.
        box: its place in map pixels at the patch's mpp; None where there is no slide.
    """

    id: str
    slide: str
    group: str
    x: float | None
    y: float | None
    box: Box | None


def candidates_of(
    reader: SlideReader,
    slide: LabelSlide,
    mpp: float,
    patch_px: int,
    most: int,
    *,
    tissue: str | Path = "otsu",
    seed: int = 0,
) -> list[Candidate]:
    """Patches of one slide's tissue, in an order by chance that only slide and seed decide.

    Patches lie side by side and do not overlap. At least half of each is tissue.

    Args:
        reader: of the slide.
        slide: what is known of it.
        mpp: microns per pixel of a patch.
        patch_px: side of a patch in pixels.
        most: how many to find at most.
        tissue: "otsu", "none", or a file of one's own regions; see `wsiseg.tissue.find.tissue_mask`.
        seed: of the order.

    Raises:
        SlideError: the slide cannot be read, or its mpp is unknown.
        OptionError: the regions do not fit the slide.
    """
    found = plan(reader, mpp, Tiling(patch_px, 0), tissue)
    places = np.argwhere(found.selected)
    order = np.random.default_rng([seed, int(slide.hash[:12], 16)]).permutation(len(places))
    whole = Box.from_size(found.grid.size)
    kept: list[Candidate] = []
    for row, column in places[order].tolist():
        if len(kept) == most:
            break
        box = found.tiles.box(row, column)
        inside = box.intersect(whole)
        if inside.size.area < box.size.area:
            continue  # reaches over the slide's edge
        if found.mask.rows(found.grid, box).mean() < LEAST_TISSUE:
            continue
        x, y = box.x * found.grid.step_x, box.y * found.grid.step_y
        kept.append(Candidate(candidate_id(slide.hash, x, y), slide.name, slide.group, x, y, box))
    return kept


def candidate_id(slide_hash: str, x: float, y: float) -> str:
    """What a patch is called: 16 hexadecimal digits, the same for the same place of the same slide."""
    return hashlib.sha256(f"{slide_hash} {x:.3f} {y:.3f}".encode()).hexdigest()[:16]


def in_turn(of_slides: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """Candidates of several slides, one of each patient in turn, and of each patient's slides in turn.

    So every beginning of the list is spread over patients as equally as can be.
    """
    patients: dict[str, list[Sequence[Candidate]]] = {}
    for candidates in of_slides:
        if candidates:
            patients.setdefault(candidates[0].group, []).append(candidates)
    return list(_in_turn([list(_in_turn(slides)) for slides in patients.values()]))


def _in_turn(lists: Iterable[Sequence[Candidate]]) -> Iterator[Candidate]:
    return (candidate for candidate in chain.from_iterable(zip_longest(*lists)) if candidate is not None)


def share_of(most: int, slides: int) -> int:
    """How many candidates each slide gives, so that all together give about `most`.

    Raises:
        OptionError: there is no slide, or no candidate is wanted.
    """
    if slides < 1 or most < 1:
        raise OptionError(f"labelling needs at least one slide and one patch, got {slides} and {most}")
    return ceil_div(most, slides)
