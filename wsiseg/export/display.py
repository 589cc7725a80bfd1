"""How a tissue map shows itself in a terminal and in a notebook. Nothing from a file is shown unescaped."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from wsiseg.errors import WsisegError
from wsiseg.system.printable import printable

if TYPE_CHECKING:
    from wsiseg.tissue_map.reader import TissueMap

PICTURE_PX = 360
NAME = 80
"""Letters of a name that are shown."""


def facts(tissue_map: TissueMap) -> list[tuple[str, str]]:
    """Names and values that describe a map, printable."""
    slide, model = tissue_map.metadata["slide"], tissue_map.metadata["model"]
    by = printable(model.get("name", "not named"), NAME)
    return [
        ("slide", printable(slide["name"], NAME)),
        ("model", f"{by} ({printable(model['hash'], 12)})"),
        ("size", f"{tissue_map.size} px at {tissue_map.mpp} um per pixel, {_levels(tissue_map.levels)}"),
        ("classes", ", ".join(f"{c.index} {printable(c.name, NAME)}" for c in tissue_map.classes)),
        ("probabilities", probabilities_in_words(tissue_map)),
    ]


def probabilities_in_words(tissue_map: TissueMap) -> str:
    """Whether, and from which level on, a map keeps probabilities."""
    kept = tissue_map.probability_levels
    if kept is None:
        return "not kept"
    if not kept.first:
        return "kept"
    return f"coarse, {tissue_map.mpp.times(kept.factor)} um per pixel, from level {kept.first} on"


def as_text(tissue_map: TissueMap) -> str:
    """A map described in some lines, for a terminal."""
    head = f"TissueMap {printable(tissue_map.path.name, NAME)}"
    rows = [f"  {name:13}  {value}" for name, value in facts(tissue_map)]
    return "\n".join([head, *rows, *(f"  {line}" for line in _areas(tissue_map))])


def as_html(tissue_map: TissueMap) -> str:
    """A table and a small picture for a notebook."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts(tissue_map))
    try:
        areas = tissue_map.areas._repr_html_()
    except WsisegError:
        areas = ""
    picture = _picture(tissue_map)
    return (
        f"<div><b>TissueMap {escape(printable(tissue_map.path.name, NAME))}</b>"
        f"<table><tbody>{rows}</tbody></table>{areas}{picture}</div>"
    )


def as_png(tissue_map: TissueMap) -> bytes:
    """A small picture of the classes upon white, as a PNG."""
    from PIL import Image  # noqa: PLC0415  (only pictures need it)

    from wsiseg.export.picture import draw  # noqa: PLC0415

    packed = BytesIO()
    picture = draw(tissue_map, max_px=PICTURE_PX, opacity=1.0).image
    Image.fromarray(picture).save(packed, format="PNG")
    return packed.getvalue()


def _areas(tissue_map: TissueMap) -> list[str]:
    try:
        return repr(tissue_map.areas).splitlines()
    except WsisegError:  # a map need not have any
        return []


def _picture(tissue_map: TissueMap) -> str:
    try:
        packed = base64.b64encode(as_png(tissue_map)).decode()
    except WsisegError as error:  # damaged pixels are no reason to hide the rest
        return f"<p>{escape(printable(error, 300))}</p>"
    return f'<img alt="tissue classes" src="data:image/png;base64,{packed}">'


def _levels(count: int) -> str:
    return "1 level" if count == 1 else f"{count} levels"
