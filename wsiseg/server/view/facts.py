"""What the page is told of slides and maps; no paths."""

from __future__ import annotations

from typing import Any

from wsiseg.server.view.cases import Case, ShownMap
from wsiseg.server.view.slide_tiles import TILE_PX
from wsiseg.system.json_values import JsonObject, is_whole
from wsiseg.tissue_map.finer import interpolated_from_um

_AREAS = ("tissue_mm2", "white_mm2", "unread_mm2")


def case_facts(case: Case) -> JsonObject:
    """A slide and its maps, as plain JSON; lengths in level-0 pixels, areas in mm²."""
    return {
        "id": case.id,
        "name": case.name,
        "width": case.size.width,
        "height": case.size.height,
        "mpp": [case.mpp.x, case.mpp.y],
        "slide": case.slide is not None,
        "tile": TILE_PX,
        "notes": [] if case.slide is None else list(case.slide.notes),
        "maps": [map_facts(shown) for shown in case.maps],
    }


def map_facts(shown: ShownMap) -> JsonObject:
    """A map, as plain JSON."""
    opened, own = shown.map, shown.map.metadata
    return {
        "id": shown.id,
        "name": opened.path.name,
        "model": str(own["model"].get("name") or own["model"]["hash"][:12]),
        "finished": str((own.get("times") or {}).get("finished", "")),
        "classes": opened.classes.to_json(),
        "width": opened.size.width,
        "height": opened.size.height,
        "step": [opened.grid.step_x, opened.grid.step_y],
        "mpp": [opened.mpp.x, opened.mpp.y],
        "levels": opened.levels,
        "probabilities": opened.has_probabilities,
        "interpolated_from_um": interpolated_from_um(opened, 0),
        "areas": [row["area_mm2"] for row in own.get("areas", [])],
        **{key: own.get(key, 0) for key in _AREAS},
        "gate": _gate(own),
        "records": {"gate": opened.records_gate, "unread": opened.records_unread},
        "holes": opened.records_unread and (own.get("unread_mm2", 0) > 0 or _damaged_tiles(own) > 0),
        "notes": [str(note) for note in own.get("notes") or []],
    }


def _damaged_tiles(own: Any) -> int:
    damage = own.get("damage")
    tiles = damage.get("tiles") if isinstance(damage, dict) else 0
    return tiles if is_whole(tiles) else 0


def _gate(own: Any) -> JsonObject | None:
    """In how many tiles the gate shut each class; None where there was no gate, or the map does not say."""
    tiles, parameters = own.get("tiles") or {}, own.get("parameters") or {}
    if not isinstance(tiles, dict) or not parameters.get("gate") or not isinstance(tiles.get("shut"), dict):
        return None
    return {"gated": tiles.get("gated", 0), "read": tiles.get("read", 0), "shut": tiles["shut"]}
