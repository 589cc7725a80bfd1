"""Where squares lie in an image, and what is known of each."""

import numpy as np
import pytest

from wsiseg.datasets.cut.image import KnownImage, label_of_mask, label_of_part, squares_of, starts
from wsiseg.datasets.patch import UNKNOWN

PIXELS = np.random.default_rng(0).integers(0, 200, (300, 500, 3), np.uint8)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (50, [0]),
        (100, [0]),
        (125, [12]),  # a quarter is left out, half of it at each border
        (126, [0, 26]),
        (200, [0, 100]),
        (220, [10, 110]),
        (230, [0, 65, 130]),
    ],
)
def test_squares_along_a_side(length: int, expected: list[int]) -> None:
    assert starts(length, 100) == expected


def test_all_of_an_image_but_a_quarter_of_a_square_is_covered() -> None:
    for length in range(50, 900):
        places = starts(length, 100)
        covered = np.zeros(length, bool)
        for place in places:
            assert 0 <= place <= max(0, length - 100)
            covered[place : place + 100] = True
        assert (~covered).sum() <= 25


def test_masks_are_cut_with_their_image() -> None:
    mask = np.zeros((300, 500), np.uint8)
    mask[:, 250:] = 1
    mask[200:, :] = 2  # excluded
    squares = squares_of(KnownImage("a", "a", "", PIXELS, mask), 100, 2)
    assert len(squares) == 15
    for square in squares:
        box = (slice(square.y, square.y + 100), slice(square.x, square.x + 100))
        assert (square.pixels == PIXELS[box]).all()
        assert square.mask is not None
        assert (square.mask == np.where(mask[box] < 2, mask[box], 255)).all()
    labels = {(square.x, square.y): square.label for square in squares}
    assert labels[0, 0] == (1, 0)
    assert labels[200, 0] == (1, 1)
    assert labels[400, 100] == (0, 1)
    assert labels[400, 200] == (UNKNOWN, UNKNOWN)


@pytest.mark.parametrize(
    ("first", "excluded", "white", "label"),
    [
        (100, 0, 0, (1, 0)),
        (5, 0, 0, (1, 1)),
        (4, 0, 0, (UNKNOWN, 1)),  # there, but too little to count on
        (0, 0, 0, (0, 1)),
        (0, 6, 0, (UNKNOWN, 1)),  # more than 5 % of which nothing is known
        (0, 6, 6, (0, 1)),  # glass
        (0, 100, 100, (0, 0)),
    ],
)
def test_labels_from_masks(first: int, excluded: int, white: int, label: tuple[int, int]) -> None:
    """Of 100 pixels, `first` are of the first class, `excluded` of none, the rest of the second."""
    mask = np.ones(100, np.uint8)
    mask[:first] = 0
    mask[100 - excluded :] = 2
    glass = np.zeros(100, bool)
    glass[100 - white :] = True
    assert label_of_mask(mask.reshape(10, 10), glass.reshape(10, 10), 2) == label


def test_labels_from_dots() -> None:
    dots = np.array([[10.5, 10.5, 0], [99.9, 50, 1], [100.0, 50, 2]])
    squares = squares_of(KnownImage("a", "a", "", PIXELS[:100, :200], dots=dots), 100, 3)
    assert [(square.x, square.label) for square in squares] == [(0, (1, 1, 0)), (100, (0, 0, 1))]


@pytest.mark.parametrize(
    ("label", "part", "expected"),
    [
        ((1, 1, 0), 0.5, (1, 1, 0)),
        ((1, 1, 0), 0.49, (UNKNOWN, UNKNOWN, 0)),
        ((1, 0, 0), 0.1, (1, 0, 0)),
        ((1, UNKNOWN, 0), 0.1, (UNKNOWN, UNKNOWN, 0)),
        ((0, 0, 0), 0.1, (0, 0, 0)),
    ],
)
def test_labels_of_parts(label: tuple[int, ...], part: float, expected: tuple[int, ...]) -> None:
    assert label_of_part(label, part) == expected


def test_small_images_are_mirrored_and_tiny_ones_left_out() -> None:
    mask = np.zeros((60, 80), np.uint8)
    (square,) = squares_of(KnownImage("a", "a", "", PIXELS[:60, :80], mask), 100, 1)
    assert (square.pixels[:60, :80] == PIXELS[:60, :80]).all()
    assert (square.pixels[:60, 80:] == PIXELS[:60, 60:80][:, ::-1]).all()
    assert square.mask is not None
    assert (square.mask[:60, :80] == 0).all()
    assert (square.mask == 255).sum() == 100 * 100 - 60 * 80
    assert square.label == (1,)
    assert not squares_of(KnownImage("a", "a", "", PIXELS[:49], label=(1,)), 100, 1)
