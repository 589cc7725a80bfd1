"""The origin of a map's exports, as text: slide, model, classes, scale, areas."""

from __future__ import annotations

from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import MapError
from wsiseg.system.printable import printable
from wsiseg.tissue_map.area_table import AreaTable
from wsiseg.tissue_map.reader import TissueMap

LONGEST = 200
"""Letters of one value."""


def map_name(tissue_map: TissueMap) -> str:
    """A name for people: that of the slide, and what was made of it."""
    return f"{printable(tissue_map.metadata['slide']['name'], LONGEST)} tissue map"


def key_values(tissue_map: TissueMap) -> dict[str, str]:
    """Names and values, printable; those of classes begin with "class", so that no class takes another's place."""
    slide, model = tissue_map.metadata["slide"], tissue_map.metadata["model"]
    software = tissue_map.metadata.get("software")
    made_by = software.get("wsiseg") if isinstance(software, dict) else None
    found = {
        "slide": slide["name"],
        "slide quick hash": slide["quick_hash"],
        "model": model.get("name", "not named"),
        "model hash": model["hash"],
        "map made by": f"wsiseg {made_by}" if made_by else "wsiseg",
        "um per pixel": str(tissue_map.mpp),
        "value 0": "not tissue, or not read",
    }
    try:
        areas = {row.name: row.area_mm2 for row in AreaTable.from_metadata(tissue_map.path, tissue_map.metadata)}
    except MapError:  # a map need not have any
        areas = {}
    for tissue_class in tissue_map.classes:
        area = f", {areas[tissue_class.name]:.4f} mm2" if tissue_class.name in areas else ""
        found[f"class {tissue_class.index}"] = f"{tissue_class.name}, #{tissue_class.hex_color}{area}"
    found[f"value {WHITE_VALUE}"] = "white: tissue without a class"
    return {key: printable(value, LONGEST) for key, value in found.items()}
