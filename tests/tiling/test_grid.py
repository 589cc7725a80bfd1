"""Tiles cover every pixel, in a fixed order, and no more of them than needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size
from wsiseg.tiling.grid import TileGrid


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    patch=st.integers(1, 64),
    share=st.floats(0, 0.99),
)
def test_grid_covers_every_pixel_without_a_spare_row(width: int, height: int, patch: int, share: float) -> None:
    grid = TileGrid.from_share(Size(width, height), patch, share)
    covered = np.zeros((height, width), int)
    for tile in grid.tiles():
        box = tile.box.intersect(Box.from_size(grid.map_size))
        assert not box.is_empty
        covered[box.slices()] += 1
    assert covered.min() >= 1
    if grid.rows > 1:
        assert grid.box(grid.rows - 2, 0).bottom < height  # one row fewer would leave pixels uncovered
    if grid.columns > 1:
        assert grid.box(0, grid.columns - 2).right < width


def test_order_is_by_rows_and_indices_have_no_gap() -> None:
    grid = TileGrid(Size(100, 50), 20, 5)
    tiles = list(grid.tiles(grid.select(lambda box: (box.x // 15 + box.y // 15) % 2 == 0)))
    assert [tile.index for tile in tiles] == list(range(len(tiles)))
    assert [(tile.row, tile.column) for tile in tiles] == sorted((tile.row, tile.column) for tile in tiles)
    assert 0 < len(tiles) < len(grid)


def test_keep_sees_boxes_cut_to_the_map() -> None:
    seen: list[Box] = []
    selected = TileGrid(Size(30, 10), 20, 0).select(lambda box: seen.append(box) is None)
    assert selected.tolist() == [[True, True]]
    assert seen == [Box(0, 0, 20, 10), Box(20, 0, 10, 10)]


def test_a_map_of_one_patch_is_one_tile_at_any_overlap() -> None:
    for share in (0, 0.25, 0.5, 0.9):
        assert [tile.box for tile in TileGrid.from_share(Size(224, 224), 224, share).tiles()] == [Box(0, 0, 224, 224)]


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 2.0, float("nan")])
def test_overlap_out_of_range_is_refused(overlap: float) -> None:
    with pytest.raises(OptionError, match="overlap"):
        TileGrid.from_share(Size(10, 10), 4, overlap)
