"""What do exact and simplified polygons of a class map cost, beside GDAL's polygonizer on the whole map?

The map is made (smooth noise, some of it class 0) or a tissue map, and repeated `--copies` times without being stored.
Each way runs in a process of its own, so that its peak memory (with Python and libraries) is its own. CPU seconds are
those of the process; they mean more than seconds on a machine that does other things as well. The exact file is read
again, every polygon checked, and the classes of all pixels compared with those of the map.

    python benchmarks/vectors.py --side 8192 --tissue 0.4 --copies 12x14     # 98,304 x 114,688
    python benchmarks/vectors.py --map map.zarr --copies 8x4
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely
from outline_check import check_file
from scipy import ndimage

from wsiseg.classes import ClassTable
from wsiseg.geojson.write import Identity, write_geojson
from wsiseg.geojson.write_outlines import write_outlines
from wsiseg.geometry import Box, Grid, Mpp, Size, ceil_div
from wsiseg.polygons.levels import MapLevel, Pyramid, fitting_level
from wsiseg.polygons.outlines.reader import trace_outlines
from wsiseg.polygons.simplify import simplified_polygons
from wsiseg.tissue_map.reader import open_map

CLASSES = 6
WHOLE_PX = 600_000_000
"""Largest map that GDAL's polygonizer is given as a whole."""

ALIGN = 64
"""Maps are cut to a multiple of this before they are repeated, so that copies begin at a pixel in every level."""

ClassMap = npt.NDArray[np.uint8]


def blobby(side: int, seed: int = 0, grain: int = 24, tissue: float = 1.0) -> ClassMap:
    """Six classes of smooth, ragged blobs some `grain` px wide, with fine noise; 0 where no class is strong.

    Args:
        side: in px.
        seed: of the noise.
        grain: width of the blobs in px.
        tissue: share of the map that large areas of blobs take; the rest is 0.
    """
    random = np.random.default_rng(seed)
    coarse = ceil_div(side, 4)
    best = np.zeros((side, side), np.float32)
    classes = np.zeros((side, side), np.uint8)
    for index in range(CLASSES):
        noise = ndimage.gaussian_filter(random.standard_normal((coarse, coarse), dtype=np.float32), grain / 4)
        fine = ndimage.gaussian_filter(random.standard_normal((coarse, coarse), dtype=np.float32), 1.0)
        field = ndimage.zoom(noise / noise.std() + 0.25 * fine / fine.std(), 4, order=1)[:side, :side]
        classes[field > best] = index + 1
        np.maximum(best, field, out=best)
    if tissue < 1:
        large = ndimage.gaussian_filter(random.standard_normal((256, 256)), 12.0, mode="wrap")
        fine = ndimage.gaussian_filter(random.standard_normal((256, 256)), 1.0, mode="wrap")
        shape = ndimage.zoom(large / large.std() + 0.1 * fine / fine.std(), side / 256, order=1)
        classes[shape < np.quantile(shape, 1 - tissue)] = 0
    return classes


@dataclass(frozen=True)
class Made:
    """A made map as a pyramid, nearest as in a tissue map."""

    classes: ClassMap
    mpp: Mpp
    levels: int = 7

    @property
    def size(self) -> Size:
        """Size of level 0."""
        return Size(self.classes.shape[1], self.classes.shape[0])

    def read(self, box: Box, level: int = 0) -> ClassMap:
        """The classes of a box of a level."""
        return np.ascontiguousarray(self.classes[:: 2**level, :: 2**level][box.slices()])


