"""`wsiseg info MAP.zarr`: what a tissue map says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsiseg.system.addresses import place_text

if TYPE_CHECKING:
    from wsiseg.system.json_values import JsonObject
    from wsiseg.tissue_map.reader import TissueMap

SHOWN_APART = ("classes", "areas", "grid", "format")
"""Of a map's metadata, what other rows show."""


def is_map(path: str) -> bool:
    """Whether a path is meant as a tissue map: a name that ends in `.zarr`, or a folder with a Zarr group in it."""
    named = path.rstrip("/\\").lower().endswith(".zarr")
    return named or ("://" not in path and Path(path, "zarr.json").is_file())


def show_map(path: str, as_json: bool, quiet: bool) -> None:
    """Print what a map says of itself.

    Raises:
        SlideError: it is none, or damaged.
    """
    from wsiseg.tissue_map.reader import open_map

    facts = describe(open_map(path))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    elif not quiet:
        _print(facts)


def describe(tissue_map: TissueMap) -> JsonObject:
    """Everything that a map says of itself, plain JSON; sizes as [width, height], mpp as [x, y] in um per pixel."""
    own = tissue_map.metadata
    rows = own.get("areas", [])
    areas = {row["name"]: {key: row[key] for key in row if key != "name"} for row in rows}
    grid = tissue_map.grid
    levels = []
    for level in range(tissue_map.levels):
        size, (scale_y, scale_x) = grid.coarsen(2**level), tissue_map.scale_um(level)
        levels.append({"size": [size.width, size.height], "mpp": [scale_x, scale_y]})
    return {
        "map": place_text(tissue_map.path),
        "format": own["format"],
        "size": [tissue_map.size.width, tissue_map.size.height],
        "mpp": [tissue_map.mpp.x, tissue_map.mpp.y],
        "level0_px_per_map_px": [grid.step_x, grid.step_y],
        "levels": levels,
        "classes": [{**c, **areas.get(c["name"], {})} for c in tissue_map.classes.to_json()],
        **{key: value for key, value in own.items() if key not in SHOWN_APART},
    }


def _print(facts: Mapping[str, Any]) -> None:
    """Print the facts of a map as tables."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wsiseg.system.printable import printable

    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")  # hashes are there to be compared
    for name, value in _rows(facts):
        table.add_row(name, Text(printable(value)))
    console.print(table)
    console.print()
    console.print(_class_table(facts))
    levels = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("level", "size", "um/px"):
        levels.add_column(name, justify="right")
    for index, level in enumerate(facts["levels"]):
        levels.add_row(str(index), _pair(level["size"], "d"), _pair(level["mpp"], ".5g"))
    console.print()
    console.print(levels)


def _class_table(facts: Mapping[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from wsiseg.system.printable import printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("value", "class", "colour", "mm²", "% of tissue", "mean probability"):
        table.add_column(name, justify="left" if name in ("class", "colour") else "right")
    tissue = facts.get("tissue_mm2", 0)

    def percent(area_mm2: float) -> str:
        return f"{100 * area_mm2 / tissue:.1f}" if tissue > 0 else ""

    for row in facts["classes"]:
        color = "#{:02X}{:02X}{:02X}".format(*row["color"])
        figures = ("", "", "")
        if "area_mm2" in row:
            figures = (f"{row['area_mm2']:.4f}", percent(row["area_mm2"]), f"{row['mean_probability']:.2f}")
        table.add_row(str(row["index"]), Text(printable(row["name"])), Text(color, style=color), *figures)
    for key in ("white_mm2", "unread_mm2", "tissue_mm2"):
        if key in facts:
            table.add_row("", key.removesuffix("_mm2"), "", f"{facts[key]:.4f}", percent(facts[key]), "")
    return table


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, as text."""
    slide, model = facts["slide"], facts["model"]
    rows = [
        ("map", facts["map"]),
        ("slide", f"{slide['name']}, {_named(slide, 'width')} x {_named(slide, 'height')} px"),
        ("  quick hash", slide["quick_hash"]),
        ("model", str(model.get("name", "not named"))),
        ("  hash", model["hash"]),
        ("size", f"{_pair(facts['size'], 'd')} px at {_pair(facts['mpp'], '.5g')} um per pixel"),
        ("level-0 px per px", _pair(facts["level0_px_per_map_px"], ".6g")),
        ("probabilities", _kept(facts)),
    ]
    places = facts.get("records")
    if isinstance(places, Mapping):
        names = {"gate": "where the gate shut classes", "unread": "where the slide could not be read"}
        rows.append(("places", ", ".join(text for key, text in names.items() if places.get(key)) or "none"))
    for key, title in (("parameters", "parameters"), ("software", "made with"), ("times", "made")):
        value = facts.get(key)
        if isinstance(value, Mapping):
            rows.append((title, _listed(value)))
    damage = facts.get("damage")
    if isinstance(damage, Mapping) and damage.get("tiles"):
        rows.append(("damaged tiles", f"{damage['tiles']} of the slide"))
    rows += [("note", str(note)) for note in facts.get("notes", []) if isinstance(facts.get("notes"), list)]
    return rows


def _kept(facts: Mapping[str, Any]) -> str:
    """How a map keeps its probabilities."""
    kept = facts.get("probabilities")
    if not isinstance(kept, Mapping):
        return "kept" if kept else "not kept"
    first = int(kept["first_level"])
    return f"coarse, {_pair([um * 2**first for um in facts['mpp']], '.5g')} um per pixel, from level {first} on"


def _listed(values: Mapping[str, Any]) -> str:
    """All that is set, as "name value"."""
    return ", ".join(
        f"{key} {_value(value)}" for key, value in values.items() if value is not None and not isinstance(value, dict)
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _named(values: Mapping[str, Any], key: str) -> str:
    return str(values.get(key, "?"))


def _pair(values: list[float], form: str) -> str:
    first, second = (format(value, form) for value in values)
    return f"{first} x {second}" if form == "d" or first != second else first
