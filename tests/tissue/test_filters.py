"""The filters have SciPy's own values, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from wsiseg.tissue.filters import fits, gaussian

masks = st.tuples(array_shapes(min_dims=2, max_dims=2, max_side=40), st.floats(0.3, 1), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).random(drawn[0]) < drawn[1]
)


@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=30)), st.floats(0.3, 3))
def test_smoothing_of_a_picture(picture, sigma):
    expected = ndimage.gaussian_filter(picture, (sigma, sigma, 0), output=np.float32, mode="nearest")
    ours = gaussian(gaussian(picture, sigma, 0).astype(np.float32), sigma, 1).astype(np.float32)
    assert np.array_equal(ours, expected)


@given(arrays(np.float64, 256, elements=st.integers(0, 10**7).map(float)))
def test_smoothing_of_counts(counts):
    expected = ndimage.gaussian_filter1d(counts, 1.5, mode="constant")
    assert np.array_equal(gaussian(counts, 1.5, beyond="constant"), expected)


@given(masks, st.integers(1, 30))
def test_where_a_square_fits(mask, side):
    expected = ndimage.minimum_filter(mask.view(np.uint8), size=side, mode="nearest").view(np.bool_)
    assert np.array_equal(fits(mask, side), expected)


@pytest.mark.parametrize("side", [3, 16])
def test_a_square_fits_at_one_place(side):
    mask = np.zeros((60, 50), np.bool_)
    mask[20 : 20 + side, 10 : 10 + side] = True
    assert np.argwhere(fits(mask, side)).tolist() == [[20 + side // 2, 10 + side // 2]]
