"""Overlays and legends."""

import numpy as np
from PIL import Image

from wsiseg.classes import WHITE_VALUE, ClassTable
from wsiseg.export.overlay import borders, legend, overlay
from wsiseg.geometry import Grid, Mpp, Size
from wsiseg.slides.array import ArrayReader
from wsiseg.slides.overview import read_picture

CLASSES = ClassTable.from_names(["A", "B"], [(200, 0, 0), (0, 0, 100)])


def test_overlay_mixes_inside_draws_borders_and_leaves_the_rest() -> None:
    class_map = np.zeros((6, 8), np.uint8)
    class_map[1:5, 1:4] = 1
    class_map[1:5, 4:7] = 2
    picture = np.full((6, 8, 3), 100, np.uint8)
    image = overlay(picture, class_map, CLASSES, 0.5)
    assert (image[class_map == 0] == 100).all()
    white = overlay(picture, np.where(class_map == 2, WHITE_VALUE, class_map).astype(np.uint8), CLASSES, 0.5)
    assert (white[class_map == 2] == 100).all()  # seen through, as what is no tissue
    assert white[2, 2].tolist() == [150, 50, 50]
    assert image[2, 2].tolist() == [150, 50, 50]
    assert image[2, 5].tolist() == [50, 50, 100]
    assert image[2, 3].tolist() == [200, 0, 0]  # its right neighbour is of another class
    assert borders(class_map)[2].tolist() == [True, False, False, True, False, False, True, False]


def test_legend_shows_every_class_however_narrow_the_picture() -> None:
    classes = ClassTable.from_names([f"Class number {i}" for i in range(1, 9)])
    for width in (60, 300, 2000):
        image = legend(np.zeros((10, width, 3), np.uint8), classes)
        assert image.shape[1] == width
        strip = image[10:]
        for tissue_class in classes:
            assert (strip == tissue_class.color).all(axis=2).sum() > 100


def test_a_picture_read_in_pieces_is_the_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8)
    slide = ArrayReader(pixels, stated_mpp=Mpp(1, 1))
    grid = Grid(Size(100, 150), Mpp(2, 2), 2.0, 2.0, 0, 2.0, 2.0)
    expected = pixels.reshape(150, 2, 100, 2, 3).mean(axis=(1, 3))
    assert np.abs(read_picture(slide, grid) - expected).max() <= 0.5
    assert Image.fromarray(read_picture(slide, grid)).size == (100, 150)
