"""Polygons against the class map they come from: rasterised again, as a coverage, and by distance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.helpers.class_maps import MAPS, SHAPES, TABLE, Map, blobs
from tests.helpers.coverage import assert_coverage
from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Mpp, Size
from wsiseg.polygons.class_map import ArrayMap, Known
from wsiseg.polygons.components import find_components
from wsiseg.polygons.coverage import Coverage
from wsiseg.polygons.frame import Frame
from wsiseg.polygons.levels import HalvedMap
from wsiseg.polygons.sieve import SievedMap, absorb
from wsiseg.polygons.simplify import AREA_CHANGE, Budget, default_tolerance_um, exact_polygons, simplified_polygons
from wsiseg.tissue_map.pyramid import halved

UM = Mpp(1.0, 1.0)


def rasterise(found: dict[int, shapely.MultiPolygon], shape: tuple[int, ...]) -> Map:
    shapes = [(polygon, index) for index, polygon in found.items() if not polygon.is_empty]
    if not shapes:
        return np.zeros(shape, np.uint8)
    return np.asarray(rasterio.features.rasterize(shapes, out_shape=shape, dtype=np.uint8))


def straight_vertices(polygon: shapely.Polygon) -> int:
    """Vertices between two edges of one direction."""
    count = 0
    for ring in (polygon.exterior, *polygon.interiors):
        steps = np.diff(shapely.get_coordinates(ring), axis=0)
        around = np.vstack([steps, steps[:1]])
        count += sum(a[0] * b[1] == a[1] * b[0] for a, b in pairwise(around))
    return count


def assert_exact(classes: Map, block: int) -> None:
    found = exact_polygons(ArrayMap(classes), TABLE, block)
    assert list(found) == [1, 2, 3]
    np.testing.assert_array_equal(rasterise(found, classes.shape), classes)
    for index, multi in found.items():
        assert multi.geom_type == "MultiPolygon"
        assert shapely.is_valid(multi), shapely.is_valid_reason(multi)
        assert multi.area == (classes == index).sum()
        assert len(multi.geoms) == ndimage.label(classes == index)[1]
        assert sum(straight_vertices(polygon) for polygon in multi.geoms) == 0


@given(MAPS, st.integers(1, 16))
def test_exact_polygons_are_the_class_map(classes: Map, block: int) -> None:
    assert_exact(classes, block)
    whole = exact_polygons(ArrayMap(classes), TABLE)
    cut = exact_polygons(ArrayMap(classes), TABLE, block)
    assert {i: m.wkb for i, m in cut.items()} == {i: m.wkb for i, m in whole.items()}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("block", [1, 4, 7, 2048])
def test_exact_polygons_of_difficult_shapes(name: str, block: int) -> None:
    assert_exact(SHAPES[name], block)


def sieved_map(classes: Map, min_area: float) -> Map:
    components = find_components(ArrayMap(classes))
    source = SievedMap(ArrayMap(classes), components, absorb(components, min_area))
    return source.read(Box.from_size(source.size))


def assert_simplified(classes: Map, tolerance: float, min_area: float, block: int) -> None:
    found, summary = simplified_polygons(ArrayMap(classes), TABLE, UM, tolerance, min_area, block=block)
    assert_coverage(found)
    polygons = [polygon for part in found.values() for polygon in part]
    sieved = sieved_map(classes, min_area)
    assert (summary.tolerance_um, summary.min_area_um2, summary.within_budget) == (tolerance, min_area, True)
    assert summary.polygons == len(polygons) == sum(ndimage.label(sieved == i)[1] for i in (1, 2, 3))
    assert summary.vertices == sum(shapely.get_num_coordinates(p) for p in polygons)
    assert summary.repaired == 0
    # Inner borders move, but no hole opens between neighbours: what surrounds no 0 stays covered as a whole.
    if sieved.all():
        frame = shapely.box(0, 0, classes.shape[1], classes.shape[0])
        union = shapely.union_all(polygons)
        assert frame.difference(union).area <= 4 * tolerance**2  # the four corners of the map
        assert not any(len(part.interiors) for part in shapely.get_parts(union))
    # Where 0 was, nothing is covered farther from tissue than some tolerances.
    tissue = exact_polygons(ArrayMap((sieved > 0).astype(np.uint8)), TABLE)[1]
    if polygons and not tissue.is_empty:
        filled = shapely.union_all(polygons).difference(tissue.buffer(1.5 * tolerance + 1e-9))
        assert filled.area < 1e-9


@settings(max_examples=150)
@given(MAPS, st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]), st.integers(0, 12), st.integers(1, 16))
def test_simplified_polygons_stay_a_coverage(classes: Map, tolerance: float, min_area: int, block: int) -> None:
    assert_simplified(classes, tolerance, min_area, block)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 3.0])
def test_simplified_polygons_of_difficult_shapes(name: str, tolerance: float) -> None:
    assert_simplified(SHAPES[name], tolerance, 0.0, 4)
    assert_simplified(SHAPES[name], tolerance, 5.0, 4)


@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0, 4.0, 8.0]), st.sampled_from([0.0, 20.0]))
@settings(max_examples=25, deadline=None)
def test_simplified_blobs(seed: int, tolerance: float, min_area: float) -> None:
    assert_simplified(blobs(96, seed), tolerance, min_area, 40)


def test_without_tolerance_and_minimum_area_simplified_polygons_are_exact() -> None:
    classes = blobs(80, 3)
    found, _ = simplified_polygons(ArrayMap(classes), TABLE, UM, 0.0, 0.0, block=32)
    together = {index: shapely.MultiPolygon(polygons) for index, polygons in found.items()}
    np.testing.assert_array_equal(rasterise(together, classes.shape), classes)


@given(st.integers(0, 1000), st.integers(5, 120))
@settings(max_examples=20, deadline=None)
def test_simplified_polygons_do_not_depend_on_the_block(seed: int, block: int) -> None:
    classes = blobs(96, seed)
    whole, summary = simplified_polygons(ArrayMap(classes), TABLE, UM, 1.5, 12.0)
    cut, again = simplified_polygons(ArrayMap(classes), TABLE, UM, 1.5, 12.0, block=block)
    assert summary == again
    assert {i: [p.wkb for p in ps] for i, ps in whole.items()} == {i: [p.wkb for p in ps] for i, ps in cut.items()}


def test_units_are_microns() -> None:
    classes = np.full((40, 40), 1, np.uint8)
    classes[10:14, 10:14] = 2  # 16 px = 4 um2 at 0.5 um/px
    for min_area, kept in ((4.0, 1), (4.1, 0)):
        found, summary = simplified_polygons(ArrayMap(classes), TABLE, Mpp(0.5, 0.5), 0.5, min_area)
        assert len(found[2]) == kept
        assert (summary.absorbed, summary.absorbed_um2) == ((0, 0.0) if kept else (1, 4.0))
    assert default_tolerance_um(Mpp(0.5, 0.5)) == 2.0
    assert default_tolerance_um(Mpp(4.0, 4.0)) == 4.0


def test_a_budget_is_met_by_larger_tolerance_and_minimum_area_and_said() -> None:
    classes = blobs(200, 5)
    free, plain = simplified_polygons(ArrayMap(classes), TABLE, UM, 1.0, 0.0)
    few = Budget(plain.vertices, plain.polygons // 12)
    found, summary = simplified_polygons(ArrayMap(classes), TABLE, UM, 1.0, budget=few)
    assert summary.within_budget
    assert summary.polygons <= few.max_annotations
    assert summary.min_area_um2 > 0
    assert summary.tolerance_um == 1.0
    assert summary.absorbed > 0
    short = Budget(plain.vertices * 2 // 3, plain.polygons)
    found, summary = simplified_polygons(ArrayMap(classes), TABLE, UM, 1.0, 0.0, budget=short)
    assert not summary.within_budget  # what was asked for is done
    assert (summary.tolerance_um, summary.min_area_um2) == (1.0, 0.0)
    found, summary = simplified_polygons(ArrayMap(classes), TABLE, UM, None, 0.0, budget=short)
    assert summary.within_budget
    assert summary.vertices <= short.max_vertices
    assert (summary.tolerance_um > 2.0, summary.min_area_um2) == (True, 0.0)
    assert_coverage(found)
    assert sum(map(len, free.values())) == plain.polygons


def test_holes_of_class_0_are_kept_even_where_the_budget_cannot_be_met() -> None:
    classes = np.full((60, 60), 1, np.uint8)
    classes[1::3, 1::3] = 0
    found, summary = simplified_polygons(ArrayMap(classes), TABLE, UM, 1.0, 0.0, budget=Budget(100, 10))
    assert not summary.within_budget
    assert sum(len(polygon.interiors) for polygon in found[1]) == 400


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_parameters_are_refused(value: float) -> None:
    source = ArrayMap(np.ones((4, 4), np.uint8))
    with pytest.raises(OptionError, match="tolerance must be 0 or more"):
        simplified_polygons(source, TABLE, UM, value)
    with pytest.raises(OptionError, match="minimum area must be 0 or more"):
        simplified_polygons(source, TABLE, UM, 1.0, value)
    with pytest.raises(OptionError, match="at least 4 vertices"):
        Budget(3, 1)


def test_a_class_outside_the_table_is_refused() -> None:
    source = ArrayMap(np.full((4, 4), 4, np.uint8))
    with pytest.raises(OptionError, match="holds the value 4, its class table has 3"):
        exact_polygons(source, TABLE)
    with pytest.raises(OptionError, match="holds the value 4, its class table has 3"):
        simplified_polygons(source, TABLE, UM)


@given(MAPS)
@settings(max_examples=50)
def test_least_vertices_are_those_that_no_tolerance_takes(classes: Map) -> None:
    found = exact_polygons(ArrayMap(classes), TABLE)
    coverage = Coverage.from_polygons({index: shapely.get_parts(multi) for index, multi in found.items()})
    least = coverage.least_vertices(2)
    assert least <= coverage.vertices(2)
    coverage.simplify(1e6)
    assert least <= coverage.vertices(2) <= 2 * least


def noise(side: int, lowest: int = 1) -> Map:
    return np.random.default_rng(0).integers(lowest, 4, (side, side)).astype(np.uint8)


@pytest.mark.parametrize("lowest", [0, 1])
def test_noise_is_drawn_within_the_budget(lowest: int) -> None:
    classes = noise(96, lowest)
    budget = Budget(4000 if lowest else 8000, 400)  # holes of class 0 are never filled
    found, summary = simplified_polygons(ArrayMap(classes), TABLE, Mpp(0.5, 0.5), budget=budget)
    assert_coverage(found)
    assert summary.within_budget
    assert 0 < summary.polygons <= budget.max_annotations
    assert summary.absorbed > 1000
    for index, polygons in found.items():
        assert polygons
        assert sum(p.area for p in polygons) * 0.25 == pytest.approx(summary.polygons_um2[index - 1])


def test_no_tolerance_is_tried_that_cannot_help(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    simplify = Coverage.simplify
    monkeypatch.setattr(Coverage, "simplify", lambda self, um: (calls.append(um), simplify(self, um)))
    budget = Budget(2000, 10**6)
    _, summary = simplified_polygons(ArrayMap(noise(64)), TABLE, UM, None, 0.0, budget=budget)
    assert (len(calls), summary.within_budget, summary.tolerance_um) == (1, False, 2.0)
    calls.clear()
    _, summary = simplified_polygons(ArrayMap(noise(64)), TABLE, UM, budget=budget)
    assert summary.within_budget
    assert len(calls) < 8


def test_a_map_of_too_many_regions_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.polygons.simplify.REGIONS_AT_MOST", 300)
    classes = noise(101)
    classes[:40] = 1
    classes[:40, 50:] = WHITE_VALUE
    found, summary = simplified_polygons(ArrayMap(classes), TABLE, UM, frame=Frame(100.5, 101))
    assert summary.halvings == 2
    assert len(find_components(Known(HalvedMap(ArrayMap(classes)), 3, 4))) > 300
    assert_coverage(found)
    union = shapely.union_all([p for part in found.values() for p in part])
    assert union.bounds == (0, 0, 100.5, 101)
    areas = [(classes == index)[:, :100].sum() + (classes == index)[:, 100].sum() / 2 for index in (1, 2, 3)]
    assert summary.map_um2 == pytest.approx(areas)
    drawn = [sum(p.area for p in found[index]) for index in (1, 2, 3)]
    assert drawn == pytest.approx(summary.polygons_um2)
    assert drawn == pytest.approx(areas, rel=AREA_CHANGE)
    plain, few = simplified_polygons(ArrayMap(classes), TABLE, UM, 0.5, 1.0)
    assert (few.halvings, few.tolerance_um, few.min_area_um2) == (2, 4.0, 16.0)  # a pixel of what is drawn
    assert_coverage(plain)


@given(MAPS, st.data())
def test_a_halved_map_is_read_box_by_box(classes: Map, data: st.DataObject) -> None:
    twice = HalvedMap(HalvedMap(ArrayMap(classes)))
    whole = halved(halved(classes, labels=True), labels=True)
    assert twice.size == Size(whole.shape[1], whole.shape[0])
    x, y = data.draw(st.integers(0, twice.size.width - 1)), data.draw(st.integers(0, twice.size.height - 1))
    width, height = data.draw(st.integers(1, twice.size.width - x)), data.draw(st.integers(1, twice.size.height - y))
    box = Box(x, y, width, height)
    np.testing.assert_array_equal(twice.read(box), whole[box.slices()])
