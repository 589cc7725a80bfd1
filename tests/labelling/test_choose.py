"""Which patches are chosen, and how agreement is counted."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.labelling.agreement import kappas, wilson
from wsiseg.labelling.answers import Answer
from wsiseg.labelling.choose import choose_classwise, groups_of_alike, k_centre, principal


def test_k_centre_takes_the_farthest_first() -> None:
    points = np.array([[0.0], [1.0], [10.0], [11.0], [5.0]])
    assert k_centre(points, range(5), 3, [np.array([0.0])]) == [3, 4, 1]
    assert k_centre(points, [2, 3], 9, []) == [2, 3]
    assert k_centre(points, [], 3, []) == []


@given(st.integers(0, 60), st.integers(1, 80), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_as_many_as_wanted_and_none_twice(count: int, most: int, classes: int, patients: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = choose_classwise(
        list(range(0, count, 2)),
        most,
        rng.uniform(size=(count, classes)).astype(np.float32),
        rng.normal(size=(count, 3)).astype(np.float32),
        [f"p{i % patients}" for i in range(count)],
        seed,
    )
    indices = [one.index for one in chosen]
    assert len(indices) == min(most, len(range(0, count, 2)))
    assert len(set(indices)) == len(indices)
    assert all(index % 2 == 0 for index in indices)


def test_rare_classes_get_more_of_a_round_and_their_most_uncertain_patches() -> None:
    rng = np.random.default_rng(0)
    groups, features = [f"p{i}" for i in range(400)], rng.normal(size=(400, 4)).astype(np.float32)
    features[40:60] = 0.0  # all alike
    probabilities = np.full((400, 2), 0.01, np.float32)
    probabilities[40:60, 1] = np.linspace(0.3, 0.4, 20)
    probabilities[200:400, 0] = np.linspace(0.4, 0.5, 200)
    chosen = choose_classwise(range(400), 30, probabilities, features, groups, 0, positives=(50, 10))
    sought = {one.index for one in chosen if one.source == "classwise"}
    assert len(sought) == 24
    assert sought & set(range(40, 60)) == set(range(40, 60))  # 50 / 60 of 24, though alike
    assert sought - set(range(40, 60)) <= set(range(200, 400))
    even = choose_classwise(range(400), 30, probabilities, features, groups, 0, positives=(50, 50))
    assert len({one.index for one in even if one.source == "classwise"} & set(range(200, 400))) == 12


def test_no_patient_has_it_all() -> None:
    rng = np.random.default_rng(0)
    groups = ["a"] * 180 + ["b"] * 20
    probabilities = np.float32([[0.5]] * 180 + [[0.9]] * 20)
    chosen = choose_classwise(list(range(200)), 40, probabilities, rng.normal(size=(200, 4)), groups, 0)
    uncertain = [groups[one.index] for one in chosen if one.source == "classwise"]
    assert uncertain.count("a") <= 16 + 1


def test_groups_of_alike_hold_everything_once() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 0.1, (30, 2)), rng.normal(5, 0.1, (10, 2)), rng.normal(-5, 0.1, (20, 2))])
    groups = groups_of_alike(points, 3, 0)
    assert [len(group) for group in groups] == [30, 20, 10]
    assert sorted(index for group in groups for index in group) == list(range(60))
    assert set(groups[2]) == set(range(30, 40))


def test_principal_components_keep_distances() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 5)).astype(np.float32)
    reduced = principal(features)
    assert np.allclose(np.linalg.norm(reduced[3] - reduced[9]), np.linalg.norm(features[3] - features[9]), rtol=1e-5)
    assert principal(np.zeros((3, 100), np.float32)).shape == (3, 64)


def _pairs(both: int, first: int, second: int, neither: int) -> list[tuple[Answer, Answer]]:
    def answer(value: bool) -> Answer:
        return Answer({"T": value}, "labelled")

    counts = {(True, True): both, (True, False): first, (False, True): second, (False, False): neither}
    return [(answer(a), answer(b)) for (a, b), count in counts.items() for _ in range(count)]


def test_kappa_of_a_textbook() -> None:
    """The grant example of Cohen's kappa: 20, 5, 10, 15 of 50 give 0.4."""
    found = kappas(_pairs(20, 5, 10, 15), ["T", "S"])
    assert found[0].kappa == pytest.approx(0.4)
    assert found[0].agreement == pytest.approx(0.7)
    assert found[1].pairs == 0
    assert math.isnan(found[1].kappa)
    assert math.isnan(kappas(_pairs(9, 0, 0, 0), ["T"])[0].kappa), "always the same: chance explains it"


def test_wilson_as_published() -> None:
    """Newcombe 1998, table I: 81 of 263 and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)
