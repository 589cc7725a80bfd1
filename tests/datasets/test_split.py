"""Whole groups are set aside, and every class with them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wsiseg.datasets.patch import UNKNOWN, Patch
from wsiseg.datasets.split import fold_groups, split_groups


def patches_of(groups: dict[str, list[tuple[int, ...]]]) -> list[Patch]:
    return [
        Patch(Path(f"{group}-{n}.png"), f"{group}-{n}.png", label, group)
        for group, labels in groups.items()
        for n, label in enumerate(labels)
    ]


@pytest.fixture(scope="module")
def lung() -> list[Patch]:
    """67 images as WSSS4LUAD's: the third class is in six of them, and three quarters of its patches in one."""
    generator = np.random.default_rng(1)
    groups = {}
    for n in range(67):
        third = {0: 72, 1: 9, 2: 6, 3: 4, 4: 3, 5: 2}.get(n, 0)
        pairs = generator.random((int(generator.integers(3, 30)), 2)) < 0.7
        groups[f"image{n}"] = [*((int(a), int(b), 0) for a, b in pairs), *([(0, 1, 1)] * third)]
    return patches_of(groups)


def share(part: list[Patch], whole: list[Patch], k: int) -> float:
    return sum(patch.has(k) for patch in part) / sum(patch.has(k) for patch in whole)


def test_every_class_is_in_both_parts_for_every_seed(lung: list[Patch]) -> None:
    found = set()
    for seed in range(40):
        train, val = split_groups(lung, 0.1, seed)
        assert not {p.group for p in train} & {p.group for p in val}
        assert len(train) + len(val) == len(lung)
        assert 0.08 < len(val) / len(lung) < 0.12
        for k in range(3):
            assert 0.05 < share(val, lung, k) < 0.2
        found.add(frozenset(p.group for p in val))
    assert len(found) > 30  # seeds still differ


def test_a_split_depends_on_its_seed_alone(lung: list[Patch]) -> None:
    groups = {p.group for p in split_groups(lung, 0.1, 3)[1]}
    assert groups == {p.group for p in split_groups(lung[::-1], 0.1, 3)[1]}


def test_a_class_of_one_group_stays_in_training() -> None:
    patches = patches_of({"a": [(1, 0)] * 9, "b": [(1, 0)] * 9, "c": [(1, 0)] * 9, "d": [(0, 1)] * 3})
    for seed in range(10):
        train, val = split_groups(patches, 0.25, seed)
        assert share(train, patches, 1) == 1
        assert val


def test_most_of_a_class_stays_in_training() -> None:
    """Of two groups with a class, never the larger one is set aside."""
    patches = patches_of({"a": [(1, 0)] * 9, "b": [(1, 0)] * 9, "c": [(0, 1)] * 9, "d": [(0, 1)] * 2})
    for seed in range(10):
        assert share(split_groups(patches, 0.2, seed)[1], patches, 1) < 0.5


def test_unknown_labels_and_none_at_all() -> None:
    patches = patches_of({"a": [(UNKNOWN, 1)], "b": [(UNKNOWN, UNKNOWN)], "c": [()], "d": [(1, 0)]})
    train, val = split_groups(patches, 0.3, 0)
    assert len(train) + len(val) == 4
    assert val


def test_many_groups_take_no_time() -> None:
    labels = np.random.default_rng(0).random((20_000, 4)) < [0.5, 0.3, 0.01, 0.001]
    patches = patches_of({f"g{n}": [tuple(int(v) for v in row)] for n, row in enumerate(labels)})
    _, val = split_groups(patches, 0.1, 0)
    assert len(val) == pytest.approx(2000, rel=0.02)
    for k in range(4):
        assert share(val, patches, k) == pytest.approx(0.1, abs=0.04)


def test_folds_share_groups_and_classes_out(lung: list[Patch]) -> None:
    folds = fold_groups(lung, 3, 0)
    assert Counter(p.name for part in folds for p in part) == Counter(p.name for p in lung)
    groups = [{p.group for p in part} for part in folds]
    assert not groups[0] & groups[1]
    assert not groups[2] & (groups[0] | groups[1])
    for part in folds:
        assert len(part) / len(lung) == pytest.approx(1 / 3, abs=0.08)
        assert all(share(part, lung, k) == pytest.approx(1 / 3, abs=0.06) for k in range(2))
    assert sum(any(p.has(2) for p in part) for part in folds) > 1  # most of the class is one image
    assert [len(part) for part in fold_groups(lung[:1], 3, 0)] == [1]
