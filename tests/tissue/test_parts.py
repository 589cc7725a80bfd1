"""Parts of masks against SciPy's, of noise, of windings, and over the borders of bands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from wsiseg.tissue import parts
from wsiseg.tissue.parts import large_parts


def expected(mask, least, corners):
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(2, 1 + corners))
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= least
    keep[0] = False
    return keep[labels]


@given(
    st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.integers(0, 2**32 - 1), st.floats(0, 80), st.booleans()
)
def test_noise(height, width, density, seed, least, corners):
    mask = np.random.default_rng(seed).random((height, width)) < density
    found = large_parts(mask, least, corners=corners)
    assert found.dtype == np.bool_
    assert np.array_equal(found, expected(mask, least, corners))


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("density", [0.35, 0.5, 0.6, 0.65])
def test_many_parts_over_several_bands(density, corners, monkeypatch):
    monkeypatch.setattr(parts, "_ROWS", 7)
    mask = np.random.default_rng(3).random((500, 400)) < density
    for least in (2, 30, 1000.5):
        assert np.array_equal(large_parts(mask, least, corners=corners), expected(mask, least, corners))


@pytest.mark.parametrize("turn", range(4))
def test_a_comb_and_a_spiral_are_one_part(turn):
    comb = np.zeros((101, 101), np.bool_)
    comb[::2] = True
    comb[1::4, 0] = comb[3::4, -1] = True  # a snake from end to end
    spiral = np.ones((81, 81), np.bool_)
    for inset in range(1, 40, 2):
        spiral[inset, inset - 1 : 81 - inset] = spiral[inset : 81 - inset, 80 - inset] = False
        spiral[80 - inset, inset : 81 - inset] = spiral[inset + 2 : 81 - inset, inset] = False
    for mask in (comb, spiral):
        turned = np.rot90(mask, turn)
        pixels = int(expected(turned, 1, False).sum())
        for least in (pixels, pixels + 1):
            assert np.array_equal(large_parts(turned, least, corners=False), expected(turned, least, False))
    assert large_parts(np.rot90(comb, turn), int(comb.sum()), corners=False).any()


def test_masks_without_anything():
    for shape in ((0, 5), (5, 0), (4, 4)):
        assert not large_parts(np.zeros(shape, np.bool_), 0, corners=True).any()
    assert large_parts(np.ones((4, 4), np.bool_), 16, corners=False).all()
