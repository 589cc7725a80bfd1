"""What a file of polygons records: its origin, how it was made, and how areas changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from wsiseg.geojson.measures import UNCERTAIN_BELOW, measured_level
from wsiseg.geojson.write import Facts
from wsiseg.polygons.drawing import AREA_CHANGE
from wsiseg.tissue_map.reader import TissueMap

QUPATH_NAMES = {
    "tumor": "Tumor",
    "tumour": "Tumor",
    "stroma": "Stroma",
    "lymphocyte": "Immune cells",
    "lymphocytes": "Immune cells",
    "immune": "Immune cells",
    "immune cells": "Immune cells",
    "necrosis": "Necrosis",
    "necrotic": "Necrosis",
    "other": "Other",
}
"""How QuPath's list of classes, as it comes, spells those of ours (in small letters) that it has."""


def class_areas(
    names: Sequence[str], map_um2: Sequence[float], polygons_um2: Mapping[int, float], min_area_um2: Sequence[float]
) -> list[dict[str, Any]]:
    """How the area of each class changed, as plain JSON.

    Args:
        names: of the classes, in order.
        map_um2: their areas in the map.
        polygons_um2: in the polygons, by index.
        min_area_um2: smallest region that was kept of each; empty for exact polygons.
    """
    rows: list[dict[str, Any]] = []
    for index, (name, area) in enumerate(zip(names, map_um2, strict=True), start=1):
        drawn = polygons_um2.get(index, 0.0)
        change = drawn / area - 1 if area > 0 else 0.0
        row = {"name": name, "map_um2": area, "polygons_um2": drawn, "change": change}
        row["within"] = abs(change) <= AREA_CHANGE
        if min_area_um2:
            row["min_area_um2"] = min_area_um2[index - 1]
        rows.append(row)
    return rows


def facts_of_map(tissue_map: TissueMap, drawn: Mapping[str, Any], *, qupath_names: bool) -> Facts:
    """The facts that go into a file of polygons: names of classes, metadata, and the file's own member.

    Args:
        tissue_map: open for reading.
        drawn: what `export_geojson` returns, `classes` from `class_areas`.
        qupath_names: whether classes are spelled as QuPath's own list has them.
    """
    names = {}
    if qupath_names:
        table = {name: QUPATH_NAMES.get(name.strip().lower(), name) for name in tissue_map.classes.names}
        # Two of ours are not made one of QuPath's.
        names = {own: other for own, other in table.items() if list(table.values()).count(other) == 1}
    own, model = tissue_map.metadata, tissue_map.metadata["model"]
    software = own.get("software")
    made_by = software.get("wsiseg") if isinstance(software, Mapping) else None
    metadata = {
        "Slide": own["slide"]["name"],
        "Slide hash": own["slide"]["quick_hash"],
        "Model": _text(model.get("name", "")),
        "Model hash": model["hash"],
        "wsiseg": _text(made_by or version("wsiseg")),
        "Map mpp": str(tissue_map.mpp),
        "Tolerance um": "0" if drawn["exact"] else f"{drawn['tolerance_um']:.4g}",
    }
    document = {
        "slide": {"name": own["slide"]["name"], "hash": own["slide"]["quick_hash"]},
        "model": {"name": metadata["Model"], "hash": model["hash"]},
        "version": {"map": metadata["wsiseg"], "polygons": version("wsiseg")},
        "map_mpp": [tissue_map.mpp.x, tissue_map.mpp.y],
        "polygons": {key: drawn[key] for key in DOCUMENTED if key in drawn},
        "classes": drawn["classes"],
    }
    if tissue_map.has_probabilities:
        level = measured_level(tissue_map)
        document["measurements"] = {"uncertain_below": UNCERTAIN_BELOW, "level_um": tissue_map.mpp.times(2**level).mean}
    class_metadata = {index: _class_metadata(row) for index, row in enumerate(drawn["classes"], start=1)}
    return Facts(names, metadata, class_metadata, document)


DOCUMENTED = ("exact", "tolerance_um", "moved_um", "level", "level_um", "within_budget")
"""The keys that describe how polygons were made."""


def _text(value: object) -> str:
    """What a map states, as text that any file can hold."""
    return str(value)[:200].encode(errors="replace").decode()


def _class_metadata(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "Minimum area um^2": f"{row.get('min_area_um2', 0):.4g}",
        "Class in map um^2": f"{row['map_um2']:.1f}",
        "Class in polygons um^2": f"{row['polygons_um2']:.1f}",
        "Class area change": f"{row['change']:+.2%}",
    }
