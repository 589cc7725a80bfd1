"""How long do exact and simplified polygons of a class map take, beside GDAL's polygonizer on the whole map?

Each way runs in a process of its own, so that its peak memory is its own. The map is made (smooth noise, some areas of
class 0), or read from a tissue map. Run: `python benchmarks/vectors.py --side 8192`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely
from scipy import ndimage

from wsiseg.class_map import BLOCK, ArrayMap
from wsiseg.classes import ClassTable
from wsiseg.components import find_components
from wsiseg.geojson import Identity, write_geojson
from wsiseg.geometry import Grid, Mpp
from wsiseg.sieve import absorb
from wsiseg.tissue_map import open_map
from wsiseg.vectors import MIN_AREA_UM2, Budget, exact_polygons, simplified_polygons

CLASSES = 6

ClassMap = npt.NDArray[np.uint8]


def blobby(side: int, seed: int = 0, grain: int = 24) -> ClassMap:
    """Six classes of smooth, ragged blobs some `grain` px wide, with fine noise; 0 where no class is strong."""
    random = np.random.default_rng(seed)
    coarse = -(-side // 4)
    fields = np.empty((CLASSES, side, side), np.float16)
    for index in range(CLASSES):
        noise = ndimage.gaussian_filter(random.standard_normal((coarse, coarse), dtype=np.float32), grain / 4)
        fine = ndimage.gaussian_filter(random.standard_normal((coarse, coarse), dtype=np.float32), 1.0)
        field = noise / noise.std() + 0.25 * fine / fine.std()
        fields[index] = ndimage.zoom(field, 4, order=1)[:side, :side]
    return np.where(fields.max(axis=0) < 0, 0, fields.argmax(axis=0) + 1).astype(np.uint8)


def whole(classes: ClassMap, _: Grid, __: Path) -> str:
    """GDAL's polygonizer on the map as a whole, its polygons built but not joined, sorted or checked."""
    shapes = rasterio.features.shapes(classes, mask=classes > 0, connectivity=4)
    polygons = [shapely.Polygon(outline["coordinates"][0], outline["coordinates"][1:]) for outline, _ in shapes]
    return f"{len(polygons):,} polygons, {int(shapely.get_num_coordinates(polygons).sum()):,} vertices"


def exact(classes: ClassMap, _: Grid, __: Path) -> str:
    """`exact_polygons`."""
    found = exact_polygons(ArrayMap(classes), table(), BLOCK)
    vertices = sum(int(shapely.get_num_coordinates(multi)) for multi in found.values())
    return f"{sum(len(multi.geoms) for multi in found.values()):,} polygons, {vertices:,} vertices"


def exact_again(classes: ClassMap, _: Grid, __: Path) -> str:
    """`exact_polygons`, rasterised again and compared with the class map."""
    found = exact_polygons(ArrayMap(classes), table(), BLOCK)
    shapes = [(multi, index) for index, multi in found.items() if not multi.is_empty]
    again = rasterio.features.rasterize(shapes, out_shape=classes.shape, dtype=np.uint8)
    return f"{int((again != classes).sum())} pixels differ"


def exact_file(classes: ClassMap, grid: Grid, folder: Path) -> str:
    """`exact_polygons`, then written as `.geojson.gz`."""
    found = exact_polygons(ArrayMap(classes), table(), BLOCK)
    return _write(found, grid, folder)


def sieve_alone(classes: ClassMap, grid: Grid, _: Path) -> str:
    """Components and their absorption."""
    components = find_components(ArrayMap(classes))
    absorption = absorb(components, MIN_AREA_UM2 / grid.mpp.pixel_area_um2)
    return f"{len(components):,} components, {absorption.regions:,} left"


def simplified(classes: ClassMap, grid: Grid, folder: Path, budget: Budget | None = None) -> str:
    """`simplified_polygons` within the default budget, then written as `.geojson.gz`."""
    found, summary = simplified_polygons(ArrayMap(classes), table(), grid.mpp, budget=budget)
    said = _write(found, grid, folder)
    return f"{said}, tolerance {summary.tolerance_um:.1f} um, from {summary.min_area_um2:g} um2"


def simplified_tightly(classes: ClassMap, grid: Grid, folder: Path) -> str:
    """The same within a fifth of the vertices and a quarter of the annotations."""
    return simplified(classes, grid, folder, Budget(100_000, 5_000))


def table() -> ClassTable:
    """Six classes."""
    return ClassTable.of([f"Class {i}" for i in range(1, CLASSES + 1)])


def _write(found: Any, grid: Grid, folder: Path) -> str:
    path = folder / "map.geojson.gz"
    written = write_geojson(path, found, table(), grid, identity=Identity("0", "0"), overwrite=True)
    return f"{written.annotations:,} annotations, {written.vertices:,} vertices, {path.stat().st_size / 1e6:.1f} MB"


WAYS: dict[str, Callable[[ClassMap, Grid, Path], str]] = {
    "rasterio.features.shapes": whole,
    "exact": exact,
    "exact, rasterised again": exact_again,
    "exact, file": exact_file,
    "components, absorb": sieve_alone,
    "simplified, file": simplified,
    "simplified to 100,000, file": simplified_tightly,
}


def measure(name: str, path: Path, mpp: float) -> tuple[float, float, str]:
    """(seconds, peak memory in MB above the map itself, what came out) of one way, in a fresh process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (name, path, mpp))


def _run(name: str, path: Path, mpp: float) -> tuple[float, float, str]:
    classes = np.load(path)
    grid = Grid(ArrayMap(classes).size, Mpp(mpp, mpp), 2.0, 2.0, 0, 2.0, 2.0)
    before = _memory_mb("VmRSS")
    start = time.perf_counter()
    said = WAYS[name](classes, grid, path.parent)
    seconds = time.perf_counter() - start
    return seconds, _memory_mb("VmHWM") - before, said


def _memory_mb(entry: str) -> float:
    """A figure of this process that Linux keeps; getrusage would give a fresh process its parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def main() -> None:
    """Parse arguments, measure each way, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=8192, help="side of the map that is made, in px")
    parser.add_argument("--grain", type=int, default=24, help="width of its blobs, in px")
    parser.add_argument("--mpp", type=float, default=0.5, help="um per px of the map that is made")
    parser.add_argument("--map", type=Path, help="a tissue map (.zarr) instead")
    parser.add_argument("--only", choices=WAYS, nargs="*", help="ways to measure")
    options = parser.parse_args()
    if options.map:
        opened = open_map(options.map)
        classes, mpp = np.asarray(opened.class_map()), opened.mpp.mean
    else:
        classes, mpp = blobby(options.side, grain=options.grain), options.mpp
    print(f"{classes.shape[1]} x {classes.shape[0]} px at {mpp:g} um, {np.mean(classes > 0):.0%} tissue")
    baseline = None
    print(f"{'way':30}{'seconds':>9}{'ratio':>7}{'peak MB':>9}  result")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.npy"
        np.save(path, classes)
        del classes
        for name in options.only or WAYS:
            seconds, peak, said = measure(name, path, mpp)
            baseline = baseline or seconds
            print(f"{name:30}{seconds:9.1f}{seconds / baseline:7.2f}{peak:9.0f}  {said}", flush=True)


if __name__ == "__main__":
    main()
