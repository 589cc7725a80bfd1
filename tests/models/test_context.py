"""The gate's context: a weighted mean over the tiles around."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.models.context import gaussian, mean_in_context


def in_grid(places, values, sigma):
    """The means of tiles at some places, in their order."""
    rows, columns = np.array(places).T
    present = np.zeros((rows.max() + 1, columns.max() + 1), bool)
    field = np.full((*present.shape, values.shape[1]), np.nan, np.float32)  # what is not there must not count
    present[rows, columns] = True
    field[rows, columns] = values
    found = mean_in_context(field, present, sigma)
    assert (found[~present] == 0).all()
    return found[rows, columns]


def plainly(places, values, sigma):
    """The definition, tile by tile."""
    radius = int(2 * sigma)
    result = []
    for row, column in places:
        total, weights = np.zeros(values.shape[1]), 0.0
        for (r, c), value in zip(places, values, strict=True):
            if abs(r - row) <= radius and abs(c - column) <= radius:
                weight = np.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * sigma**2))
                total += weight * value
                weights += weight
        result.append(total / weights)
    return np.array(result)


@given(
    st.sets(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=1, max_size=40),
    st.sampled_from([0.3, 0.5, 1.0, 2.0, 3.7]),
    st.integers(0, 2**32 - 1),
)
def test_the_mean_is_that_of_its_definition_in_any_shape_of_tissue(places, sigma, seed):
    places = sorted(places)
    values = np.random.default_rng(seed).random((len(places), 3), dtype=np.float32)
    np.testing.assert_allclose(in_grid(places, values, sigma), plainly(places, values, sigma), rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_one_tile_alone_keeps_its_probabilities(sigma):
    value = np.array([[0.25, 0.75]], np.float32)
    assert in_grid([(5, 3)], value, sigma).tolist() == value.tolist()


def test_without_context_all_keep_their_probabilities():
    values = np.random.default_rng(0).random((12, 3), dtype=np.float32)
    assert in_grid([(n // 4, n % 4) for n in range(12)], values, 0.0).tobytes() == values.tobytes()


def test_a_single_outlier_gives_way_to_its_neighbours():
    values = np.zeros((49, 1), np.float32)
    values[24] = 1.0  # the middle of 7 x 7
    places = [(n // 7, n % 7) for n in range(49)]
    found = in_grid(places, values, 1.0)[:, 0]
    # Of a Gaussian of sigma 1 cut at 2: 1 / (1 + 2 e^-0.5 + 2 e^-2)^2
    assert found[24] == pytest.approx(1 / (1 + 2 * np.exp(-0.5) + 2 * np.exp(-2)) ** 2)
    assert found[24] == found.max()
    assert found[0] == 0


def test_weights():
    np.testing.assert_allclose(gaussian(1.0), np.exp([-2.0, -0.5, 0, -0.5, -2.0]))
    assert gaussian(0.3).tolist() == [1.0]
