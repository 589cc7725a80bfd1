"""The gate's context: a weighted mean over the tiles around, streamed row by row."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.models.context import gaussian, in_context


@dataclass(frozen=True)
class Place:
    row: int
    column: int


def stream(places, values):
    return [(number, Place(*place), value) for number, (place, value) in enumerate(zip(places, values, strict=True))]


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
    found = list(in_context(stream(places, values), sigma))
    assert [item for item, _ in found] == list(range(len(places)))  # all, once, in their order
    np.testing.assert_allclose([value for _, value in found], plainly(places, values, sigma), rtol=1e-5)


def test_one_tile_alone_keeps_its_probabilities():
    value = np.array([0.25, 0.75], np.float32)
    ((_, found),) = in_context(stream([(5, 3)], [value]), 2.0)
    assert found.tolist() == value.tolist()


def test_a_single_outlier_gives_way_to_its_neighbours():
    values = np.zeros((49, 1), np.float32)
    values[24] = 1.0  # the middle of 7 x 7
    places = [(n // 7, n % 7) for n in range(49)]
    found = np.array([value for _, value in in_context(stream(places, values), 1.0)])[:, 0]
    # Of a Gaussian of sigma 1 cut at 2: 1 / (1 + 2 e^-0.5 + 2 e^-2)^2
    assert found[24] == pytest.approx(1 / (1 + 2 * np.exp(-0.5) + 2 * np.exp(-2)) ** 2)
    assert found[24] == found.max()
    assert found[0] == 0


def test_it_holds_no_more_rows_than_the_gaussian_reaches():
    """An item comes out as soon as the rows below that have weight are there."""
    taken = []

    def source():
        for row in range(20):
            taken.append(row)
            yield row, Place(row, 0), np.ones(1, np.float32)

    for row, _ in in_context(source(), 1.5):
        assert taken[-1] - row <= 3 + 1


def test_weights():
    np.testing.assert_allclose(gaussian(1.0), np.exp([-2.0, -0.5, 0, -0.5, -2.0]))
    assert gaussian(0.3).tolist() == [1.0]
