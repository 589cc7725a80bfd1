"""Confusion matrices as a picture: shares of each true class, with numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsiseg.evaluation.figures import ratio
from wsiseg.evaluation.result import Column, Evaluation
from wsiseg.geometry import ceil_div
from wsiseg.system.files import whole_file

CELL_PX, FONT_PX, GAP_PX = 110, 19, 28
_DARK = (20, 60, 120)
_INK = (25, 25, 25)


def draw_confusions(evaluation: Evaluation) -> Image.Image:
    """All columns' matrices, two beside each other, each row of a matrix adding up to 100 %."""
    panels = [_panel(column, evaluation.classes) for column in evaluation.columns.values()]
    width, height = panels[0].size
    across = min(2, len(panels))
    down = ceil_div(len(panels), across)
    sheet = Image.new("RGB", (across * (width + GAP_PX) + GAP_PX, down * (height + GAP_PX) + GAP_PX + 44), "white")
    data = evaluation.data
    text = (f"{evaluation.model['name']} on {data['name']}, {data['split']}: per cent of each true class's "
            f"{evaluation.kind}")  # fmt: skip
    ImageDraw.Draw(sheet).text((GAP_PX, GAP_PX - 8), _fitted(text, _font(), sheet.width - 2 * GAP_PX), _INK, _font())
    for index, panel in enumerate(panels):
        x, y = index % across, index // across
        sheet.paste(panel, (GAP_PX + x * (width + GAP_PX), GAP_PX + 44 + y * (height + GAP_PX)))
    return sheet


def write_picture(evaluation: Evaluation, path: Path) -> None:
    """Write `draw_confusions` as PNG."""
    with whole_file(path) as temporary:
        draw_confusions(evaluation).save(temporary, format="PNG")


def _panel(column: Column, names: tuple[str, ...]) -> Image.Image:
    """One matrix: true classes downwards, predicted ones across."""
    font, small = _font(), _font(15)
    count = len(names)
    left = int(min(260, max(font.getlength(name) for name in names))) + 46
    top = 100
    shares = ratio(column.confusion, column.confusion.sum(axis=1, keepdims=True))
    image = Image.new("RGB", (max(left + count * CELL_PX + 1, 420), top + count * CELL_PX + 1), "white")
    draw = ImageDraw.Draw(image)
    draw.text((0, 0), column.title, _INK, _font(23))
    draw.text((left + count * CELL_PX // 2, 44), "predicted", (110, 110, 110), small, anchor="mm")
    for k, name in enumerate(names):
        middle = (k * CELL_PX) + CELL_PX // 2
        draw.text((left + middle, 78), _fitted(name, small, CELL_PX - 8), _INK, small, anchor="mm")
        draw.text((left - 12, top + middle), _fitted(name, font, left - 46), _INK, font, anchor="rm")
        for j in range(count):
            _cell(draw, left + j * CELL_PX, top + middle - CELL_PX // 2, shares[k, j], int(column.confusion[k, j]))
    side = Image.new("RGB", (60, 24), "white")
    ImageDraw.Draw(side).text((30, 12), "true", (110, 110, 110), small, anchor="mm")
    image.paste(side.rotate(90, expand=True), (0, top + count * CELL_PX // 2 - 30))
    return image


def _cell(draw: ImageDraw.ImageDraw, x: int, y: int, share: float, count: int) -> None:
    known = 0.0 if np.isnan(share) else float(share)
    color = tuple(round(255 + known * (dark - 255)) for dark in _DARK)
    ink = "white" if known > 0.45 else _INK
    draw.rectangle((x, y, x + CELL_PX, y + CELL_PX), fill=color, outline=(200, 200, 200))
    middle = x + CELL_PX // 2
    text = "-" if np.isnan(share) else f"{100 * share:.1f}"
    draw.text((middle, y + CELL_PX // 2 - 9), text, ink, _font(25), anchor="mm")
    draw.text((middle, y + CELL_PX // 2 + 22), _short(count), ink, _font(14), anchor="mm")


def _short(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e7 else f"{count / 1e3:.0f} k" if count >= 1e5 else str(count)


def _fitted(text: str, font: Any, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font(size: int = FONT_PX) -> Any:
    return ImageFont.load_default(size)
