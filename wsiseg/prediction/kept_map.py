"""A map that is there, held against what a run would make in its place: the same slide, model and parameters?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from wsiseg.choices import left_open
from wsiseg.models.runtime.choose import Runtime
from wsiseg.prediction.options import OF_SPEED, PredictOptions, ResolvedOptions
from wsiseg.prediction.result import slide_provenance, tissue_provenance
from wsiseg.slides.base import SlideReader
from wsiseg.system.json_values import is_number, is_whole

_NO_MATTER = (*OF_SPEED, "device", "batch_size", "faithful")
"""Options that change nothing in a map but rounding, or whose effect is in other resolved ones."""

_OF_SLIDE = ("mpp", "reader")
"""Options that show in what a map says of its slide."""

_SLIDE = ("reader", "width", "height", "mpp", "bounds")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Model, options and versions of the maps that a run makes.

    Attributes:
        model_hash: of its model.
        options: resolved.
        asked: as they were given, where "auto" takes whatever a map was made with.
        runtime: what would compute.
        versions: of the libraries that the bytes of a map depend on.
    """

    model_hash: str
    options: ResolvedOptions
    asked: PredictOptions
    runtime: Runtime
    versions: Mapping[str, str]


def difference(metadata: Mapping[str, Any], slide: SlideReader, wanted: Wanted) -> str | None:
    """Compare a map with the one that a run would make: the first difference in words, None where there is none.

    Args:
        metadata: of the map, as `TissueMap` has it.
        slide: that the run would read.
        wanted: what it would make.
    """
    if metadata["slide"]["quick_hash"] != slide.quick_hash():
        return "was made from another slide, or from this one before its file was altered"
    if metadata["model"]["hash"] != wanted.model_hash:
        there, here = metadata["model"]["hash"][:12], wanted.model_hash[:12]
        return f"was made by another model ({_shown(metadata['model'].get('name'))}, {there}…; this one is {here}…)"
    for name, there, here in _compared(metadata, slide, wanted):
        if there != here:
            return f"was made with {name.replace('_', ' ')} {_shown(there)}, this run has {_shown(here)}"
    return None


def other_versions(metadata: Mapping[str, Any], wanted: Wanted) -> str | None:
    """A note on libraries that have another version than when a map was made, None where all are the same."""
    there = metadata.get("software")
    known = there if isinstance(there, dict) else {}
    changed = [
        f"{name} {_shown(known[name])} (now {number})"
        for name, number in wanted.versions.items()
        if name in known and known[name] != number
    ]
    return f"its map was made with {', '.join(changed)}" if changed else None


def recorded_damage(metadata: Mapping[str, Any]) -> tuple[int, float]:
    """Damaged tiles of the slide's file that a map records, and their area in mm2; none where it says nothing."""
    damage = metadata.get("damage")
    tiles, area = (damage.get("tiles"), damage.get("area_mm2")) if isinstance(damage, dict) else (0, 0.0)
    return (tiles if is_whole(tiles) else 0), (float(area) if is_number(area) else 0.0)


def _compared(metadata: Mapping[str, Any], slide: SlideReader, wanted: Wanted) -> Iterator[tuple[str, Any, Any]]:
    """Names, what the map has, and what the run has."""
    here = json.loads(json.dumps(slide_provenance(slide)))
    for key in _SLIDE:
        yield f"the slide's {key}", metadata["slide"].get(key), here[key]
    there = metadata.get("parameters")
    made = dict(there) if isinstance(there, dict) else {}
    made["probabilities"] = _word_of(made.get("probabilities", True))
    defaults = {one.name: one.default for one in fields(PredictOptions)}
    own = {**asdict(wanted.options), **tissue_provenance(wanted.options.tissue)}
    if left_open(wanted.asked.runtime):
        del own["runtime"]
    else:
        own |= {"runtime": wanted.runtime.name, "exact": wanted.runtime.exact}
    own["precision"] = wanted.runtime.precision
    if left_open(wanted.asked.precision):
        del own["precision"]
    if wanted.asked.probabilities is None and made["probabilities"] in ("full", "coarse"):
        del own["probabilities"]
    own.setdefault("tissue_sha256", None)
    for key, value in json.loads(json.dumps(own)).items():
        if (key != "exact" or key in made) and key not in (*_NO_MATTER, *_OF_SLIDE):
            yield key, made.get(key, defaults.get(key)), value


def _word_of(probabilities: Any) -> Any:
    """Maps of earlier versions say true or false."""
    return {True: "full", False: "none"}[probabilities] if isinstance(probabilities, bool) else probabilities


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:12] + "…"
