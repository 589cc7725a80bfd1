"""How far the centroid of each class lies on a map's coarser levels from where it lies on the finest one.

    python benchmarks/level_shift.py MAP.zarr …

Coordinates are those of the store's own transforms, in um. "Half a step" is what labels and probabilities differ by
where levels have no translation, (2^n - 1) / 2 pixels of the finest level. What is left of a shift comes of small
regions, which a majority of four pixels drops.
"""

from __future__ import annotations

import argparse

import numpy as np

from wsiseg import open_map
from wsiseg.arrays import Float64Array
from wsiseg.geometry import Box
from wsiseg.tissue_map.reader import TissueMap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", nargs="+", metavar="MAP.zarr")
    for path in parser.parse_args().maps:
        tissue_map = open_map(path)
        print(f"{path}: um from the finest level's centroid, by class")
        print(f"{'level':>5}{'um a pixel':>12}{'half a step':>13}", *(f"{c.name:>14.14}" for c in tissue_map.classes))
        finest = centroids(tissue_map, 0)
        for level in range(tissue_map.levels):
            shifts = np.hypot(*(centroids(tissue_map, level) - finest).T)
            pixel = tissue_map.transform(level).scale[0]
            half = (2**level - 1) / 2 * tissue_map.transform(0).scale[0]
            print(f"{level:5}{pixel:12.3f}{half:13.2f}", *(f"{shift:14.2f}" for shift in shifts))


def centroids(tissue_map: TissueMap, level: int) -> Float64Array:
    """(K, 2) y and x in um of each class's pixels, by the level's own transform; NaN for a class that is not there."""
    classes = tissue_map.read(Box.from_size(tissue_map.grid.coarsen(2**level)), level)
    placed = tissue_map.transform(level)
    found = []
    for tissue_class in tissue_map.classes:
        pixels = np.argwhere(classes == tissue_class.index)
        middle = pixels.mean(axis=0) if len(pixels) else np.full(2, np.nan)
        found.append(middle * np.asarray(placed.scale) + np.asarray(placed.translation))
    return np.array(found)


if __name__ == "__main__":
    main()
