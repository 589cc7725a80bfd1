"""GeoJSON as written, judged by QuPath's rules, and hostile files as read."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.class_maps import MAPS, SHAPES, TABLE, blobs
from tests.helpers.full_disk import largest_file
from tests.helpers.geojson import IDENTITY, WRITTEN_ONCE, grid_of
from tests.helpers.qupath_rules import check_qupath
from wsiseg.errors import OptionError, OutputError
from wsiseg.geojson.write import Identity, read_geojson, write_geojson
from wsiseg.geometry import Mpp
from wsiseg.polygons.class_map import ArrayMap
from wsiseg.polygons.simplify import exact_polygons, simplified_polygons


@WRITTEN_ONCE
@given(classes=MAPS, step=st.sampled_from([1.0, 2.0, 2.004008, 3.9683, 16.0]))
def test_exact_files_pass_and_read_back_to_the_class_map(tmp_path: Path, classes: np.ndarray, step: float) -> None:
    path = tmp_path / "exact.geojson"
    grid = grid_of(classes, step)
    exact = exact_polygons(ArrayMap(classes), TABLE)
    written = write_geojson(path, exact, TABLE, grid, identity=IDENTITY, overwrite=True)
    features = check_qupath(path)
    present = [index for index in (1, 2, 3) if (classes == index).any()]
    assert [f["properties"]["classification"]["name"] for f in features] == [TABLE[index].name for index in present]
    assert all(f["geometry"]["type"] == "MultiPolygon" for f in features)
    assert (written.annotations, written.repaired, written.dropped) == (len(present), 0, 0)
    if not present:
        assert read_geojson(path) == []
        return
    back = [
        (shapely.transform(area, lambda xy: np.round(xy / step)), TABLE.names.index(str(name)) + 1)
        for area, name in read_geojson(path)
    ]
    again = rasterio.features.rasterize(back, out_shape=classes.shape, dtype=np.uint8)
    np.testing.assert_array_equal(again, classes)
    for feature, index in zip(features, present, strict=True):
        area_um2 = (classes == index).sum() * grid.mpp.pixel_area_um2
        tolerance = 0.02 * written.vertices * 0.25**2 * 16  # what rounding to 0.01 px can move
        planar = shapely.geometry.shape(feature["geometry"]).area * 0.25**2  # as QuPath adds it up
        assert planar == pytest.approx(area_um2, abs=tolerance)
        assert written.area_um2[index] == pytest.approx(area_um2, abs=tolerance)


@WRITTEN_ONCE
@given(classes=MAPS, tolerance=st.sampled_from([0.5, 1.0, 2.0]), step=st.sampled_from([1.0, 2.004008, 0.37]))
def test_simplified_files_pass(tmp_path: Path, classes: np.ndarray, tolerance: float, step: float) -> None:
    path = tmp_path / "simplified.geojson"
    found, summary = simplified_polygons(ArrayMap(classes), TABLE, Mpp(1, 1), tolerance, 3.0)
    written = write_geojson(path, found, TABLE, grid_of(classes, step), identity=IDENTITY, overwrite=True)
    features = check_qupath(path)
    assert all(f["geometry"]["type"] == "Polygon" for f in features)
    assert (written.annotations, written.repaired, written.dropped) == (len(features), 0, 0)
    assert written.annotations == summary.polygons
    assert written.vertices == summary.vertices


@pytest.mark.parametrize("name", SHAPES)
def test_difficult_shapes_pass(tmp_path: Path, name: str) -> None:
    classes = SHAPES[name]
    source, grid = ArrayMap(classes), grid_of(classes)
    write_geojson(tmp_path / "e.geojson.gz", exact_polygons(source, TABLE), TABLE, grid, identity=IDENTITY)
    check_qupath(tmp_path / "e.geojson.gz")
    found, _ = simplified_polygons(source, TABLE, grid.mpp)
    write_geojson(tmp_path / "s.geojson.gz", found, TABLE, grid, identity=IDENTITY)
    check_qupath(tmp_path / "s.geojson.gz")


def test_a_feature_is_exactly_what_qupath_reads(tmp_path: Path) -> None:
    classes = np.zeros((4, 6), np.uint8)
    classes[1:3, 2:5] = 2
    grid = grid_of(classes, 4.0, 2.0)
    path = tmp_path / "one.geojson"
    written = write_geojson(path, exact_polygons(ArrayMap(classes), TABLE), TABLE, grid, identity=IDENTITY)
    assert written.area_um2 == {2: 3.0}  # 12 x 4 px of 0.25 um
    (feature,) = json.loads(path.read_text())["features"]
    assert feature == {
        "type": "Feature",
        "id": IDENTITY.uuid("MultiPolygon", 2, 0),
        "geometry": {"type": "MultiPolygon", "coordinates": [[[[8, 2], [20, 2], [20, 6], [8, 6], [8, 2]]]]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "Stroma", "color": list(TABLE[2].color)},
            "isLocked": True,
        },
    }


def test_ids_are_fixed_for_ever_and_differ_by_slide_model_class_and_index() -> None:
    assert IDENTITY.uuid("Polygon", 1, 0) == "146fff89-732a-5616-9dcb-b7c0d259e3ad"
    others = {
        IDENTITY.uuid("Polygon", 1, 0),
        IDENTITY.uuid("Polygon", 1, 1),
        IDENTITY.uuid("Polygon", 2, 0),
        IDENTITY.uuid("MultiPolygon", 1, 0),
        Identity("cc", IDENTITY.model_hash).uuid("Polygon", 1, 0),
        Identity(IDENTITY.slide_hash, "cc").uuid("Polygon", 1, 0),
    }
    assert len(others) == 6


def test_the_same_map_gives_the_same_bytes(tmp_path: Path) -> None:
    classes = blobs(64, 2)
    paths = [tmp_path / "a.geojson.gz", tmp_path / "b.geojson.gz"]
    for path, block in zip(paths, (2048, 17), strict=True):
        found, _ = simplified_polygons(ArrayMap(classes), TABLE, Mpp(1, 1), 1.0, 5.0, block=block)
        write_geojson(path, found, TABLE, grid_of(classes), identity=IDENTITY)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.geojson.gz", "b.geojson.gz"]


def test_what_rounding_would_cross_is_made_valid_or_left_out(tmp_path: Path) -> None:
    # Valid, but the vertex (5, 0.004) is rounded onto the bottom edge; the second polygon is rounded to a line.
    notch = shapely.Polygon([(0, 0), (10, 0), (10, 5), (5, 0.004), (0, 5)])
    sliver = shapely.Polygon([(0, 9), (4, 9), (4, 9.001)])
    assert shapely.is_valid(notch)
    grid = grid_of(np.zeros((10, 10), np.uint8), 1.0)
    path = tmp_path / "n.geojson"
    written = write_geojson(path, {1: [notch, sliver]}, TABLE, grid, identity=IDENTITY)
    features = check_qupath(path)
    assert (written.annotations, written.repaired, written.dropped) == (2, 1, 1)
    areas = [shapely.geometry.shape(f["geometry"]).area for f in features]
    assert areas == [12.5, 12.5]


def test_a_bow_tie_is_never_written(tmp_path: Path) -> None:
    bow_tie = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    path = tmp_path / "n.geojson"
    for kind, region in (("Polygon", [bow_tie]), ("MultiPolygon", shapely.MultiPolygon([bow_tie]))):
        grid = grid_of(np.zeros((4, 4), np.uint8), 1.0)
        written = write_geojson(path, {1: region}, TABLE, grid, identity=IDENTITY, overwrite=True)
        assert written.repaired == 1
        assert {f["geometry"]["type"] for f in check_qupath(path)} == {kind}
        assert written.area_um2[1] == pytest.approx(8 * 0.25**2)


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    path = tmp_path / "x.geojson"
    grid = grid_of(np.zeros((4, 4), np.uint8))
    square = {1: shapely.MultiPolygon([shapely.box(0, 0, 1, 1)])}
    many = {1: [shapely.box(x, 0, x + 1, 1) for x in range(0, 400, 2)]}
    with largest_file(2000), pytest.raises(OutputError, match=r"cannot write .*File too large"):
        write_geojson(path, many, TABLE, grid, identity=IDENTITY)
    assert list(tmp_path.iterdir()) == []
    write_geojson(path, square, TABLE, grid, identity=IDENTITY)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"exists; .* --overwrite"):
        write_geojson(path, {}, TABLE, grid, identity=IDENTITY)
    with largest_file(2000), pytest.raises(OutputError, match=r"cannot write .*File too large"):
        write_geojson(path, many, TABLE, grid, identity=IDENTITY, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x.json", "x.geojson.zip", ".geojson", "x"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=re.escape("ends in .geojson or .geojson.gz")):
        write_geojson(tmp_path / name, {}, TABLE, grid_of(np.zeros((1, 1), np.uint8)), identity=IDENTITY)


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    grid = grid_of(np.zeros((1, 1), np.uint8))
    (tmp_path / "f").write_text("")
    (tmp_path / "d.geojson").mkdir()
    for path in (tmp_path / "no" / "x.geojson", tmp_path / "f" / "x.geojson", tmp_path / "d.geojson"):
        with pytest.raises(OutputError) as caught:
            write_geojson(path, {}, TABLE, grid, identity=IDENTITY, overwrite=True)
        assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="class 4 is not in the class table of 3 classes"):
        write_geojson(tmp_path / "x.geojson", {4: []}, TABLE, grid, identity=IDENTITY)


SQUARE = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]


def feature(coordinates: Any, kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def test_reads_what_qupath_and_others_write(tmp_path: Path) -> None:
    plain = feature([SQUARE], classification={"name": "Tumour", "color": [200, 0, 0]})
    derived = feature([[SQUARE]], "MultiPolygon", classification={"names": ["Tumour", "Positive"]})
    bare = {"type": "Polygon", "coordinates": [[[0, 0], *([*xy, 7.5] for xy in SQUARE[1:])]]}
    square = shapely.Polygon(SQUARE)
    cases: list[tuple[Any, list[str | None]]] = [
        ({"type": "FeatureCollection", "features": [plain, derived]}, ["Tumour", "Tumour: Positive"]),
        ([plain], ["Tumour"]),
        (feature([SQUARE]), [None]),
        ({**feature([SQUARE]), "properties": None}, [None]),
        (bare, [None]),
        ({"type": "FeatureCollection", "features": []}, []),
    ]
    for tree, names in cases:
        (tmp_path / "x.geojson").write_text(json.dumps(tree))
        (tmp_path / "x.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(tree).encode()))
        for name in ("x.geojson", "x.gz"):
            found = read_geojson(tmp_path / name)
            assert [label for _, label in found] == names
            assert all(area.equals(square) and not area.has_z for area, _ in found)


HOSTILE: dict[str, tuple[bytes | Any, str]] = {
    "empty": (b"", "not valid JSON"),
    "no JSON": (b'{"type": "Feat', "not valid JSON"),
    "no text": (b"\xff\xfe\x00\x01", "not valid JSON"),
    "NaN": (b'{"type":"Polygon","coordinates":[[[0,0],[NaN,0],[1,1],[0,0]]]}', "NaN is not a number"),
    "endless": (b'{"type":"Polygon","coordinates":[[[0,0],[1e999,0],[1,1],[0,0]]]}', "lists of rings of numbers"),
    "thousands of digits": (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
    "deep": (b"[" * 200_000, "nested too deeply"),
    "deep object": (b'{"a":' * 200_000, "nested too deeply"),
    "truncated gzip": (gzip.compress(b"{}" * 5000)[:-9], "damaged or truncated gzip"),
    "altered gzip": (gzip.compress(b'{"type": 1}')[:12] + b"\xff" * 20, "damaged or truncated gzip"),
    "number": (5, "expected a GeoJSON FeatureCollection, got a int"),
    "text": ("x", "got a str"),
    "other type": ({"type": "Topology"}, "got type 'Topology'"),
    "type that is a list": ({"type": [[]]}, "expected a GeoJSON"),
    "no features": ({"type": "FeatureCollection"}, "needs a list of features"),
    "features null": ({"type": "FeatureCollection", "features": None}, "needs a list of features"),
    "no feature": ([1], "number 1 of the list is not a Feature"),
    "point": ([feature([SQUARE]), feature([1, 2], "Point")], "feature 2: expected a Polygon or MultiPolygon, got type"),
    "no geometry": ([{"type": "Feature", "geometry": None}], "got null"),
    "no coordinates": ({"type": "Polygon"}, "lists of rings of numbers"),
    "no rings": (feature([]), "lists of rings of numbers"),
    "flat": (feature(SQUARE), "lists of rings of numbers"),
    "too deep": (feature([[SQUARE]]), "lists of rings of numbers"),
    "strings": (feature([[["0", "0"], ["1", "0"], ["1", "1"], ["0", "0"]]]), "lists of rings of numbers"),
    "booleans": (feature([[[True, 0], [4, 0], [4, 4], [True, 0]]]), "lists of rings of numbers"),
    "null inside": (feature([[[0, None], [4, 0], [4, 4], [0, None]]]), "lists of rings of numbers"),
    "one number": (feature([[[0], [4], [4], [0]]]), "lists of rings of numbers"),
    "far away": (feature([[[0, 0], [10**400, 0], [4, 4], [0, 0]]]), "lists of rings of numbers"),
    "open ring": (feature([SQUARE[:-1]]), "ring must end where it started"),
    "short ring": (feature([[[0, 0], [1, 1], [0, 0]]]), "not a valid Polygon"),
    "four numbers": (feature([[[0, 0], [4, 0, 1, 1], [4, 4], [0, 0]]]), "numbers"),
    "bow tie": (feature([[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]]), "Self-intersection"),
    "overlapping parts": (feature([[SQUARE], [SQUARE]], "MultiPolygon"), "not a valid MultiPolygon"),
    "hole outside": (feature([SQUARE, [[x + 9, y] for x, y in SQUARE]]), "Hole lies outside shell"),
    "no area": (feature([[[0, 0], [4, 0], [4, 0], [0, 0]]]), "feature 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_end_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / "mask.geojson"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        read_geojson(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "mask.geojson" in str(caught.value)


def test_missing_folders_and_bombs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="No such file"):
        read_geojson(tmp_path / "none.geojson")
    with pytest.raises(OptionError, match="is not a file"):
        read_geojson(tmp_path)
    (tmp_path / "bomb.geojson.gz").write_bytes(gzip.compress(b" " * 5_000_000))
    with pytest.raises(OptionError, match="holds more than 1 MiB"):
        read_geojson(tmp_path / "bomb.geojson.gz", max_bytes=1024**2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.sampled_from(["Polygon", "Feature", "x"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "features", "geometry", "coordinates", "properties"]), inner)
    ),
    max_leaves=20,
)


@WRITTEN_ONCE
@given(tree=JSON)
def test_any_json_is_read_or_refused(tmp_path: Path, tree: Any) -> None:
    path = tmp_path / "any.geojson"
    for content in (tree, feature(tree), feature([tree]), {"type": "FeatureCollection", "features": tree}):
        path.write_text(json.dumps(content))
        try:
            found = read_geojson(path)
        except OptionError as error:
            assert "\n" not in str(error)
        else:
            assert all(shapely.is_valid(area) and area.area > 0 for area, _ in found)
