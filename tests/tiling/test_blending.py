"""Blending: exact at constants, independent of order, equal to a plain weighted mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size
from wsiseg.tiling.blending import COLUMN_PX, Blender, Block, blend, window
from wsiseg.tiling.grid import Tile, TileGrid

sizes = st.builds(Size, st.integers(1, 90), st.integers(1, 90))


def grids(draw: st.DrawFn) -> TileGrid:
    patch = draw(st.integers(1, 32))
    return TileGrid(draw(sizes), patch, draw(st.integers(0, patch - 1)))


tile_grids = st.composite(grids)()


@given(tile_grids)
def test_a_constant_of_one_stays_exactly_one(grid: TileGrid) -> None:
    ones = np.ones((2, grid.patch_px, grid.patch_px), np.float32)
    out = blend(grid.map_size, [(tile, ones) for tile in grid.tiles()], grid)
    assert out.shape == (2, *grid.map_size.shape)
    assert (out == 1).all()


@given(tile_grids, st.randoms(use_true_random=False), st.data())
def test_order_of_arrival_changes_no_byte(grid: TileGrid, random: np.random.Generator, data: st.DataObject) -> None:
    keep = data.draw(st.lists(st.booleans(), min_size=len(grid), max_size=len(grid)))
    tiles = list(grid.tiles(np.array(keep).reshape(grid.rows, grid.columns)))
    if not tiles:
        return
    rng = np.random.default_rng(0)
    patches = [(tile, rng.random((3, grid.patch_px, grid.patch_px), np.float32)) for tile in tiles]
    ordered = blend(grid.map_size, patches, grid)
    random.shuffle(patches)
    assert blend(grid.map_size, patches, grid).tobytes() == ordered.tobytes()


@given(tile_grids)
def test_equals_the_weighted_mean(grid: TileGrid) -> None:
    rng = np.random.default_rng(1)
    patches = [(tile, rng.random((1, grid.patch_px, grid.patch_px), np.float32)) for tile in grid.tiles()]
    weights = window(grid.patch_px, grid.overlap_px).astype(np.float64)
    height, width = (n + grid.patch_px for n in grid.map_size.shape)
    above, below = np.zeros((height, width)), np.zeros((height, width))
    for tile, values in patches:
        above[tile.box.slices()] += weights * values[0]
        below[tile.box.slices()] += weights
    expected = (above / np.where(below, below, 1))[: grid.map_size.height, : grid.map_size.width]
    np.testing.assert_allclose(blend(grid.map_size, patches, grid)[0], expected, rtol=2e-6)


def test_window_is_positive_and_neighbours_add_up() -> None:
    weights = window(16, 4)
    assert weights.min() > 0
    np.testing.assert_allclose(weights[8, :4] + weights[8, -4:], 1)
    assert (window(16, 0) == 1).all()


def test_unreadable_pixels_are_uncovered_and_take_no_part() -> None:
    grid = TileGrid(Size(12, 8), 8, 4)
    readable = np.ones((8, 8), bool)
    readable[2:4, 5:7] = False  # map columns 5 and 6
    seen_by_second = np.ones((8, 8), bool)
    seen_by_second[2:4, 1:3] = False
    first, second = grid.tiles()
    blender = Blender(grid, 1)
    blocks = [*blender.add(first, np.full((1, 8, 8), 0.25, np.float32), readable)]
    blocks += [*blender.add(second, np.full((1, 8, 8), 0.25, np.float32), seen_by_second), *blender.finish()]
    (block,) = blocks
    assert block.covered.sum() == 12 * 8 - 4
    assert not block.covered[2:4, 5:7].any()
    assert (block.probabilities[0][block.covered] == 0.25).all()
    assert (block.probabilities[0][~block.covered] == 0).all()


def test_rows_leave_memory_as_soon_as_nothing_can_change_them() -> None:
    grid = TileGrid(Size(COLUMN_PX * 20, 100), 10, 2)
    blender = Blender(grid, 1)
    patch = np.ones((1, 10, 10), np.float32)
    blocks: list[Block] = []
    for tile in grid.tiles(grid.select(lambda box: box.x < 20)):
        fresh = list(blender.add(tile, patch))
        assert all(block.box.bottom <= tile.box.y for block in fresh)
        blocks += fresh
        assert len(blender._columns) == 1
    blocks += blender.finish()
    assert not blender._columns
    assert sum(block.box.height for block in blocks) == 100


def test_tiles_that_come_twice_or_never_are_refused() -> None:
    grid = TileGrid(Size(8, 8), 4, 0)
    patch = np.ones((1, 4, 4), np.float32)
    first, second, *_ = grid.tiles()
    blender = Blender(grid, 1)
    list(blender.add(second, patch))
    with pytest.raises(OptionError, match="twice"):
        list(blender.add(second, patch))
    with pytest.raises(OptionError, match="tile 0 never came"):
        list(blender.finish())
    with pytest.raises(OptionError, match="shape"):
        list(Blender(grid, 2).add(first, patch))
    assert Tile(0, 0, 0, Box(0, 0, 4, 4)) == first
