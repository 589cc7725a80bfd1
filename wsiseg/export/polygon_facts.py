"""What a file of polygons records: its origin, how it was made, and how areas changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from wsiseg.export.drawn_polygons import DrawnClass, Simplification
from wsiseg.geojson.measures import UNCERTAIN_BELOW, measured_level
from wsiseg.geojson.write import Facts
from wsiseg.system.json_values import JsonObject
from wsiseg.tissue_map.finer import interpolated_from_um
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
) -> list[DrawnClass]:
    """How the area of each class changed.

    Args:
        names: of the classes, in order.
        map_um2: their areas in the map.
        polygons_um2: in the polygons, by index.
        min_area_um2: smallest region that was kept of each; empty for exact polygons.
    """
    least: Sequence[float | None] = min_area_um2 or [None] * len(names)
    return [
        DrawnClass(name, area, polygons_um2.get(index, 0.0), smallest)
        for index, (name, area, smallest) in enumerate(zip(names, map_um2, least, strict=True), start=1)
    ]


def facts_of_map(
    tissue_map: TissueMap, classes: Sequence[DrawnClass], simplification: Simplification | None, *, qupath_names: bool
) -> Facts:
    """The facts that go into a file of polygons: names of classes, metadata, and the file's own member.

    Args:
        tissue_map: open for reading.
        classes: from `class_areas`.
        simplification: what it did; None for exact polygons.
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
        "Tolerance um": "0" if simplification is None else f"{simplification.tolerance_um:.4g}",
    }
    document = {
        "slide": {"name": own["slide"]["name"], "hash": own["slide"]["quick_hash"]},
        "model": {"name": metadata["Model"], "hash": model["hash"]},
        "version": {"map": metadata["wsiseg"], "polygons": version("wsiseg")},
        "map_mpp": [tissue_map.mpp.x, tissue_map.mpp.y],
        "polygons": _documented(simplification),
        "classes": [row.to_json() for row in classes],
    }
    if tissue_map.has_probabilities:
        level = measured_level(tissue_map)
        measured = {"uncertain_below": UNCERTAIN_BELOW, "level_um": tissue_map.mpp.times(2**level).mean}
        if (finest_um := interpolated_from_um(tissue_map, level)) is not None:
            measured["interpolated_from_um"] = finest_um
        document["measurements"] = measured
    class_metadata = {index: _class_metadata(row) for index, row in enumerate(classes, start=1)}
    return Facts(names, metadata, class_metadata, document)


def _documented(simplification: Simplification | None) -> JsonObject:
    """How polygons were made."""
    if simplification is None:
        return {"exact": True}
    names = ("tolerance_um", "moved_um", "level", "level_um", "within_budget")
    return {"exact": False, **{name: getattr(simplification, name) for name in names}}


def _text(value: object) -> str:
    """What a map states, as text that any file can hold."""
    return str(value)[:200].encode(errors="replace").decode()


def _class_metadata(row: DrawnClass) -> dict[str, str]:
    return {
        "Minimum area um^2": f"{row.min_area_um2 or 0:.4g}",
        "Class in map um^2": f"{row.map_um2:.1f}",
        "Class in polygons um^2": f"{row.polygons_um2:.1f}",
        "Class area change": f"{row.change:+.2%}",
    }
