"""Class maps that tests of vectors share: random ones, smooth ones, and shapes that are easy to get wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from wsiseg.classes import ClassTable

Map = npt.NDArray[np.uint8]
TABLE = ClassTable.from_names(["Tumour", "Stroma", "Lymphocytes"])
MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=15), elements=st.integers(0, 3))


def blobs(side: int, seed: int, sigma: float = 2.0, empty: float = -0.3) -> Map:
    """A map of three classes with smooth outlines, and 0 where none of them is strong."""
    noise = np.random.default_rng(seed).standard_normal((3, side, side))
    fields = ndimage.gaussian_filter(noise, (0, sigma, sigma))
    fields /= fields.std()
    return np.where(fields.max(axis=0) < empty, 0, fields.argmax(axis=0) + 1).astype(np.uint8)


CHECKERBOARD = np.indices((9, 11)).sum(axis=0).astype(np.uint8) % 2 + 1
RINGS = np.array([[max(abs(x), abs(y)) % 3 + 1 for x in range(-7, 8)] for y in range(-7, 8)], np.uint8)
PINCHED = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]], np.uint8)  # holes meet at a corner
SHAPES = {
    "checkerboard": CHECKERBOARD,
    "checkerboard on 0": CHECKERBOARD - 1,
    "rings in rings": RINGS,
    "pinched": PINCHED,
    "pinched around another class": np.where(PINCHED == 0, 2, PINCHED).astype(np.uint8),
    "empty": np.zeros((5, 7), np.uint8),
    "one class": np.full((5, 7), 3, np.uint8),
    "single pixel": np.pad(np.full((1, 1), 2, np.uint8), 3),
    "blobs": blobs(64, 1),
}
