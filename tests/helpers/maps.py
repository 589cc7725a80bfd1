"""Slides that are painted, and the bytes of maps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.color_model import COLORS
from wsiseg.choices import Probabilities
from wsiseg.classes import ClassTable
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.system.files import put_folder
from wsiseg.tissue_map.writer import MapWriter


def painted(path: Path, size: tuple[int, int] = (200, 300), factor: int = 1) -> np.ndarray:
    """A picture of coloured rectangles; returns the class of each map pixel, (height, width)."""
    classes = np.ones(size, np.uint8)
    classes[30:150, 40:170] = 2
    classes[97:131, 101:259] = 3
    classes[size[0] - 3 :, size[1] - 5 :] = 3
    colors = np.zeros((4, 3), np.uint8)
    for index, color in COLORS.items():
        colors[index] = color
    Image.fromarray(np.kron(colors[classes], np.ones((factor, factor, 1), np.uint8))).save(path)
    return classes


def chunks(path: Path) -> dict[str, bytes]:
    """The bytes of every chunk or shard of a store."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("c/**/*")) if file.is_file()}


def write_map(
    path: Path, size: Size, *, probabilities: Probabilities | bool = True, piece_px: int = 2048, overwrite: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A map of random probabilities, the left tenth not tissue; returns what must come out."""
    rng = np.random.default_rng(0)
    values = rng.dirichlet(np.ones(3), size.shape).transpose(2, 0, 1).astype(np.float32)
    tissue = np.ones(size.shape, bool)
    tissue[:, : size.width // 10] = False
    classes = np.where(tissue, values.argmax(axis=0) + 1, 0).astype(np.uint8)
    stored = np.where(tissue, np.rint(values * 255), 0).astype(np.uint8)
    store = path.with_name(f".{path.name}.new") / path.name
    writer = MapWriter(store, CLASSES, grid_of(size), piece_px, probabilities=probabilities)
    for y in range(0, size.height, piece_px):
        for x in range(0, size.width, piece_px):
            box = Box(x, y, piece_px, piece_px).intersect(Box.from_size(size))
            writer.write(box, classes[box.slices()], stored[(slice(None), *box.slices())])
    assert list(writer.write_levels()) == list(range(len(writer.sizes)))
    if not probabilities:
        writer.write_picture(np.full((300, 200, 3), 7, np.uint8), Mpp(2, 2))
    writer.write_metadata(PROVENANCE)
    assert not path.exists() or overwrite
    put_folder(store, path)
    shutil.rmtree(store.parent)
    return classes, stored


CLASSES = ClassTable.from_names(["Tumour", "Stroma", "Lymphocytes"], [(200, 0, 0), (0, 200, 0), (0, 0, 200)])


PROVENANCE = {"slide": {"name": "a.svs", "quick_hash": "0"}, "model": {"name": "m", "hash": "1"}}


def grid_of(size: Size) -> Grid:
    return Grid(size, Mpp(0.5, 0.5), 2.0, 2.0, 0, 2.0, 2.0)
