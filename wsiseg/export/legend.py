"""The legend below a map's picture: a scale bar, slide and model, and each class as it is drawn, with its area."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsiseg.arrays import UInt8Array
from wsiseg.errors import MapError
from wsiseg.export.picture import Drawn
from wsiseg.system.printable import printable
from wsiseg.tissue_map.reader import TissueMap

if TYPE_CHECKING:
    from PIL import ImageDraw
    from PIL.ImageFont import FreeTypeFont


BAR_SHARE = 0.25
"""The scale bar is at most this share of the picture's width."""

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "Arial.ttf",
)
"""Fonts of Linux, macOS and Windows, for letters that Pillow's own has not."""

LETTERS = (12, 28)
"""Smallest and largest letters, in pixels."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry of the legend.

    Attributes:
        text: what is written.
        mark_px: width of the mark before the text, 0 for none.
        fill: colour inside the mark, None for a scale bar.
        outline: colour round it.
    """

    text: str
    mark_px: int = 0
    fill: tuple[int, int, int] | None = None
    outline: tuple[int, int, int] = (0, 0, 0)


def with_legend(tissue_map: TissueMap, drawn: Drawn) -> UInt8Array:
    """The picture and its legend below it, (height, width, 3) uint8; the width is the picture's."""
    from PIL import Image, ImageDraw  # noqa: PLC0415  (only pictures with letters need it)

    width = drawn.image.shape[1]
    size = min(max(width // 50, LETTERS[0]), LETTERS[1])
    rows = [_about(tissue_map, drawn), _classes(tissue_map, drawn, size)]
    font = _font(size, "".join(item.text for row in rows for item in row))
    places, bottom = _places(rows, font, width, size)
    strip = Image.new("RGB", (width, bottom), "white")
    pen = ImageDraw.Draw(strip)
    for item, x, y in places:
        _draw_item(pen, item, (x, y), font, width)
    return np.concatenate([drawn.image, np.asarray(strip)])


def bar_um(width_um: float) -> float:
    """A round length of 1, 2 or 5 times a power of ten that a scale bar in a picture of this width may have."""
    most = width_um * BAR_SHARE
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def _font(size: int, text: str) -> FreeTypeFont:
    """Pillow's own font; where it lacks a letter, the first of the system's that has all, if there is one."""
    from PIL import ImageFont  # noqa: PLC0415

    own: Any = ImageFont.load_default(size)
    if _has_all(own, text):
        return own  # type: ignore[no-any-return]
    for name in SYSTEM_FONTS:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:  # not on this machine
            continue
        if _has_all(font, text):
            return font
    return own  # type: ignore[no-any-return]


def _has_all(font: FreeTypeFont, text: str) -> bool:
    """Whether a font has a picture for each letter: for others it draws that of no letter."""
    missing = bytes(font.getmask("\uffff"))
    return not any(bytes(font.getmask(letter)) == missing for letter in set(text) if not letter.isspace())


def _about(tissue_map: TissueMap, drawn: Drawn) -> list[_Item]:
    """The items of the legend that say what is shown: scale bar, slide, model."""
    width = drawn.image.shape[1]
    length = bar_um(width * drawn.mpp.x)
    label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} um"
    model = tissue_map.metadata["model"]
    return [
        _Item(label, max(1, round(length / drawn.mpp.x))),
        _Item(printable(tissue_map.metadata["slide"]["name"])),
        _Item(f"model {printable(model.get('name', model['hash'][:12]))}"),
    ]


def _classes(tissue_map: TissueMap, drawn: Drawn, size: int) -> list[_Item]:
    """A swatch, the name and the area of each class."""
    try:
        table = tissue_map.areas
        areas = {row.name: f" {row.area_mm2:.3g} mm2 ({table.percent(row.area_mm2) or 0} %)" for row in table}
    except MapError:  # a map need not have any
        areas = {}
    return [
        _Item(printable(c.name) + areas.get(c.name, ""), size * 3 // 2, color, c.color)
        for c, color in zip(tissue_map.classes, drawn.colors, strict=True)
    ]


def _places(
    rows: list[list[_Item]], font: FreeTypeFont, width: int, size: int
) -> tuple[list[tuple[_Item, int, int]], int]:
    """Each item's upper left corner, each row begun anew and broken where it is full, and the height of all."""
    margin, line = size // 2, size * 7 // 4
    found, y = [], margin
    for items in rows:
        x = margin
        for item in items:
            needed = _width(item, font)
            if x > margin and x + needed > width - margin:
                x, y = margin, y + line
            found.append((item, x, y))
            x += needed + size * 3 // 2
        y += line
    return found, y


def _width(item: _Item, font: FreeTypeFont) -> int:
    return item.mark_px + (int(font.size) // 2 if item.mark_px else 0) + math.ceil(font.getlength(item.text))


def _draw_item(pen: ImageDraw.ImageDraw, item: _Item, corner: tuple[int, int], font: FreeTypeFont, width: int) -> None:
    (x, y), size = corner, int(font.size)
    border = max(2, size // 9)
    if item.mark_px and item.fill is None:
        middle = y + size // 2
        pen.rectangle((x, middle - border // 2, x + item.mark_px - 1, middle + border // 2), fill="black")
        for end in (x, x + item.mark_px - border):
            pen.rectangle((end, y + size // 6, end + border - 1, y + size * 5 // 6), fill="black")
    elif item.mark_px:
        pen.rectangle((x, y, x + item.mark_px - 1, y + size - 1), fill=item.fill, outline=item.outline, width=border)
    x += item.mark_px + (size // 2 if item.mark_px else 0)
    pen.text((x, y + size // 2), _cut(item.text, font, width - x), fill="black", font=font, anchor="lm")


def _cut(text: str, font: FreeTypeFont, width: int) -> str:
    """The text, shortened with "..." so that it fits."""
    if font.getlength(text) <= width:
        return text
    shown = text
    while shown and font.getlength(shown + "...") > width:
        shown = shown[:-1]
    return shown + "..."
