"""Tissue maps of known geometry, written as `predict` writes them, at 8 um a pixel so that centimetres are small."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from wsiseg.classes import WHITE_VALUE, ClassTable
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.system.files import put_folder
from wsiseg.tissue_map.areas import Areas
from wsiseg.tissue_map.edge import SlideEdge
from wsiseg.tissue_map.writer import MapWriter

CLASSES = ("Tumour", "Stroma", "Lymphocytes", "Necrosis")
T, S, L, N = 1, 2, 3, 4
MPP = 8.0
PIECE_PX = 2048


def ground(height_mm: float, width_mm: float, value: int, mpp: float = MPP) -> np.ndarray:
    """A class map of one value."""
    return np.full((round(height_mm * 1000 / mpp), round(width_mm * 1000 / mpp)), value, np.uint8)


def disc(classes: np.ndarray, x_mm: float, y_mm: float, radius_mm: float, mpp: float = MPP) -> np.ndarray:
    """The pixels whose centres lie in a disc."""
    y, x = ((np.arange(side) + 0.5) * mpp / 1000 for side in classes.shape)
    return (y[:, None] - y_mm) ** 2 + (x[None] - x_mm) ** 2 <= radius_mm**2


def made_map(
    path: Path,
    classes: np.ndarray,
    names: Sequence[str] = CLASSES,
    *,
    mpp: float = MPP,
    slide: str = "a.svs",
    quick_hash: str = "0" * 64,
    confidence: float = 1.0,
    probabilities: bool = True,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Write a map whose winning class has `confidence` everywhere, the others alike; `change` alters its metadata."""
    table = ClassTable.from_names(list(names))
    height, width = classes.shape
    size = Size(width, height)
    known = (classes > 0) & (classes != WHITE_VALUE)
    rest = (1 - confidence) / max(1, len(names) - 1)
    values = np.where(known[None], np.uint8(round(255 * rest)), 0).repeat(len(names), axis=0).astype(np.uint8)
    for index in range(1, len(names) + 1):
        values[index - 1][classes == index] = round(255 * confidence)
    grid = Grid(size, Mpp(mpp, mpp), 16.0, 16.0, 0, 16.0, 16.0)
    store = path.with_name(f".{path.name}.new") / path.name
    writer = MapWriter(store, table, grid, PIECE_PX, probabilities=probabilities)
    edge = SlideEdge.from_grid(grid, Size(width * 16, height * 16))
    areas = Areas.empty(len(names))
    for y in range(0, height, PIECE_PX):
        for x in range(0, width, PIECE_PX):
            box = Box(x, y, PIECE_PX, PIECE_PX).intersect(Box.from_size(size))
            piece, some = classes[box.slices()], values[(slice(None), *box.slices())]
            writer.write(box, piece, some)
            areas.add(Areas.from_classes(piece, some, piece > 0, edge.parts(box)))
    list(writer.write_levels())
    if not probabilities:
        writer.write_picture(np.full((30, 20, 3), 7, np.uint8), Mpp(20, 20))
    pixel = grid.mpp.pixel_area_um2
    about: dict[str, Any] = {
        "slide": {
            "name": slide, "quick_hash": quick_hash, "width": width * 16, "height": height * 16,
            "mpp": {"x": mpp / 16, "y": mpp / 16}, "mpp_source": "stated",
        },
        "model": {"name": "made", "hash": "1" * 64, "mpp": 0.5},
        "parameters": {"gate": True, "series": None},
        "notes": [],
        "areas": [asdict(area) for area in areas.of_classes(table, pixel, edge.weights)],
        **{
            f"{name}_mm2": float(np.dot(edge.weights, getattr(areas, name)) * pixel / 1e6)
            for name in ("tissue", "white", "unread")
        },
        "tiles": {"tiles": 100, "read": 80, "gated": 20, "decided": 10, "shut": dict.fromkeys(names, 5), "skipped": 20},
    }  # fmt: skip
    if change is not None:
        change(about)
    writer.write_metadata(about)
    put_folder(store, path)
    shutil.rmtree(store.parent)
    return path


def striped(
    height_mm: float, width_mm: float, *, period: int = 10, rows: Sequence[int] = (T, T, T, T, S, S, S, S, L, L)
) -> np.ndarray:
    """Stripes along the rows: of each `period` pixels 40 % tumour, 40 % stroma, 20 % lymphocytes."""
    classes = ground(height_mm, width_mm, 0)
    classes[:] = np.array(rows, np.uint8)[np.arange(classes.shape[0]) % period][:, None]
    return classes