@dataclass(frozen=True)
class Copies:
    """A pyramid of copies of another one, side by side and below one another; nothing of it is stored."""

    one: Pyramid
    across: int
    down: int

    @property
    def tile(self) -> Size:
        """Size of one copy: the map, cut so that copies begin at a pixel in every level."""
        if self.across == self.down == 1:
            return self.one.size
        return Size(self.one.size.width // ALIGN * ALIGN, self.one.size.height // ALIGN * ALIGN)

    @property
    def size(self) -> Size:
        """Size of level 0."""
        return Size(self.tile.width * self.across, self.tile.height * self.down)

    @property
    def mpp(self) -> Mpp:
        """Microns per pixel of level 0."""
        return self.one.mpp

    @property
    def levels(self) -> int:
        """Number of levels."""
        return min(self.one.levels, ALIGN.bit_length())

    def read(self, box: Box, level: int = 0) -> ClassMap:
        """The classes of a box of a level, copy by copy."""
        if self.across == self.down == 1:
            return self.one.read(box, level)
        width, height = self.tile.width >> level, self.tile.height >> level
        out = np.empty(box.size.shape, np.uint8)
        for y in range(box.y // height * height, box.bottom, height):
            for x in range(box.x // width * width, box.right, width):
                part = Box(x, y, width, height).intersect(box)
                out[part.slices(box)] = self.one.read(part.shift(-x, -y), level)
        return out


@dataclass(frozen=True)
class Job:
    """What a way is given.

    Attributes:
        source: a tissue map, or an array of classes (.npy).
        copies: across and down.
        mpp: of an array.
        folder: where files go.
        max_memory: bytes for simplified polygons.
    """

    source: Path
    copies: tuple[int, int]
    mpp: float
    folder: Path
    max_memory: int

    def open(self) -> tuple[Copies, ClassTable]:
        """The map and its classes."""
        if self.source.suffix == ".npy":
            table = ClassTable.from_names([f"Class {i}" for i in range(1, CLASSES + 1)])
            return Copies(Made(np.load(self.source, mmap_mode="r"), Mpp(self.mpp, self.mpp)), *self.copies), table
        opened = open_map(self.source)
        return Copies(opened, *self.copies), opened.classes

    @property
    def exact_path(self) -> Path:
        """The exact file, which another way reads again."""
        return self.folder / "exact.geojson.gz"


def grid_of(pyramid: Pyramid) -> Grid:
    """A grid whose coordinates are those of the map."""
    return Grid(pyramid.size, pyramid.mpp, 1.0, 1.0, 0, 1.0, 1.0)


def whole(job: Job) -> str:
    """GDAL's polygonizer on the map as a whole, its polygons built but not joined, sorted or checked."""
    pyramid, _ = job.open()
    if pyramid.size.area > WHOLE_PX:
        return f"not tried: more than {WHOLE_PX / 1e9:.1f} Gpx"
    classes = pyramid.read(Box.from_size(pyramid.size))
    shapes = rasterio.features.shapes(classes, mask=classes > 0, connectivity=4)
    polygons = [shapely.Polygon(outline["coordinates"][0], outline["coordinates"][1:]) for outline, _ in shapes]
    return f"{len(polygons):,} polygons, {int(shapely.get_num_coordinates(polygons).sum()):,} vertices"


def exact(job: Job) -> str:
    """Outlines traced and streamed into a file."""
    pyramid, table = job.open()
    with trace_outlines(MapLevel(pyramid, 0), len(table), folder=job.folder) as outlines:
        written = write_outlines(
            job.exact_path, outlines, table, grid_of(pyramid), identity=Identity("0", "0"), overwrite=True
        )
        polygons, rings = int(outlines.rings.is_shell.sum()), len(outlines.rings.classes)
    return (
        f"{written.annotations} annotations, {polygons:,} polygons, {rings:,} rings, {written.vertices:,} vertices, "
        f"{job.exact_path.stat().st_size / 1e6:.0f} MB"
    )


def exact_again(job: Job) -> str:
    """The exact file, read again, checked and rasterised."""
    if not job.exact_path.exists():
        return "needs the exact file"
    pyramid, table = job.open()
    differ, invalid = check_file(job.exact_path, MapLevel(pyramid, 0), list(table.names), job.folder)
    return f"{differ} pixels differ, {invalid} polygons are invalid"


def simplified(job: Job) -> str:
    """Simplified polygons with all defaults, written to a file."""
    pyramid, table = job.open()
    level = fitting_level(pyramid, job.max_memory)
    found, done = simplified_polygons(level, table, level.mpp)
    regions = {index: level.to_map_pixels(polygons) for index, polygons in found.items()}
    path = job.folder / "simplified.geojson.gz"
    written = write_geojson(path, regions, table, grid_of(pyramid), identity=Identity("0", "0"), overwrite=True)
    return (
        f"{written.annotations:,} annotations, {written.vertices:,} vertices, {path.stat().st_size / 1e6:.1f} MB, "
        f"from level {level.level + done.halvings} ({level.mpp.times(2**done.halvings).mean:g} um), tolerance "
        f"{done.tolerance_um:.1f} um, from {done.min_area_um2:g} um2, areas to {done.worst_change:.2%}, within budget: "
        f"{done.within_budget}"
    )


WAYS: dict[str, Callable[[Job], str]] = {
    "shapes": whole,
    "exact": exact,
    "exact-again": exact_again,
    "simplified": simplified,
}


def measure(name: str, job: Job) -> tuple[float, float, float, str]:
    """(seconds, CPU seconds, peak memory in MB, what came out) of one way, in a fresh process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (name, job))


def _run(name: str, job: Job) -> tuple[float, float, float, str]:
    start, cpu = time.perf_counter(), time.process_time()
    said = WAYS[name](job)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    # getrusage would give a fresh process its parent's peak.
    lines = Path("/proc/self/status").read_text().splitlines()
    return seconds, cpu, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024, said


def main() -> None:
    """Parse arguments, measure each way, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=8192, help="side of the map that is made, in px")
    parser.add_argument("--grain", type=int, default=24, help="width of its blobs, in px")
    parser.add_argument("--tissue", type=float, default=1.0, help="share of it that has blobs")
    parser.add_argument("--mpp", type=float, default=0.5, help="um per px of it")
    parser.add_argument("--map", type=Path, help="a tissue map (.zarr) instead")
    parser.add_argument("--copies", default="1x1", help="copies across and down, as 8x4")
    parser.add_argument("--max-memory", type=int, default=1536, help="MiB for simplified polygons")
    parser.add_argument("--only", choices=WAYS, nargs="*", help="ways to measure")
    options = parser.parse_args()
    across, down = (int(number) for number in options.copies.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        source = options.map or Path(folder) / "map.npy"
        if not options.map:
            np.save(source, blobby(options.side, grain=options.grain, tissue=options.tissue))
        job = Job(source, (across, down), options.mpp, Path(folder), options.max_memory * 2**20)
        pyramid, _ = job.open()
        coarse = MapLevel(pyramid.one, min(4, pyramid.levels - 1))
        tissue = np.mean(coarse.read(Box.from_size(coarse.size)) > 0)
        gigapixels = pyramid.size.area / 1e9
        print(f"{pyramid.size} px ({gigapixels:.2f} Gpx) at {pyramid.mpp} um, {tissue:.0%} tissue")
        print(f"{'way':12}{'seconds':>9}{'s/Gpx':>8}{'CPU s/Gpx':>11}{'peak MB':>9}  result")
        for name in options.only or WAYS:
            seconds, cpu, peak, said = measure(name, job)
            rates = f"{seconds / gigapixels:8.1f}{cpu / gigapixels:11.1f}"
            print(f"{name:12}{seconds:9.1f}{rates}{peak:9.0f}  {said}", flush=True)


if __name__ == "__main__":
    main()
