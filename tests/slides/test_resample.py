"""Area weights and the grid arithmetic they rest on."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import sparse

from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Grid, Level, Mpp, Size, ceil_div, exact_downsample, plan_grid, source_interval
from wsiseg.slides.resample import axis_weights, resample

zooms = st.floats(0.05, 40) | st.integers(1, 40).map(float)
starts = st.integers(-5000, 200_000)
lengths = st.integers(1, 40)


@given(starts, lengths, zooms)
def test_rows_sum_to_one_and_no_weight_is_negative(start, length, zoom):
    first, count = source_interval(start, length, zoom)
    weights = axis_weights(start, length, zoom, first, count).toarray()
    assert weights.shape == (length, count)
    assert np.abs(weights.sum(axis=1) - 1).max() < 1e-5
    assert weights.min() >= 0


@given(starts, lengths, zooms)
def test_the_interval_holds_every_pixel_that_counts(start, length, zoom):
    """Asked with room on both sides, the weights outside the interval are nil, but for rounding."""
    first, count = source_interval(start, length, zoom)
    wide = axis_weights(start, length, zoom, first - 5, count + 10).toarray()
    assert wide[:, :5].max(initial=0) <= 2e-3 / min(zoom, 1)
    assert wide[:, -5:].max(initial=0) <= 2e-3 / min(zoom, 1)
    assert np.abs(wide[:, 5:-5] - axis_weights(start, length, zoom, first, count).toarray()).max() <= 4e-3


@given(starts, lengths, st.integers(1, 32))
def test_a_whole_zoom_takes_the_mean_of_exactly_its_pixels(start, length, zoom):
    assert source_interval(start, length, float(zoom)) == (start * zoom, length * zoom)
    weights = axis_weights(start, length, float(zoom), start * zoom, length * zoom).toarray()
    assert np.allclose(weights, np.kron(np.eye(length), np.full((1, zoom), 1 / zoom)), atol=1e-7)


@given(st.integers(0, 500), lengths, st.floats(0.05, 12), st.integers(0, 39), st.integers(1, 39))
@example(242, 19, 1.5692298334555606, 18, 1)  # a sliver of 0.0004 pixel at the box's edge
def test_weights_do_not_depend_on_the_box(start, length, zoom, skip, part):
    skip, part = min(skip, length - 1), min(part, length)
    part = min(part, length - skip)
    first, count = source_interval(start, length, zoom)
    whole = axis_weights(start, length, zoom, first, count).toarray()[skip : skip + part]
    own_first, own_count = source_interval(start + skip, part, zoom)
    own = np.zeros_like(whole)
    offset = own_first - first
    own[:, offset : offset + own_count] = axis_weights(start + skip, part, zoom, own_first, own_count).toarray()
    assert np.array_equal(own, whole)


@given(starts, lengths, zooms, st.integers(-3, 3), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_the_sums_are_those_of_a_sparse_matrix(start, length, zoom, shift, width, seed):
    """SciPy adds up each row's products in the order of the columns, in float32; so maps stay as they are."""
    first, count = source_interval(start, length, zoom)
    weights = axis_weights(start, length, zoom, first + shift, count)
    taps = len(weights.source)
    row = np.repeat(np.arange(length), taps)
    matrix = sparse.csr_array((weights.weight.T.ravel(), (row, weights.source.T.ravel())), shape=(length, count))
    pixels = np.random.default_rng(seed).integers(0, 256, (count, width), np.uint8)
    ours = weights @ pixels
    assert ours.dtype == np.float32
    assert np.array_equal(ours, matrix @ pixels)
    assert np.array_equal(weights.toarray(), matrix.toarray())


@given(zooms, st.integers(0, 255), st.integers(-20, 50), st.integers(-20, 50))
def test_one_colour_stays_itself(zoom, value, x, y):
    grid = Grid(Size(100, 100), Mpp(1, 1), 1, 1, 0, zoom, zoom)
    box = Box(x, y, 7, 5)
    left, width = source_interval(x, 7, zoom)
    top, height = source_interval(y, 5, zoom)
    pixels = np.full((height, width, 3), value, np.uint8)
    out = resample(pixels, Box(left, top, width, height), box, grid)
    assert out.shape == (5, 7, 3)
    assert (out == value).all()


def test_a_mean_by_hand():
    row = np.array([[0, 30, 60, 90, 120, 150]], np.uint8)
    pixels = np.repeat(row.T[None], 3, axis=2).repeat(2, axis=0)  # (2, 6, 3)
    grid = Grid(Size(4, 2), Mpp(1, 1), 1, 1, 0, 1.5, 1.0)
    out = resample(pixels, Box(0, 0, 6, 2), Box(0, 0, 4, 2), grid)
    assert out[0, :, 0].tolist() == [10, 50, 100, 140]  # (0 + 30/2)/1.5, (30/2 + 60)/1.5, …


@given(st.integers(1, 300_000), st.integers(1, 64))
def test_a_downsample_that_a_writer_rounded_is_found(length0, factor):
    for length in {length0 // factor, ceil_div(length0, factor)} - {0}:
        found = exact_downsample(length0, length)
        if length > 2 * factor:
            assert found == factor
        assert abs(length0 / found - length) < 1


def test_a_downsample_that_is_none_stays():
    assert exact_downsample(1000, 300) == 1000 / 300
    with pytest.raises(OptionError):
        exact_downsample(10, 0)


@given(
    st.integers(1, 200_000),
    st.integers(1, 200_000),
    st.floats(0.1, 1),
    st.floats(0.1, 30),
    st.lists(st.sampled_from([2, 4, 8, 16, 32]), unique=True),
)
def test_a_grid_covers_the_slide_and_reads_a_finer_level(width, height, slide_mpp, mpp, factors):
    size = Size(width, height)
    levels = [
        Level.from_sizes(Size(max(1, width // f), max(1, height // f)), size)
        for f in [1, *sorted(factors)]
        if f == 1 or min(width, height) >= 100 * f
    ]
    grid = plan_grid(levels, Mpp(slide_mpp, slide_mpp), mpp)
    level = levels[grid.level]
    assert grid.size.width * grid.step_x > width - level.downsample_x - 1e-6 * width
    assert (grid.size.width - 1) * grid.step_x < width
    assert (grid.size.height - 1) * grid.step_y < height
    assert grid.step_x == pytest.approx(grid.zoom_x * level.downsample_x)
    assert grid.mpp.x == pytest.approx(grid.step_x * slide_mpp)
    if grid.resamples:
        assert grid.mpp == Mpp(mpp, mpp)
        assert grid.zoom_x >= 1 or grid.level == 0
        coarser = [one for one in levels if one.downsample > level.downsample]
        assert all(one.downsample * slide_mpp > mpp for one in coarser)
    else:
        assert grid.size == level.size
        assert abs(grid.mpp.x / mpp - 1) <= 0.05


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf")])
def test_a_map_needs_a_resolution(mpp):
    with pytest.raises(OptionError):
        plan_grid([Level(Size(10, 10), 1, 1)], Mpp(0.5, 0.5), mpp)
