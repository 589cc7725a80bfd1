"""Which parts of an array on disk hold anything."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from wsiseg.geometry import Box
from wsiseg.tissue_map.shards import shards_in


def stored(folder: Path, **settings: Any) -> zarr.Array[Any]:
    return zarr.create_array(
        folder,
        shape=(2, 70, 50),
        chunks=(1, 16, 16),
        shards=(2, 32, 32),
        dtype="uint8",
        **{"fill_value": 0, **settings},
    )


@pytest.mark.parametrize("box", [Box(0, 0, 50, 70), Box(20, 30, 25, 40), Box(33, 1, 1, 1), Box(0, 40, 0, 5)])
def test_what_is_left_out_is_zero(tmp_path: Path, box: Box) -> None:
    array = stored(tmp_path)
    array[:, 0:20, 40:50] = 3
    array[1, 66:68, 10:12] = 4
    found = np.zeros((2, 70, 50), np.uint8)
    for part in shards_in(array, box):
        assert not found[(..., *part.slices())].any()
        found[(..., *part.slices())] = array[(..., *part.slices())]
    expected = np.zeros_like(found)
    expected[(..., *box.slices())] = array[(..., *box.slices())]
    assert np.array_equal(found, expected)


def test_parts_without_a_file_are_not_given(tmp_path: Path) -> None:
    array = stored(tmp_path)
    assert list(shards_in(array, Box(0, 0, 50, 70))) == []
    array[0, 40, 40] = 1
    assert list(shards_in(array, Box(0, 0, 50, 70))) == [Box(32, 32, 18, 32)]


@pytest.mark.parametrize(
    "settings",
    [{"fill_value": 7}, {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}}],
)
def test_arrays_of_other_makers_are_read_whole(tmp_path: Path, settings: dict[str, Any]) -> None:
    array = stored(tmp_path, **settings)
    box = Box(3, 4, 40, 60)
    assert list(shards_in(array, box)) == [box]
