"""Default polygons keep each class's area, end where the slide ends, leave white out, and say what they did."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio.features
import shapely

from tests.helpers.class_maps import TABLE, Map, blobs
from tests.helpers.coverage import assert_coverage
from tests.helpers.qupath_rules import check_qupath
from wsiseg.classes import WHITE_VALUE, ClassTable
from wsiseg.errors import OptionError
from wsiseg.export.drawn_polygons import WARN_VERTICES, DrawnClass, DrawnPolygons, area_notes
from wsiseg.export.polygons import VectorOptions, export_csv, export_geojson
from wsiseg.geojson.measures import UNCERTAIN_BELOW
from wsiseg.geojson.write import read_geojson
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.polygons.class_map import ArrayMap
from wsiseg.polygons.frame import Frame
from wsiseg.polygons.simplify import AREA_CHANGE, Budget, exact_polygons, simplified_polygons
from wsiseg.system.files import put_folder
from wsiseg.tissue_map.reader import TissueMap, open_map
from wsiseg.tissue_map.writer import MapWriter

UM = Mpp(1.0, 1.0)


def speckled(side: int = 160) -> Map:
    """Stroma with a few tumours, and a third class of nothing but specks of 1 to 25 px."""
    classes = np.full((side, side), 2, np.uint8)
    classes[:20] = 0
    classes[40:80, 30:110] = 1
    rng = np.random.default_rng(0)
    for _ in range(60):
        x, y, size = (*rng.integers(22, side - 6, 2).tolist(), int(rng.integers(1, 6)))
        classes[y : y + size, x : x + size] = 3
    return classes


def map_of(path: Path, classes: Map, slide: tuple[int, int], step: float, table: ClassTable = TABLE) -> TissueMap:
    """A map on disk whose probabilities are 0.8 for the class of a pixel, but 0.45 in every fourth column."""
    size = Size(classes.shape[1], classes.shape[0])
    values = np.zeros((len(table), *classes.shape), np.uint8)
    best = np.where(np.arange(size.width) % 4 == 0, 115, 204).astype(np.uint8)
    for index in range(1, len(table) + 1):
        values[index - 1] = np.where(classes == index, best[None], 0)
    store = path.with_name(f".{path.name}.new") / path.name
    writer = MapWriter(store, table, Grid(size, Mpp(step / 2, step / 2), step, step, 0, step, step), 2048)
    writer.write(Box.from_size(size), classes, values)
    list(writer.write_levels())
    slide_facts = {"name": "a.svs", "quick_hash": "0" * 64, "width": slide[0], "height": slide[1]}
    areas = [
        {"name": c.name, "area_mm2": float((classes == c.index).sum()) * (step / 2) ** 2 / 1e6, "share": 0.0,
         "mean_probability": 0.5} for c in table
    ]  # fmt: skip
    model = {"name": "m", "hash": "1" * 64}
    writer.write_metadata({"slide": slide_facts, "model": model, "areas": areas, "tissue_mm2": 1.0, "unread_mm2": 0.0})
    put_folder(store, path)
    return open_map(path)


def planar_um2(path: Path, mpp0: float) -> dict[str, float]:
    """What QuPath adds up: areas of the written rings, by class."""
    found: dict[str, float] = {}
    for area, name in read_geojson(path):
        found[str(name)] = found.get(str(name), 0.0) + area.area * mpp0**2
    return found


@pytest.mark.parametrize("classes", [speckled(), blobs(160, 4), blobs(160, 7, 1.0)], ids=["specks", "blobs", "noise"])
def test_every_class_keeps_its_area(classes: Map) -> None:
    found, summary = simplified_polygons(ArrayMap(classes), TABLE, UM)
    assert_coverage(found)
    assert summary.within_budget
    for index, polygons in found.items():
        area = (classes == index).sum()
        assert sum(p.area for p in polygons) == pytest.approx(area, rel=AREA_CHANGE)
    assert summary.moved_um <= summary.tolerance_um * (1 + 1e-9)


def test_what_is_asked_for_is_done_and_its_areas_are_told(tmp_path: Path) -> None:
    classes = speckled()
    tissue_map = map_of(tmp_path / "m.zarr", classes, (320, 320), 2.0)
    done = export_geojson(tissue_map, tmp_path / "a.geojson", VectorOptions(min_area_um2=250.0))
    lost = done.classes[2]
    assert (lost.name, lost.polygons_um2, lost.change, lost.within) == ("Lymphocytes", 0.0, -1.0, False)
    assert "Lymphocytes -100.0%" in " ".join(done.notes)
    assert done.simplification is not None
    assert done.simplification.moved_um == 0
    document = json.loads((tmp_path / "a.geojson").read_text())["wsiseg"]
    assert document["classes"] == done.to_json()["classes"]
    kept = export_geojson(tissue_map, tmp_path / "b.geojson")
    assert all(row.within for row in kept.classes)
    assert not [note for note in kept.notes if "more than 2 %" in note]
    export_csv(tissue_map, tmp_path / "b.csv", polygons=kept)
    planar = planar_um2(tmp_path / "b.geojson", 0.5)
    rows = list(csv.DictReader((tmp_path / "b.csv").open()))
    for row, index in zip(rows, (1, 2, 3), strict=False):
        assert float(row["polygons_mm2"]) == pytest.approx(planar[row["class"]] / 1e6, abs=1e-6)
        assert planar[row["class"]] == pytest.approx((classes == index).sum(), rel=AREA_CHANGE)


def test_where_the_budget_does_not_allow_it_each_class_is_told() -> None:
    classes = speckled()
    _, summary = simplified_polygons(ArrayMap(classes), TABLE, UM, budget=Budget(60, 3))
    assert summary.worst_change > AREA_CHANGE
    (note,) = area_notes([DrawnClass("Lymphocytes", map_um2=100.0, polygons_um2=50.0)], asked=False)
    assert note.startswith("polygons show -50.0% of Lymphocytes's area")


@pytest.mark.parametrize("exact", [True, False])
def test_polygons_end_where_the_slide_ends(tmp_path: Path, exact: bool) -> None:
    classes = np.full((50, 60), 1, np.uint8)
    classes[10:30, 30:] = 2
    tissue_map = map_of(tmp_path / "m.zarr", classes, (119, 99), 2.0)  # half of the last column and row is beyond
    done = export_geojson(tissue_map, tmp_path / "m.geojson", VectorOptions(exact=exact))
    check_qupath(tmp_path / "m.geojson")
    areas = read_geojson(tmp_path / "m.geojson")
    assert shapely.union_all([area for area, _ in areas]).bounds == (0, 0, 119, 99)
    in_slide = np.kron(classes, np.ones((2, 2), np.uint8))[:99, :119]
    for row, index in zip(done.classes, (1, 2, 3), strict=True):
        assert row.map_um2 == pytest.approx((in_slide == index).sum() * 0.25)
        assert row.polygons_um2 == pytest.approx(row.map_um2, rel=1e-9 if exact else AREA_CHANGE)
    if exact:
        drawn = rasterio.features.rasterize(
            [(area, TABLE.names.index(str(name)) + 1) for area, name in areas], out_shape=in_slide.shape
        )
        np.testing.assert_array_equal(drawn, in_slide)


def test_pixels_wholly_beyond_the_slide_are_left_out() -> None:
    grid = Grid(Size(60, 50), UM, 2.0, 2.0, 0, 2.0, 2.0)
    frame = Frame.of_map({"width": 110, "height": 97}, grid)
    assert (frame.width, frame.height, frame.pixels) == (55.0, 48.5, Size(55, 49))
    assert Frame.of_map({"width": 1000, "height": 0}, grid).pixels == Size(60, 50)
    found, _ = simplified_polygons(ArrayMap(np.ones((50, 60), np.uint8)), TABLE, UM, frame=frame)
    assert [polygon.bounds for polygon in found[1]] == [(0, 0, 55, 48.5)]


def white_map() -> Map:
    classes = blobs(120, 3, 3.0)
    classes[30:70, 30:70] = WHITE_VALUE
    classes[40:44, 40:44] = 1  # an island in white
    classes[90:93, 90:93] = WHITE_VALUE  # a small hole
    return classes


def test_white_makes_no_polygon() -> None:
    classes = white_map()
    exact = exact_polygons(ArrayMap(classes), TABLE)
    assert list(exact) == [1, 2, 3]
    for index, multi in exact.items():
        assert multi.area == (classes == index).sum()
    found, _ = simplified_polygons(ArrayMap(classes), TABLE, UM)
    assert list(found) == [1, 2, 3]
    assert_coverage(found)
    for index, polygons in found.items():
        assert sum(p.area for p in polygons) == pytest.approx((classes == index).sum(), rel=AREA_CHANGE)
    middle = shapely.box(45, 45, 65, 65)
    assert not any(p.intersects(middle) for part in found.values() for p in part)
    kept, _ = simplified_polygons(ArrayMap(classes), TABLE, UM, 0.0, 0.0)
    assert {i: sum(p.area for p in part) for i, part in kept.items()} == {i: m.area for i, m in exact.items()}
    with pytest.raises(OptionError, match="holds the value 4"):
        simplified_polygons(ArrayMap(np.full((4, 4), 4, np.uint8)), TABLE, UM)


def test_white_of_a_table_of_254_classes() -> None:
    table = ClassTable.from_names([f"c{n}" for n in range(254)])
    classes = np.array([[254, 254, 255, 255]], np.uint8)
    assert exact_polygons(ArrayMap(classes), table)[254].area == 2
    found, _ = simplified_polygons(ArrayMap(classes), table, UM)
    assert [p.area for p in found[254]] == [pytest.approx(2)]


@pytest.mark.parametrize("exact", [True, False])
def test_features_say_what_qupath_cannot_compute(tmp_path: Path, exact: bool) -> None:
    classes = np.zeros((40, 60), np.uint8)
    classes[4:24, 8:28] = 1
    classes[4:24, 28:48] = 2
    tissue_map = map_of(tmp_path / "m.zarr", classes, (120, 80), 2.0)
    options = VectorOptions(exact=exact, qupath_names=True, tolerance_um=None if exact else 0.0)
    export_geojson(tissue_map, tmp_path / "m.geojson", options)
    features = check_qupath(tmp_path / "m.geojson")
    assert [f["properties"]["classification"]["name"] for f in features] == ["Tumor", "Stroma"]
    for feature in features:
        # Every fourth column is 115 / 255, below the half that makes a pixel certain.
        assert feature["properties"]["measurements"] == {
            "Mean probability": round((204 * 3 + 115) / 4 / 255, 4), "Uncertain share": 0.25
        }  # fmt: skip
        metadata = feature["properties"]["metadata"]
        assert (metadata["Slide"], metadata["Slide hash"], metadata["Model"]) == ("a.svs", "0" * 64, "m")
        assert (metadata["Map mpp"], metadata["Class area change"]) == ("1", "+0.00%")
    assert UNCERTAIN_BELOW == 0.5


def test_measures_of_regions_are_those_of_their_pixels(tmp_path: Path) -> None:
    from wsiseg.geojson.measures import measure_regions

    classes = blobs(96, 5)
    tissue_map = map_of(tmp_path / "m.zarr", classes, (192, 192), 2.0)
    found, _ = simplified_polygons(ArrayMap(classes), TABLE, UM)
    pairs = [(shapely.transform(p, lambda xy: xy * 2), index) for index, part in found.items() for p in part]
    measured = measure_regions(tissue_map, [p for p, _ in pairs], [i for _, i in pairs])
    probabilities = tissue_map.probabilities().compute()
    best = probabilities.max(axis=0)
    for (polygon, index), one in zip(pairs, measured, strict=True):
        own = shapely.transform(polygon, lambda xy: xy / 2 - 0.5)
        ys, xs = np.mgrid[:96, :96]
        inside = shapely.contains_xy(own, xs, ys) & (best > 0)
        if not inside.any():
            continue
        assert one is not None
        assert one.mean_probability == pytest.approx(probabilities[index - 1][inside].mean() / 255, abs=0.02)
        assert one.uncertain == pytest.approx((best[inside] < 127.5).mean(), abs=0.03)


def test_many_exact_vertices_are_warned_of() -> None:
    done = DrawnPolygons(classes=[], annotations=1, vertices=WARN_VERTICES + 1, repaired=0, dropped=0)
    assert "are much for QuPath" in done.notes[0]
    assert replace(done, vertices=WARN_VERTICES).notes == []


@pytest.mark.parametrize("options", [VectorOptions(exact=True), VectorOptions(), VectorOptions(min_area_um2=250.0)])
def test_a_journal_gives_back_what_was_drawn(tmp_path: Path, options: VectorOptions) -> None:
    done = export_geojson(map_of(tmp_path / "m.zarr", speckled(), (320, 320), 2.0), tmp_path / "m.geojson", options)
    written = json.loads(json.dumps(done.to_json()))
    assert DrawnPolygons.from_json(written) == done
    assert written["exact"] == options.exact
    assert written["vertices"] == done.vertices > 0


def test_the_same_map_gives_the_same_bytes(tmp_path: Path) -> None:
    tissue_map = map_of(tmp_path / "m.zarr", speckled(), (320, 320), 2.0)
    for name in ("a", "b"):
        export_geojson(tissue_map, tmp_path / f"{name}.geojson")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
