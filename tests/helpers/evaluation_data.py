"""Data sets in the colours that `tests.helpers.color_model` tells apart."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.color_model import COLORS


def painted(channels: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) of class channels; what is no class is white."""
    colors = np.full((256, 3), 255, np.uint8)
    for index, color in COLORS.items():
        colors[index - 1] = color
    return colors[channels]


def write_dataset(
    root: Path, images: list[tuple[np.ndarray, np.ndarray, str, str]], names=("Red", "Green", "Blue"), mpp: float = 1.0
) -> Path:
    """`images` are (what is painted, what is true, group, split), channels each."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = []
    for number, (shown, truth, group, split) in enumerate(images):
        Image.fromarray(painted(shown)).save(root / "images" / f"{number}.png")
        Image.fromarray(truth.astype(np.uint8)).save(root / "masks" / f"{number}.png")
        label = [int((truth == k).any()) for k in range(len(names))]
        rows.append([f"images/{number}.png", *label, group, split, f"masks/{number}.png"])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", *names, "group", "split", "mask"], *rows])
    (root / "dataset.json").write_text(json.dumps({"mpp": mpp, "classes": list(names)}))
    return root
