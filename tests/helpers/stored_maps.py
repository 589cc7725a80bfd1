"""Small tissue maps on disk for tests of what is made from them, with all values that a class map can have."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from wsiseg.choices import Probabilities
from wsiseg.classes import WHITE_VALUE, ClassTable
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.system.files import put_folder
from wsiseg.tissue_map.gate import GateGrid
from wsiseg.tissue_map.writer import MapWriter

CLASSES = ClassTable.from_names(["Tumour", "Stroma", "Lymphocytes"], [(200, 0, 0), (0, 200, 0), (0, 0, 200)])
SIZE = Size(1301, 1100)

STEP = 2.0
"""Level-0 pixels of the slide along a map pixel."""


def provenance(slide: str = "a.svs", model: str = "m") -> dict[str, Any]:
    """What a map says of itself, as `predict` writes it."""
    areas = [
        {"name": name, "area_mm2": area, "share": share, "mean_probability": 0.5}
        for name, area, share in zip(CLASSES.names, (0.5, 0.25, 0.25), (0.5, 0.25, 0.25), strict=True)
    ]
    return {
        "slide": {"name": slide, "quick_hash": "0" * 64, "width": 3000, "height": 2000, "vendor": "aperio"},
        "model": {"name": model, "hash": "1" * 64, "mpp": 0.5},
        "parameters": {"overlap": 0.5, "gate": True},
        "software": {"wsiseg": "0.1.0", "python": "3.11"},
        "areas": areas,
        "tissue_mm2": 1.125,
        "unread_mm2": 0.125,
    }


def stored_map(
    path: Path,
    size: Size = SIZE,
    *,
    classes: ClassTable = CLASSES,
    probabilities: Probabilities | bool = True,
    about: dict[str, Any] | None = None,
    records: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """A map of blobs, a tenth of it not tissue and some of it white; what it holds, (h, w) and (K, h, w) uint8.

    With `records` it says as well where the gate shut classes, and that nothing was unread.
    """
    rng = np.random.default_rng(0)
    fields = ndimage.gaussian_filter(rng.standard_normal((len(classes), *size.shape)), (0, 9, 9))
    values = np.exp(fields * 40)
    values /= values.sum(axis=0)
    found = (values.argmax(axis=0) + 1).astype(np.uint8)
    stored = np.rint(values * 255).astype(np.uint8)
    found[:, : size.width // 10], stored[:, :, : size.width // 10] = 0, 0
    white = (slice(size.height // 3, size.height // 2), slice(size.width // 2, size.width * 2 // 3))
    found[white] = WHITE_VALUE
    store = path.with_name(f".{path.name}.new") / path.name
    grid = Grid(size, Mpp(0.5, 0.5), STEP, STEP, 0, STEP, STEP)
    writer = MapWriter(store, classes, grid, 2048, probabilities=probabilities, unread=records)
    for y in range(0, size.height, 2048):
        for x in range(0, size.width, 2048):
            box = Box(x, y, 2048, 2048).intersect(Box.from_size(size))
            read = np.zeros(box.size.shape, np.bool_) if records else None
            writer.write(box, found[box.slices()], stored[(slice(None), *box.slices())], read)
    list(writer.write_levels())
    if records:
        grid_of_gate = GateGrid(3, 4, 32, 32, 16, 1)
        writer.write_gate(grid_of_gate, rng.integers(0, 3, (len(classes), 3, 4)).astype(np.uint8))
    if not probabilities:
        writer.write_picture(np.full((30, 20, 3), 7, np.uint8), Mpp(20, 20))
    writer.write_metadata(provenance() if about is None else about)
    put_folder(store, path)
    shutil.rmtree(store.parent)
    return found, stored
