"""The report's tables for programs: a row a slide, and a row a figure; CSV and Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from wsiseg.report.endpoints import ENDPOINTS, Measured
from wsiseg.report.slide_report import SlideReport
from wsiseg.system.files import write_csv

LONG_COLUMNS = (
    *("slide", "patient", "name", "value", "low", "high", "unit", "denominator_mm2", "method", "parameters"),
    *("interval_includes", "reason", "title", "map", "model", "model_hash"),
)
"""Of the long form, a row a figure."""

TEXT = frozenset(LONG_COLUMNS) - {"value", "low", "high", "denominator_mm2"}
"""Columns that hold text also where they are empty."""

_FIRST = ("slide", "patient")
_ABOUT = ("map", "quick_hash", "model", "model_hash", "flags", "notes")
TENFOLD = ("stroma_pct", "stroma_hot_spot_pct")
"""Endpoints that people score in tenths; theirs gets a column of its own, never the value's place."""

FLAGS = ("unread", "low_confidence", "gate", "pen", "blur", "stain")
ENDINGS = ("", "_low", "_high", "_denominator_mm2")

Cell = str | float | None
Table = dict[str, list[Cell]]


def wide_names() -> tuple[str, ...]:
    """Names of columns that a table of patients must not have."""
    shares = [f"{endpoint.name}{ending}" for endpoint in ENDPOINTS for ending in ENDINGS]
    return (*_FIRST, *_ABOUT, *(f"flag_{name}" for name in FLAGS), *shares)


def wide(slides: Sequence[SlideReport], further: Sequence[str]) -> Table:
    """A row a slide: ids, areas, endpoints with intervals, flags. Columns of what no slide has are left out.

    Args:
        slides: those of the report.
        further: names of the columns that the table of patients brought.
    """
    table: Table = {name: [] for name in (*_FIRST, *further)}
    rows = [_row(slide, further) for slide in slides]
    for row in rows:
        for name in row:
            table.setdefault(name, [])
    return {name: [row.get(name) for row in rows] for name in table}


def _row(slide: SlideReport, further: Sequence[str]) -> dict[str, Cell]:
    row: dict[str, Cell] = {"slide": slide.slide, "patient": slide.patient}
    row |= dict(zip(further, slide.further, strict=True))
    row |= {area.name: _number(area.value) for area in slide.areas}
    row["bulk_mm2"] = slide.zone_mm2.get("bulk")
    row["real_outline"] = _number(slide.real_outline)
    for one in slide.measures:
        numbers = one.value, one.low, one.high, one.denominator_mm2
        # Of other estimators the denominator stands in the long form alone: this one is wide as it is.
        endings = ENDINGS[:3] if "+" in one.method else ENDINGS
        row |= {f"{one.name}{end}": _number(value) for end, value in zip(endings, numbers, strict=False)}
        if one.name in TENFOLD:
            row[f"{one.name}_tenfold"] = None if not one.known else float(10 * math.floor(one.value / 10 + 0.5))
    for flag in slide.flags:
        row[f"flag_{flag.name}"] = flag.state
        if flag.value is not None:
            row[f"share_{flag.name}"] = flag.value
    flags = "; ".join(flag.text for flag in slide.flagged)
    row |= {"flags": flags, "notes": "; ".join(slide.notes), "map": slide.map_name, "quick_hash": slide.quick_hash}
    return row | {"model": slide.model.name, "model_hash": slide.model.hash}


def long(slides: Sequence[SlideReport]) -> Table:
    """A row a figure, areas among them; what has no value or no interval says why."""
    table: Table = {name: [] for name in LONG_COLUMNS}
    for slide in slides:
        for one in (*slide.areas, *slide.measures):
            row = _long_row(slide, one)
            for name, cell in row.items():
                table[name].append(cell)
    return table


def _long_row(slide: SlideReport, one: Measured) -> dict[str, Cell]:
    return {
        "slide": slide.slide,
        "patient": slide.patient,
        "name": one.name,
        "value": _number(one.value),
        "low": _number(one.low),
        "high": _number(one.high),
        "unit": one.unit,
        "denominator_mm2": _number(one.denominator_mm2),
        "method": one.method,
        "parameters": json.dumps(dict(one.parameters), sort_keys=True) if one.parameters else "",
        "interval_includes": one.includes,
        "reason": one.reason,
        "title": one.title,
        "map": slide.map_name,
        "model": slide.model.name,
        "model_hash": slide.model.hash,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def save_csv(path: Path, table: Table) -> None:
    """Write a table as CSV; a cell without a value is empty."""
    columns = list(table)
    rows = zip(*table.values(), strict=True)
    write_csv(path, columns, ([_text(cell) for cell in row] for row in rows))


def _text(cell: Cell) -> str | float:
    return "" if cell is None else round(cell, 6) if isinstance(cell, float) else cell


def save_parquet(path: Path, table: Table) -> None:
    """Write a table as Parquet: numbers as doubles, all else as text, null where there is no value."""
    import pyarrow as pa  # noqa: PLC0415  (an extra, and slow to load)
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns: dict[str, pa.Array] = {}
    for name, cells in table.items():
        text = name in TEXT or any(isinstance(cell, str) for cell in cells)
        columns[name] = pa.array(cells, pa.string() if text else pa.float64())
    pq.write_table(pa.table(columns), path)
