"""Sheets of small pictures: rows of cells with titles, and a legend. Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from wsiseg.classes import ClassTable
from wsiseg.export.overlay import legend, overlay

CELL_PX, GAP_PX, FONT_PX, MARGIN_PX = 128, 10, 12, 18
HEADING_PX = 17
SIDE_MAX_PX = 30_000
INK, FAINT = (30, 30, 34), (110, 110, 118)


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of a sheet.

    Attributes:
        pixels: RGB uint8 (H, W, 3), any size.
        title: below it, cut in the middle where it is too long.
    """

    pixels: npt.NDArray[np.uint8]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the cells below it.

    Attributes:
        heading: above the cells.
        cells: from left to right.
    """

    heading: str
    cells: Sequence[Cell]


def draw_sheet(
    rows: Sequence[Row], classes: ClassTable | None = None, title: str = "", cell_px: int = CELL_PX
) -> Image.Image:
    """A sheet of rows on white, with the classes' colours at its end where classes are given.

    Rows that do not fit into 30,000 px of height are left out.
    """
    heading, small = ImageFont.load_default(HEADING_PX), ImageFont.load_default(FONT_PX)
    row_px = HEADING_PX + cell_px + FONT_PX + 26
    rows = rows[: (SIDE_MAX_PX - 200) // row_px]
    top = MARGIN_PX + (HEADING_PX + 22 if title else 0)
    columns = max([len(row.cells) for row in rows] + [4])
    width = 2 * MARGIN_PX + columns * (cell_px + GAP_PX) - GAP_PX
    sheet = Image.new("RGB", (width, top + len(rows) * row_px), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        big = ImageFont.load_default(HEADING_PX + 5)
        draw.text((MARGIN_PX, MARGIN_PX - 4), shortened(title, width - 2 * MARGIN_PX, big), INK, big)
    for index, row in enumerate(rows):
        y = top + index * row_px
        draw.text((MARGIN_PX, y), shortened(row.heading, width - 2 * MARGIN_PX, heading), INK, heading)
        for column, cell in enumerate(row.cells):
            x, below = MARGIN_PX + column * (cell_px + GAP_PX), y + HEADING_PX + 6
            sheet.paste(fitted(cell.pixels, cell_px), (x, below))
            draw.text((x, below + cell_px + 2), shortened(cell.title, cell_px, small), FAINT, small)
    if classes is not None:
        sheet = Image.fromarray(legend(np.asarray(sheet), classes))
    return sheet


def fitted(pixels: npt.NDArray[np.uint8], side_px: int) -> Image.Image:
    """A picture within a square, its proportions kept, on light grey."""
    image = Image.fromarray(pixels)
    scale = side_px / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (side_px, side_px), (240, 240, 242))
    square.paste(image.resize(size, Image.Resampling.LANCZOS), ((side_px - size[0]) // 2, (side_px - size[1]) // 2))
    return square


def shortened(text: str, width_px: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A text cut in its middle, where names differ least, until it is no wider than this."""
    text = "".join(c if c.isprintable() else "?" for c in text[:400])
    keep = len(text)
    shown = text
    while keep > 2 and font.getlength(shown) > width_px:
        keep -= 1
        shown = f"{text[: keep // 3]}…{text[len(text) - (keep - keep // 3) :]}"
    return shown


def with_mask(
    pixels: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], classes: ClassTable, opacity: float = 0.4
) -> npt.NDArray[np.uint8]:
    """Class colours upon a patch; mask (H, W) of class channels, K for excluded pixels, which stay as they are."""
    known = mask < len(classes)
    return overlay(pixels, np.where(known, mask + 1, 0).astype(np.uint8), classes, opacity)
