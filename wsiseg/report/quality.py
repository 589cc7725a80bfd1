"""What makes a slide's figures doubtful: each thing that was looked at, what was found, and what was not judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wsiseg.geometry import Mpp
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.focus import SHARP, focus_of
from wsiseg.slides.base import SlideReader
from wsiseg.slides.overview import read_overview
from wsiseg.system.printable import printable
from wsiseg.tissue.find import stained_tissue
from wsiseg.tissue.stain import find_glass, pen
from wsiseg.tissue_map.distance import Far
from wsiseg.tissue_map.finer import interpolated_from_um

State = Literal["ok", "flagged", "not judged"]

UNREAD_SHARE = 0.01
PEN_SHARE = 0.01
BLURRED_SHARE = 0.1
UNSURE_SHARE = 0.2
UNSURE = 0.6
"""A cell whose likeliest class has less than this is of low confidence."""

DECIDED_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Flag:
    """One thing that was looked at.

    Attributes:
        name: in tables: "unread", "low_confidence", "gate", "pen", "blur", "stain".
        state: "flagged" where a person should look.
        text: what was found, or why it was not judged.
        value: the share that was found, 0 to 1; None where there is none.
    """

    name: str
    state: State
    text: str
    value: float | None = None


def map_flags(coarse: CoarseMap, unsure: float = UNSURE) -> list[Flag]:
    """What the map itself tells."""
    metadata = coarse.source.metadata
    return [_empty(coarse), _unread(metadata), _unsure(coarse, unsure), _gate(coarse), _far(metadata)]


def slide_flags(slide: SlideReader | None, why: str = "") -> list[Flag]:
    """What only the slide tells.

    Args:
        slide: open for reading; None where it is not at hand.
        why: what to say then.
    """
    if slide is None:
        return [Flag(name, "not judged", f"{name}: {why}") for name in ("pen", "blur")]
    return [_pen(slide), _blur(slide)]


def _empty(coarse: CoarseMap) -> Flag:
    tissue = float(coarse.source.metadata.get("tissue_mm2", 0.0))
    if not coarse.classified.any():
        return Flag("tissue", "flagged", "nothing in this map has a class", 0.0)
    return Flag("tissue", "ok", f"{tissue:.2f} mm² of tissue")


def _unread(metadata: Mapping[str, Any]) -> Flag:
    unread, tissue = (float(metadata.get(key, 0.0)) for key in ("unread_mm2", "tissue_mm2"))
    share = unread / tissue if tissue > 0 else 0.0
    state: State = "flagged" if share > UNREAD_SHARE else "ok"
    return Flag("unread", state, f"{share:.1%} of the tissue could not be read and has no class", share)


def _unsure(coarse: CoarseMap, unsure: float) -> Flag:
    if not coarse.source.has_probabilities:
        return Flag("low_confidence", "not judged", "confidence: the map was written without probabilities")
    known = low = 0
    classified = coarse.classified
    for box, values in coarse.strips():
        inside = classified[box.slices()]
        assert values is not None
        known += int(np.count_nonzero(inside))
        low += int(np.count_nonzero(values.max(axis=0)[inside] < unsure * 255))
    share = low / known if known else 0.0
    text = f"in {share:.1%} of the classified area the likeliest class has a probability below {unsure:g}"
    finest_um = interpolated_from_um(coarse.source, coarse.level)
    if finest_um is not None:
        text += f" (interpolated from {finest_um:.3g} µm)"
    return Flag("low_confidence", "flagged" if share > UNSURE_SHARE else "ok", text, share)


def _gate(coarse: CoarseMap) -> Flag:
    tiles, gate = coarse.source.metadata.get("tiles"), coarse.source.metadata.get("parameters", {})
    if isinstance(gate, Mapping) and gate.get("gate") is False:
        return Flag("gate", "ok", "the gate was switched off")
    read, decided, shut = (
        tiles.get(key) if isinstance(tiles, Mapping) else None for key in ("read", "decided", "shut")
    )
    if not isinstance(read, int) or not isinstance(decided, int) or not isinstance(shut, Mapping) or read < 1:
        return Flag("gate", "not judged", "gate: the map does not say what the gate shut")
    always = [printable(name, 40) for name, count in shut.items() if count == read]
    share = decided / read
    text = f"the gate left one class alone in {share:.0%} of {read} patches"
    if always:
        return Flag("gate", "flagged", f"{text}; it shut {', '.join(always)} in every patch", share)
    return Flag("gate", "flagged" if share > DECIDED_SHARE else "ok", text, share)


def _far(metadata: Mapping[str, Any]) -> Flag:
    """Stain, scanner or tissue unlike what the model was trained on, as the distance that the map holds tells it."""
    far = Far.from_metadata(metadata)
    if far is None or math.isnan(far.share):
        why = "the map does not hold how far it is from the model's training data"
        return Flag("stain", "not judged", f"stain and tissue: {why}")
    text = f"{far.share:.0%} of the tissue looks unlike this model's training data (stain, scanner or tissue)"
    return Flag("stain", "flagged" if far.warning is not None else "ok", text, far.share)


def _pen(slide: SlideReader) -> Flag:
    grid, overview = read_overview(slide)
    mpp: Mpp = grid.mpp
    marked = pen(overview, find_glass(overview).level, mpp.mean)
    share = float(marked.mean())
    area = share * grid.size.area * mpp.pixel_area_um2 / 1e6
    text = f"pen marks: {area:.2f} mm², {share:.1%} of the slide" if marked.any() else "no pen marks"
    return Flag("pen", "flagged" if share > PEN_SHARE else "ok", text, share)


def _blur(slide: SlideReader) -> Flag:
    found = focus_of(slide, stained_tissue(slide))
    if found is None:
        return Flag("blur", "not judged", f"blur: the slide is too coarse to tell ({slide.mpp} um per pixel)")
    if found.judged == 0:
        return Flag("blur", "not judged", "blur: no square of tissue shows structures to judge")
    text = (
        f"{found.blurred} of {found.judged} squares of tissue are out of focus "
        f"(median sharpness {found.median:.2f}, sharp from {SHARP:g})"
    )
    return Flag("blur", "flagged" if found.share > BLURRED_SHARE else "ok", text, found.share)
