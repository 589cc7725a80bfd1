"""How much of each class is in the table, in the map, in default polygons, and in what QuPath would add up?

For each tissue map: the table of the run, the pixels of the map inside the slide, the polygons as the program tells
them, and the planar areas of the rings in the file times the slide's mpp squared. With `--old` also with a minimum area
of 250 um² for every class, which was the default once. Speckled maps are made: a few large regions, and a class of
nothing but specks.

    python benchmarks/polygon_areas.py map.zarr other.zarr
    python benchmarks/polygon_areas.py --specks 2048
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.classes import ClassTable
from wsiseg.export.polygons import VectorOptions, export_geojson
from wsiseg.geojson.write import read_geojson
from wsiseg.geometry import Mpp
from wsiseg.polygons.class_map import ArrayMap
from wsiseg.polygons.simplify import simplified_polygons
from wsiseg.tissue_map.reader import TissueMap, open_map

OLD_MIN_AREA_UM2 = 250.0


def speckled(side: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Class 2 with blocks of class 1 and specks of class 3, 1 to 8 px wide, on a hundredth of it."""
    random = np.random.default_rng(seed)
    classes = np.full((side, side), 2, np.uint8)
    for _ in range(max(1, side // 128)):
        x, y = random.integers(0, side, 2)
        classes[y : y + side // 8, x : x + side // 8] = 1
    for _ in range(side * side // 2000):
        x, y, width = (*random.integers(0, side - 8, 2), random.integers(1, 9))
        classes[y : y + width, x : x + width] = 3
    return classes


def planar_um2(path: Path, tissue_map: TissueMap) -> dict[str, float]:
    """Areas of the file's rings by class, as QuPath adds them up."""
    grid = tissue_map.grid
    per_px = grid.mpp.pixel_area_um2 / (grid.step_x * grid.step_y)
    found: dict[str, float] = {}
    for area, name in read_geojson(path):
        found[str(name)] = found.get(str(name), 0.0) + area.area * per_px
    return found


def show(title: str, rows: Sequence[Mapping[str, Any]], facts: str) -> None:
    """Print one table."""
    print(f"\n{title}: {facts}")
    print(f"{'class':24}{'table um2':>14}{'map um2':>14}{'polygons um2':>14}{'QuPath um2':>14}{'change':>10}")
    for row in rows:
        numbers = "".join(f"{row[key]:14.0f}" for key in ("table", "map_um2", "polygons_um2", "planar"))
        print(f"{row['name']:24}{numbers}{row['change']:10.2%}")


def measure(path: Path, options: VectorOptions, title: str) -> None:
    """The table of one map."""
    tissue_map = open_map(path)
    with tempfile.TemporaryDirectory() as folder:
        target, start = Path(folder) / "m.geojson", time.perf_counter()
        done = export_geojson(tissue_map, target, options)
        seconds = time.perf_counter() - start
        planar = planar_um2(target, tissue_map)
        size = target.stat().st_size / 1e6
    table = {row["name"]: row["area_mm2"] * 1e6 for row in tissue_map.metadata["areas"]}
    rows = [
        {**row.to_json(), "table": table.get(row.name, 0.0), "planar": planar.get(row.name, 0.0)}
        for row in done.classes
    ]
    facts = f"{done.annotations:,} annotations, {done.vertices:,} vertices, {size:.1f} MB, {seconds:.1f} s"
    moved_um = done.simplification.moved_um if done.simplification else 0.0
    show(f"{path.name} {title}", rows, f"{facts}, borders moved by up to {moved_um:.2f} um")


def measure_specks(side: int) -> None:
    """The table of a made map, 1 um a pixel."""
    classes = speckled(side)
    names = ClassTable.from_names(["Blocks", "Ground", "Specks"])
    for title, least in (("by class", None), ("250 um2 for all", OLD_MIN_AREA_UM2)):
        start = time.perf_counter()
        _, done = simplified_polygons(ArrayMap(classes), names, Mpp(1.0, 1.0), None, least)
        rows = [
            {
                "name": name,
                "table": area,
                "map_um2": area,
                "polygons_um2": drawn,
                "planar": drawn,
                "change": drawn / area - 1,
            }
            for name, area, drawn in zip(names.names, done.map_um2, done.polygons_um2, strict=True)
        ]
        facts = f"{done.polygons:,} annotations, {done.vertices:,} vertices, {time.perf_counter() - start:.1f} s"
        show(f"specks {side} px, {title}", rows, facts)


def main() -> None:
    """Parse arguments, print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("maps", nargs="*", type=Path, help="tissue maps (.zarr)")
    parser.add_argument("--old", action="store_true", help="also with 250 um2 for every class")
    parser.add_argument("--specks", type=int, metavar="PX", help="a made map of this side")
    options = parser.parse_args()
    for path in options.maps:
        measure(path, VectorOptions(), "by class")
        if options.old:
            measure(path, VectorOptions(min_area_um2=OLD_MIN_AREA_UM2), "250 um2 for all")
    if options.specks:
        measure_specks(options.specks)


if __name__ == "__main__":
    main()
