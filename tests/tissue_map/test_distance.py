"""Distances beside the classes: how they are coded, weighed by tissue, stored and checked."""

import math
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.helpers.stored_maps import provenance, stored_map
from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import MapError
from wsiseg.geometry import Box, Size
from wsiseg.tissue_map.distance import DISTANCE, DistanceGrid, Far, coded, far_of, strips_of
from wsiseg.tissue_map.reader import open_map
from wsiseg.tissue_map.writer import MapWriter

GRID = DistanceGrid(4, 6, 96, 48)


def test_values_are_hundredths_of_the_limit() -> None:
    assert coded(np.array([0.0, 0.5, 1.0, 1.01, 9.0], np.float32)).tolist() == [1, 50, 100, 101, 255]


def test_each_pixel_belongs_to_the_patch_whose_middle_is_nearest() -> None:
    # Patches of 96 every 48: middles at 48, 96, 144, …; borders half way between, and all that lies before or behind.
    nearest = GRID.nearest(0, 300, 6, 0)
    assert [int(np.flatnonzero(nearest == n)[0]) for n in range(1, 6)] == [72, 120, 168, 216, 264]
    assert GRID.nearest(0, 75, 6, 2).tolist() == nearest[2::4].tolist()


@pytest.mark.parametrize("level", [0, 2])
def test_the_share_is_one_of_classified_tissue(level: int) -> None:
    size = Size(288 >> level, 240 >> level)
    classes = np.ones(size.shape, np.uint8)
    values = np.full((4, 6), 50, np.uint8)
    values[:, 3:] = 150  # far from column 168 on
    strips = lambda: ((box, classes[box.slices()]) for box in strips_of(size))  # noqa: E731
    assert far_of(values, GRID, level, strips()).share == pytest.approx((288 - 168) / 288)
    classes[:, : 144 >> level] = 0  # neither glass nor white count
    classes[: 120 >> level] = WHITE_VALUE
    assert far_of(values, GRID, level, strips()).share == pytest.approx((288 - 168) / 144)
    values[:, 3:] = 0
    found = far_of(values, GRID, level, strips())
    assert (found.share, found.known) == (0, pytest.approx(24 / 144))
    classes[:] = 0
    assert math.isnan(far_of(values, GRID, level, strips()).share)


def test_a_person_is_told_from_a_fifth_on() -> None:
    assert Far(0.19, 1.0).warning is None
    assert Far(float("nan"), 0.0).warning is None
    told = Far(0.623, 1.0).warning
    assert told is not None
    assert told.startswith("62% of the tissue looks unlike this model's training data")
    assert Far.from_metadata({DISTANCE: Far(0.25, 0.5).to_json()}) == Far(0.25, 0.5)
    assert Far.from_metadata({}) is None


def with_distances(path: Path, values: np.ndarray, grid: DistanceGrid = GRID) -> Path:
    stored_map(path, Size(288, 240), about={**provenance(), DISTANCE: {"grid": grid.to_json()}})
    found = open_map(path)
    MapWriter(path, found.classes, found.grid, 2048).write_distances(values)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    found = open_map(with_distances(tmp_path / "m.zarr", values)).distances()
    assert found is not None
    assert found[0] == GRID
    assert np.array_equal(found[1], values)
    assert found[0].level(3) == 2
    stored_map(tmp_path / "old.zarr", Size(288, 240))
    assert open_map(tmp_path / "old.zarr").distances() is None


def test_distances_that_are_damaged_are_told(tmp_path: Path) -> None:
    other = open_map(with_distances(tmp_path / "size.zarr", np.ones((4, 5), np.uint8)))
    with pytest.raises(MapError, match="damaged in its distances"):
        other.distances()
    path = with_distances(tmp_path / "bytes.zarr", np.ones((4, 6), np.uint8))
    chunk = path / DISTANCE / "0" / "c" / "0" / "0"
    chunk.write_bytes(b"nothing of the kind")
    with pytest.raises(MapError, match="damaged in its distances"):
        open_map(path).distances()
    assert open_map(path).read(Box(0, 0, 9, 9)).shape == (9, 9), "all else is read"
    array = zarr.open_array(path / DISTANCE / "0", mode="r")
    assert array.shape == (4, 6)
