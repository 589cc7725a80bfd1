"""Maps of a real slide, with areas, white and probabilities: quickly made, no network asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsiseg.classes import ClassTable
from wsiseg.geometry import Box, Grid, Size
from wsiseg.slides import open_slide
from wsiseg.tissue_map.writer import MapWriter

NAMES = ["Tumour", "<img src=x onerror=alert(1)>", "Lymphocytes"]


def make_map(path: Path, slide: Path, mpp: float, seed: int = 0) -> Path:
    """A map of a real slide on a grid of its own: blobs of classes with white among them, probabilities that fit."""
    with open_slide(slide) as opened:
        grid, own = opened.grid(mpp), (opened.name, opened.quick_hash(), opened.size)
    rng = np.random.default_rng(seed)
    height, width = grid.size.shape
    coarse = rng.dirichlet(np.ones(3), (height // 40 + 1, width // 40 + 1))
    values = np.kron(coarse, np.ones((40, 40, 1)))[:height, :width].transpose(2, 0, 1)
    classes = (values.argmax(0) + 1).astype(np.uint8)
    classes[: height // 10] = 0
    classes[-height // 10 :, : width // 3] = 255
    write(path, grid, classes, np.rint(values * 255).astype(np.uint8), own)
    return path


def write(path: Path, grid: Grid, classes: np.ndarray, values: np.ndarray, own: tuple[str, str, Size]) -> None:
    name, quick_hash, size = own
    writer = MapWriter(path, ClassTable.from_names(NAMES), grid, 1024)
    for y in range(0, grid.size.height, 1024):
        for x in range(0, grid.size.width, 1024):
            box = Box(x, y, 1024, 1024).intersect(Box.from_size(grid.size))
            writer.write(box, classes[box.slices()], values[(slice(None), *box.slices())])
    list(writer.write_levels())
    areas = [float((classes == i).sum() * grid.mpp.pixel_area_um2 / 1e6) for i in (1, 2, 3)]
    rows = [
        {"name": n, "area_mm2": a, "share": 0.3, "mean_probability": 0.5} for n, a in zip(NAMES, areas, strict=True)
    ]
    slide = {"name": name, "quick_hash": quick_hash, "width": size.width, "height": size.height}
    provenance = {"slide": slide, "model": {"name": path.stem, "hash": path.stem}, "areas": rows}
    writer.write_metadata({**provenance, "tissue_mm2": sum(areas), "white_mm2": 0.0, "unread_mm2": 0.0})
