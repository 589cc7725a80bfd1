"""Maps of a real slide, with areas, white and probabilities: quickly made, no network asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wsiseg.classes import ClassTable
from wsiseg.geometry import Box, Grid, Size
from wsiseg.slides import open_slide
from wsiseg.tissue_map.gate import OPEN, SHUT, GateGrid
from wsiseg.tissue_map.writer import MapWriter

NAMES = ["Tumour", "<img src=x onerror=alert(1)>", "Lymphocytes"]


HOLE = Box(1000, 1500, 170, 120)
"""Of a map that records it, what could not be read."""


def make_map(path: Path, slide: Path, mpp: float, seed: int = 0, *, records: bool = False) -> Path:
    """A map of a real slide on a grid of its own: blobs of classes with white among them, probabilities that fit.

    With `records` it says where it could not be read (`HOLE`) and where the gate shut classes (see `gate_of`), as those
    of earlier versions do not.
    """
    with open_slide(slide) as opened:
        grid, own = opened.grid(mpp), (opened.name, opened.quick_hash(), opened.size)
    rng = np.random.default_rng(seed)
    height, width = grid.size.shape
    coarse = rng.dirichlet(np.ones(3), (height // 40 + 1, width // 40 + 1))
    values = np.kron(coarse, np.ones((40, 40, 1)))[:height, :width].transpose(2, 0, 1)
    classes = (values.argmax(0) + 1).astype(np.uint8)
    classes[: height // 10] = 0
    classes[-height // 10 :, : width // 3] = 255
    unread = None
    if records:
        unread = np.zeros(classes.shape, bool)
        unread[HOLE.slices()] = True
        classes[unread] = 0
    write(path, grid, classes, np.rint(values * 255).astype(np.uint8), own, unread)
    return path


def gate_of(size: Size) -> tuple[GateGrid, np.ndarray]:
    """Patches of 96 px, half of which overlap: the first class is shut in the left half, the others in the upper."""
    rows, columns = size.height // 48, size.width // 48
    decisions = np.full((3, rows, columns), OPEN, np.uint8)
    decisions[0, :, : columns // 2] = SHUT
    decisions[1:, : rows // 2] = SHUT
    return GateGrid(rows, columns, 96, 96, 48, 1), decisions


def write(
    path: Path,
    grid: Grid,
    classes: np.ndarray,
    values: np.ndarray,
    own: tuple[str, str, Size],
    unread: np.ndarray | None = None,
) -> None:
    name, quick_hash, size = own
    writer = MapWriter(path, ClassTable.from_names(NAMES), grid, 1024, unread=unread is not None)
    for y in range(0, grid.size.height, 1024):
        for x in range(0, grid.size.width, 1024):
            box = Box(x, y, 1024, 1024).intersect(Box.from_size(grid.size))
            holes = None if unread is None else unread[box.slices()]
            writer.write(box, classes[box.slices()], values[(slice(None), *box.slices())], holes)
    list(writer.write_levels())
    stated: dict[str, Any] = {"gate_mode": "patches", "patch_px": 96}
    parameters: dict[str, Any] = {"parameters": stated}
    if unread is not None:
        writer.write_gate(*gate_of(grid.size))
        shut = dict.fromkeys(NAMES, 7)
        parameters = {"parameters": {**stated, "gate": True}, "tiles": {"gated": 9, "read": 9, "shut": shut}}
    areas = [float((classes == i).sum() * grid.mpp.pixel_area_um2 / 1e6) for i in (1, 2, 3)]
    rows = [
        {"name": n, "area_mm2": a, "share": 0.3, "mean_probability": 0.5} for n, a in zip(NAMES, areas, strict=True)
    ]
    slide = {"name": name, "quick_hash": quick_hash, "width": size.width, "height": size.height}
    provenance = {"slide": slide, "model": {"name": path.stem, "hash": path.stem, "mpp": grid.mpp.mean}, "areas": rows}
    unread_mm2 = 0.0 if unread is None else float(unread.sum() * grid.mpp.pixel_area_um2 / 1e6)
    found = {"tissue_mm2": sum(areas) + unread_mm2, "white_mm2": 0.0, "unread_mm2": unread_mm2}
    writer.write_metadata({**provenance, **parameters, **found})
