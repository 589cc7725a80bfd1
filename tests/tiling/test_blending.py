"""Blending: exact at constants, equal to a plain weighted mean."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.geometry import Size
from wsiseg.tiling.blending import blend, window
from wsiseg.tiling.grid import TileGrid

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
