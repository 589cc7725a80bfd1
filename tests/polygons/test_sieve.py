"""Components and their absorption against plain whole-array programs, and against themselves at other block sizes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from wsiseg.arrays import Float64Array
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size
from wsiseg.polygons.class_map import ArrayMap, blocks
from wsiseg.polygons.components import find_components
from wsiseg.polygons.sieve import SievedMap, absorb, min_areas_px

Map = npt.NDArray[np.uint8]
MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=13), elements=st.integers(0, 3))


def sieved(classes: Map, min_area: float | Float64Array, block: int) -> tuple[Map, object]:
    source = ArrayMap(classes)
    components = find_components(source, block)
    absorption = absorb(components, min_area)
    return SievedMap(source, components, absorption).read(Box.from_size(source.size)), absorption


def plain_components(classes: Map) -> npt.NDArray[np.int64]:
    """Components of the whole array, numbered from 1 by their first pixels."""
    out = np.zeros(classes.shape, np.int64)
    for value in range(1, int(classes.max(initial=0)) + 1):
        labels, _ = ndimage.label(classes == value)
        out[labels > 0] = labels[labels > 0] + out.max()
    first = {int(i): int(np.flatnonzero(out.ravel() == i)[0]) for i in np.unique(out) if i}
    rank = {i: n for n, i in enumerate(sorted(first, key=first.__getitem__), start=1)}
    return np.vectorize(lambda i: rank.get(int(i), 0), otypes=[np.int64])(out)


def plain_sieve(classes: Map, min_area: float | Float64Array) -> Map:
    """The definition of `absorb`, pixel by pixel: label the map anew after each change."""
    classes = classes.copy()
    least = np.broadcast_to(np.asarray(min_area, np.float64), 256)
    while True:
        labels = plain_components(classes)
        areas = np.bincount(labels.ravel())
        small = [(int(areas[i]), i) for i in range(1, len(areas)) if areas[i] < least[classes[labels == i][0]]]
        if not small:
            return classes
        _, i = min(small)
        borders: Counter[int] = Counter()
        largest: Counter[int] = Counter()
        for y, x in np.argwhere(labels == i):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < classes.shape[0] and 0 <= u < classes.shape[1] and labels[v, u] not in (0, i):
                    c = int(classes[v, u])
                    borders[c] += 1
                    largest[c] = max(largest[c], int(areas[labels[v, u]]))
        classes[labels == i] = max(borders, key=lambda c: (borders[c], largest[c], -c)) if borders else 0


@given(MAPS, st.integers(1, 14))
def test_components_are_those_of_the_whole_array(classes: Map, block: int) -> None:
    found = find_components(ArrayMap(classes), block)
    labels = plain_components(classes)
    assert found.areas_px.tolist() == np.bincount(labels.ravel())[1:].tolist()
    assert found.classes.tolist() == [int(classes[labels == i][0]) for i in range(1, labels.max() + 1)]
    edges: Counter[tuple[int, int]] = Counter()
    for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        for i, j in zip(a.ravel(), b.ravel(), strict=True):
            if i and j and i != j:
                edges[(min(i, j) - 1, max(i, j) - 1)] += 1
    got = {(int(i), int(j)): int(n) for (i, j), n in zip(found.pairs, found.borders_px, strict=True)}
    assert got == dict(edges)


@given(MAPS, st.integers(1, 14), st.integers(0, 20))
def test_absorption_follows_its_definition_at_any_block_size(classes: Map, block: int, min_area: int) -> None:
    out, absorption = sieved(classes, min_area, block)
    expected = plain_sieve(classes, min_area)
    np.testing.assert_array_equal(out, expected)
    labels = plain_components(classes)
    changed = [i for i in range(1, labels.max() + 1) if (out != classes)[labels == i].any()]
    dropped = [i for i in changed if (out[labels == i] == 0).all()]
    assert absorption.regions == plain_components(expected).max()
    assert absorption.dropped == len(dropped)
    assert absorption.dropped_px == int(((out == 0) & (classes > 0)).sum())
    assert absorption.absorbed == len(changed) - len(dropped)
    assert absorption.absorbed_px == int(((out != classes) & (out > 0)).sum())
    assert not out[classes == 0].any()


@given(MAPS, st.integers(1, 14), st.data())
def test_any_box_of_a_sieved_map_is_that_part_of_the_whole(classes: Map, block: int, data: st.DataObject) -> None:
    source = ArrayMap(classes)
    components = find_components(source, block)
    whole = SievedMap(source, components, absorb(components, 4))
    x = data.draw(st.integers(0, source.size.width - 1))
    y = data.draw(st.integers(0, source.size.height - 1))
    box = Box(
        x,
        y,
        data.draw(st.integers(1, source.size.width - x)),
        data.draw(st.integers(1, source.size.height - y)),
    )
    np.testing.assert_array_equal(whole.read(box), whole.read(Box.from_size(source.size))[box.slices()])


def test_longest_border_wins_over_largest_neighbour() -> None:
    classes = np.array([[1, 1, 1, 1], [1, 3, 2, 2], [2, 2, 2, 2]], np.uint8)
    out, absorption = sieved(classes, 2, 2)
    np.testing.assert_array_equal(out[1], [1, 2, 2, 2])  # equal borders: 2 is the larger neighbour
    assert (absorption.absorbed, absorption.absorbed_px, absorption.dropped) == (1, 1, 0)
    deep = np.full((4, 9), 2, np.uint8)
    deep[:2, :3] = 1
    deep[0, 1:3] = 3  # 3 pixel edges with class 1, which is small, 1 with class 2, which is large
    np.testing.assert_array_equal(sieved(deep, 3, 2)[0][:2, :3], [[1, 1, 1], [1, 1, 1]])


def test_damaged_areas_are_never_overwritten_and_islands_in_them_are_dropped() -> None:
    classes = np.zeros((6, 6), np.uint8)
    classes[1, 1] = 2
    classes[3:5, 3:6] = 1
    classes[4, 4] = 0
    out, absorption = sieved(classes, 4, 4)
    assert out[1, 1] == 0
    assert out[4, 4] == 0
    assert int((out == 1).sum()) == 5
    assert (absorption.dropped, absorption.dropped_px, absorption.regions) == (1, 1, 1)


@given(MAPS, st.integers(1, 14), st.lists(st.integers(0, 20), min_size=3, max_size=3))
def test_each_class_has_its_own_minimum_area(classes: Map, block: int, least: list[int]) -> None:
    areas = np.zeros(256)
    areas[1:4] = least
    out, absorption = sieved(classes, areas, block)
    np.testing.assert_array_equal(out, plain_sieve(classes, areas))
    assert absorption.regions == plain_components(out).max()
    labels = plain_components(out)
    for i in range(1, labels.max() + 1):
        assert (labels == i).sum() >= areas[out[labels == i][0]]


@given(MAPS, st.floats(1, 30), st.floats(0, 0.99))
def test_chosen_minimum_areas_take_no_more_than_their_share(classes: Map, least: float, share: float) -> None:
    components = find_components(ArrayMap(classes))
    found = min_areas_px(components, least, share)
    assert found.max() <= least
    for index in (1, 2, 3):
        areas = components.areas_px[components.classes == index]
        if len(areas):
            assert areas[areas < found[index]].sum() <= share * areas.sum()
            assert areas.max() >= found[index]  # the largest stays
            if found[index] < least:  # no larger one would do
                assert areas[areas <= found[index]].sum() > share * areas.sum()
    assert (min_areas_px(components, least, 1.0) == least).all()


WHITE = 3


@given(MAPS, st.integers(1, 14), st.integers(0, 20))
def test_white_is_treated_as_any_class_and_counted_apart(classes: Map, block: int, least: int) -> None:
    source = ArrayMap(classes)
    components = find_components(source, block)
    absorption = absorb(components, least, WHITE)
    out = SievedMap(source, components, absorption).read(Box.from_size(source.size))
    np.testing.assert_array_equal(out, plain_sieve(classes, least))
    labels = plain_components(classes)
    became = {i: int(out[labels == i][0]) for i in range(1, labels.max() + 1)}
    changed = [i for i, value in became.items() if value != classes[labels == i][0]]
    gone = [i for i in changed if became[i] in (0, WHITE)]
    assert absorption.dropped == len(gone)
    assert absorption.absorbed == len(changed) - len(gone)
    assert absorption.dropped_px == sum(int((labels == i).sum()) for i in gone)
    assert absorption.regions == len(
        {int(i) for i in np.unique(plain_components(out)) if i and out[plain_components(out) == i][0] != WHITE}
    )


def test_small_holes_of_white_close_and_islands_in_white_go() -> None:
    classes = np.full((12, 20), 1, np.uint8)
    classes[:, 10:] = WHITE
    classes[3:5, 3:5] = WHITE  # a hole of 4 px
    classes[6:9, 6:9] = WHITE  # one of 9
    classes[3:5, 14:16] = 2  # an island of 4 px
    classes[7:10, 14:17] = 2  # one of 9
    least = np.zeros(256)
    least[[1, 2, WHITE]] = 5, 9, 9
    components = find_components(ArrayMap(classes))
    absorption = absorb(components, least, WHITE)
    out = SievedMap(ArrayMap(classes), components, absorption).read(Box(0, 0, 20, 12))
    assert (out[3:5, 3:5] == 1).all()
    assert (out[6:9, 6:9] == WHITE).all()
    assert (out[3:5, 14:16] == WHITE).all()
    assert (out[7:10, 14:17] == 2).all()
    assert (absorption.absorbed, absorption.absorbed_px) == (1, 4)
    assert (absorption.dropped, absorption.dropped_px) == (1, 4)
    assert absorption.regions == 2  # tissue and the larger island; white is none


def test_blocks_tile_a_map() -> None:
    assert list(blocks(Size(5, 3), 4)) == [Box(0, 0, 4, 3), Box(4, 0, 1, 3)]
    assert list(blocks(Size(0, 3), 4)) == []
    with pytest.raises(OptionError, match="at least one pixel"):
        list(blocks(Size(5, 3), 0))
    with pytest.raises(OptionError, match="uint8"):
        ArrayMap(np.zeros((2, 2), np.int64))  # type: ignore[arg-type]
