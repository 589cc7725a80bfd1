"""Polygons of maps with too many corners: from a coarser level, which is chosen by counting and always said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.class_maps import MAPS, SHAPES, TABLE, Map, blobs
from tests.helpers.commands import Run, run
from tests.helpers.coverage import assert_coverage
from tests.helpers.maps import write_map
from tests.helpers.qupath_rules import check_qupath
from wsiseg.cli.main import main
from wsiseg.errors import OptionError
from wsiseg.export.drawn_polygons import coarser_note
from wsiseg.export.polygons import VectorOptions, export_geojson
from wsiseg.geometry import Box, Mpp, Size
from wsiseg.polygons.class_map import ArrayMap
from wsiseg.polygons.frame import Frame
from wsiseg.polygons.levels import CORNER_BYTES, MapLevel, count_corners, fitting_level
from wsiseg.polygons.simplify import exact_polygons, simplified_polygons
from wsiseg.tissue_map.reader import open_map

__all__ = ["run"]


class Halved:
    """A pyramid in memory, nearest as in a tissue map."""

    mpp = Mpp(1.0, 1.0)

    def __init__(self, classes: Map, levels: int) -> None:
        self.arrays = [classes[:: 2**level, :: 2**level] for level in range(levels)]
        self.levels = levels
        self.size = Size(classes.shape[1], classes.shape[0])

    def read(self, box: Box, level: int = 0) -> Map:
        return self.arrays[level][box.slices()]


def corners_of(classes: Map) -> int:
    return sum(
        int(shapely.get_num_coordinates(multi)) - sum(1 + len(part.interiors) for part in multi.geoms)
        for multi in exact_polygons(ArrayMap(classes), TABLE).values()
    )


@given(MAPS)
def test_corners_are_counted(classes: Map) -> None:
    assert count_corners(ArrayMap(classes), 10**9) == corners_of(classes)


def test_counting_ends_as_soon_as_there_are_too_many() -> None:
    class Short(ArrayMap):
        def read(self, box: Box) -> Map:
            assert box.y == 0, "the first rows were enough"
            return self.classes[box.slices()]

    assert count_corners(Short(np.tile(SHAPES["checkerboard"], (300, 10))), 100) > 100


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_the_finest_level_that_fits_is_taken(number: int) -> None:
    pyramid = Halved(blobs(256, 3), 4)
    corners = [corners_of(classes) for classes in pyramid.arrays]
    assert corners == sorted(corners, reverse=True)
    assert fitting_level(pyramid, corners[number] * CORNER_BYTES).level == number
    assert fitting_level(pyramid, 0).level == 3  # the coarsest, where none fits


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(41, 60), st.integers(41, 60))
def test_polygons_of_a_level_lie_where_they_do_in_the_map(seed: int, number: int, width: int, height: int) -> None:
    classes = blobs(64, seed, 6.0, empty=-9.0)[:height, :width]
    level = MapLevel(Halved(classes, 4), number)
    assert level.mpp.x == 2**number
    frame = Frame(width / 2**number, height / 2**number)
    found, _ = simplified_polygons(level, TABLE, level.mpp, level.mpp.mean, 0.0, frame=frame)
    moved = {index: level.to_map_pixels(polygons) for index, polygons in found.items()}
    assert_coverage(moved)
    union = shapely.union_all([polygon for part in moved.values() for polygon in part])
    assert union.within(shapely.box(0, 0, width, height))
    assert union.area == pytest.approx(width * height, rel=0.15)
    coarse = exact_polygons(
        ArrayMap(np.kron(level.read(Box.from_size(level.size)), np.ones((2**number,) * 2, np.uint8))), TABLE
    )
    for index, polygons in moved.items():
        assert shapely.union_all(polygons).difference(coarse[index].buffer(2**number * 3)).area < 1e-9


def test_a_coarser_level_is_said(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write_map(tmp_path / "m.zarr", Size(900, 700), probabilities=False)
    tissue_map = open_map(tmp_path / "m.zarr")
    options = VectorOptions(tolerance_um=0.25, min_area_um2=40.0, max_memory=64 * 2**20)
    done = export_geojson(tissue_map, tmp_path / "m.geojson", options)
    features = check_qupath(tmp_path / "m.geojson")
    assert done.annotations == len(features) > 0
    made = done.simplification
    assert made is not None
    level = fitting_level(tissue_map, 64 * 2**20)
    assert made.level == level.level > 0
    assert made.level_um == level.mpp.mean
    assert made.tolerance_um >= level.mpp.mean  # no finer than its pixels
    assert made.min_area_um2 >= level.mpp.pixel_area_um2
    assert made.within_budget
    note = coarser_note(made)
    assert note is not None
    assert note.startswith(f"polygons are made from a coarser level ({level.mpp.mean:.3g} um/px)")
    coordinates = np.concatenate([shapely.get_coordinates(shapely.geometry.shape(f["geometry"])) for f in features])
    assert coordinates.max(axis=0).tolist() == [1800, 1400]  # the map's own size, in level-0 pixels

    shown = run("export", tmp_path / "m.zarr", "--geojson", tmp_path / "n.geojson", "--max-memory", "64M")
    assert "coarser level" in shown
    fine = export_geojson(tissue_map, tmp_path / "f.geojson", VectorOptions(min_area_um2=250.0))
    assert fine.simplification is not None
    assert fine.simplification.level == fine.simplification.halvings == 1
    assert "(1 um/px) since the map has more than 200,000 regions" in (coarser_note(fine.simplification) or "")
    write_map(tmp_path / "few.zarr", Size(300, 200), probabilities=False)
    whole = export_geojson(open_map(tmp_path / "few.zarr"), tmp_path / "w.geojson", VectorOptions(min_area_um2=250.0))
    assert whole.simplification is not None
    assert (whole.simplification.level, coarser_note(whole.simplification)) == (0, None)


def test_too_little_memory_and_its_use_elsewhere_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError, match="at least 64M"):
        VectorOptions(max_memory=1000)
    with pytest.raises(SystemExit) as stop:
        main(["export", "m.zarr", "--geojson", "m.geojson", "--exact", "--max-memory", "1G"])
    assert stop.value.code == 2
    assert "without --exact" in capsys.readouterr().err
