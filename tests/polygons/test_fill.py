"""Areas become pixels by their centres, as GDAL's do."""

import math

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio import Affine
from shapely.ops import split

from wsiseg.geometry import Size
from wsiseg.polygons import fill
from wsiseg.polygons.fill import fill_areas

SIZE = Size(40, 30)


def centres(size: Size, step: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: size.height, : size.width]
    return (x + 0.5) * step, (y + 0.5) * step


def test_a_pixel_belongs_to_an_area_by_its_centre() -> None:
    mask = fill_areas([shapely.box(1.4, 2.6, 3.6, 4.4)], Size(6, 6), 1)
    assert np.argwhere(mask).tolist() == [[3, 1], [3, 2], [3, 3]]


def test_holes_parts_and_what_overlaps() -> None:
    ring = shapely.box(2, 2, 20, 20).difference(shapely.box(5, 5, 10, 10))
    parts = shapely.MultiPolygon([shapely.box(25, 1, 30, 4), shapely.box(32, 1, 50, 4)])  # one reaches beyond
    mask = fill_areas([ring, shapely.box(8, 8, 12, 12), parts], SIZE, 1)
    assert mask[3, 3] and not mask[6, 6] and mask[9, 9] and mask[11, 11] and mask[2, 26] and not mask[2, 31]
    assert mask[1:4, 32:].all()
    assert mask.sum() == 18 * 18 - 5 * 5 + 2 * 2 + 5 * 3 + 8 * 3


def test_what_lies_outside_or_between_centres_fills_nothing() -> None:
    areas = [shapely.box(-9, -9, -1, -1), shapely.box(0, 31, 9, 40), shapely.box(50, 0, 60, 9)]
    areas += [shapely.box(3.6, 0, 4.4, 30), shapely.box(0, 3.6, 40, 4.4)]
    assert not fill_areas(areas, SIZE, 1).any()
    assert not fill_areas([], SIZE, 1).any()
    assert fill_areas([shapely.box(-100, -100, 100, 100)], SIZE, 1).all()


def test_areas_that_share_a_border_share_no_pixel() -> None:
    """Also where the border runs through centres, level or not."""
    whole, cut = shapely.box(0, 0, 80, 60), shapely.LineString([(0, 31), (40, 31), (40, 15), (45, 15), (80, 1)])
    parts = list(split(whole, cut).geoms)
    assert len(parts) == 2
    first, second = (fill_areas([part], SIZE, 2) for part in parts)
    assert not (first & second).any()
    assert (first | second).all()


def test_crossings_in_portions_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    area = shapely.Point(20, 15).buffer(13.3).difference(shapely.Point(18, 14).buffer(4.1))
    whole = fill_areas([area], SIZE, 1)
    monkeypatch.setattr(fill, "_MOST_CROSSINGS", 3)
    assert np.array_equal(fill_areas([area], SIZE, 1), whole)
    assert whole.sum() == pytest.approx(area.area, rel=0.02)


@st.composite
def areas(draw: st.DrawFn) -> shapely.Geometry:
    """Valid areas, with holes and parts, with corners on whole numbers now and then."""
    number = st.one_of(st.integers(-10, 50), st.floats(-10, 50, allow_nan=False, width=32))
    points = draw(st.lists(st.tuples(number, number), min_size=3, max_size=12))
    return shapely.make_valid(shapely.Polygon(points))


@given(st.lists(areas(), min_size=1, max_size=3), st.sampled_from([1.0, 2.0, 4.0, 3.7, 2.0000001]))
def test_pixels_are_those_of_gdal(found: list[shapely.Geometry], step: float) -> None:
    """But for centres that lie on a border, of which GDAL takes those on one kind of level border twice."""
    parts = [part for area in found for part in shapely.get_parts(area) if part.geom_type.endswith("Polygon")]
    size = Size(math.ceil(40 / step), math.ceil(40 / step))
    mine = fill_areas(parts, size, step)
    gdal = np.zeros(size.shape, np.uint8)
    if parts:
        rasterio.features.rasterize([(part, 1) for part in parts], out=gdal, transform=Affine(step, 0, 0, 0, step, 0))
    x, y = centres(size, step)
    borders = shapely.MultiLineString([line for part in parts for line in shapely.get_parts(part.boundary)])
    shapely.prepare(borders)
    clear = ~shapely.dwithin(borders, shapely.points(x, y), 1e-6)
    assert np.array_equal(mine[clear], gdal.astype(bool)[clear])
