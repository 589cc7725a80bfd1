"""A mask in bits gives back what was put in, whatever part is asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.tissue import bit_mask
from wsiseg.tissue.bit_mask import BitMask


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_any_block_is_that_of_the_mask(height: int, width: int, data: st.DataObject) -> None:
    mask = np.random.default_rng(height * 41 + width).random((height, width)) < 0.5
    top, left = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    bottom, right = data.draw(st.integers(top, height)), data.draw(st.integers(left, width))
    found = BitMask(mask).block(top, bottom, left, right)
    assert found.dtype == np.bool_
    assert np.array_equal(found, mask[top:bottom, left:right])


@pytest.mark.parametrize("rows", [1, 3, 7, 8])
def test_bands_are_all_of_it(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bit_mask, "BAND_ROWS", rows)
    mask = np.random.default_rng(0).random((7, 13)) < 0.5
    found = list(BitMask(mask).bands())
    assert [top for top, _ in found] == list(range(0, 7, rows))
    assert np.array_equal(np.concatenate([band for _, band in found]), mask)
    assert np.array_equal(BitMask(mask).pixels(), mask)
    assert BitMask(mask).shape == (7, 13)
