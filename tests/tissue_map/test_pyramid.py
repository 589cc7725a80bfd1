"""Halving: labels by majority, values by mean, and neither moves."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from tests.helpers.class_maps import blobs
from wsiseg.classes import ClassTable
from wsiseg.geometry import Box, Grid, Mpp, Size, ceil_div
from wsiseg.tissue_map.pyramid import STRIP_PX, halved
from wsiseg.tissue_map.writer import MapWriter

Pixels = np.ndarray


def by_hand(pixels: Pixels) -> Pixels:
    """The rule as it is stated, pixel by pixel."""
    height, width = pixels.shape
    out = np.zeros((ceil_div(height, 2), ceil_div(width, 2)), np.uint8)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            some = pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            (value, most), *others = Counter(some.ravel().tolist()).most_common()
            tie = any(count == most for _, count in others)
            out[y, x] = (some[-1, -1] if (x + y) % 2 else some[0, 0]) if tie else value
    return out


@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 3, 255])
    )
)
def test_labels_go_by_the_majority_and_ties_by_the_chess_board(pixels: Pixels) -> None:
    assert np.array_equal(halved(pixels, labels=True), by_hand(pixels))


def test_all_cases_of_four_pixels() -> None:
    every = np.stack(np.meshgrid(*[np.arange(4, dtype=np.uint8)] * 4), -1).reshape(-1, 2, 2)
    row = np.concatenate(list(every), axis=1)
    both = np.concatenate([row, row])
    assert np.array_equal(halved(both, labels=True), by_hand(both))


@pytest.mark.parametrize("corner", [(0, 0), (4, 8), (STRIP_PX, 512), (260, 4)])
def test_a_part_is_halved_as_in_the_whole(corner: tuple[int, int]) -> None:
    pixels = np.random.default_rng(3).integers(0, 3, (700, 601)).astype(np.uint8)
    whole = halved(pixels, labels=True)
    y, x = corner
    part = halved(pixels[y:, x:], labels=True)
    assert np.array_equal(whole[y // 2 :, x // 2 :], part)


def test_no_class_grows_and_no_border_moves() -> None:
    """Half of the borders lie on odd pixels, where all is ties: they stay where they were, on average."""
    for axis in (0, 1):
        pixels = np.zeros((512, 512), np.uint8)
        lines = np.moveaxis(pixels, axis, 0)
        for start in range(0, 500, 50):
            lines[start + 3 : start + 20] = 1
            lines[start + 20 : start + 33] = 255
        for value in (0, 1, 255):
            before, after = pixels == value, halved(pixels, labels=True) == value
            assert abs(after.mean() - before.mean()) < 1e-9
            fine, coarse = ndimage.center_of_mass(before), ndimage.center_of_mass(after)
            assert np.allclose(np.array(fine) + 0.5, 2 * (np.array(coarse) + 0.5), atol=0.05)


@pytest.mark.parametrize("probabilities", [True, False])
def test_centroids_of_all_classes_agree_on_all_levels_through_the_stores_own_transforms(
    tmp_path: Path, probabilities: bool
) -> None:
    classes = blobs(1216, 5, sigma=12.0)[:1213, :1199]
    classes[1200:], classes[:, 1184:] = 0, 0  # odd edges: their last pixels reach beyond the map
    classes[300:700, 301:803][classes[300:700, 301:803] == 2] = 255
    size = Size(1199, 1213)
    table = ClassTable.from_names(["Tumour", "Stroma", "Lymphocytes"])
    grid = Grid(size, Mpp(0.5, 0.4), 1.0, 1.0, 0, 1.0, 1.0)
    writer = MapWriter(tmp_path / "m.zarr", table, grid, 512, probabilities=probabilities)
    values = np.stack([(classes == index) * np.uint8(255) for index in (1, 2, 3)])
    for y in range(0, size.height, 512):
        for x in range(0, size.width, 512):
            box = Box(x, y, 512, 512).intersect(Box.from_size(size))
            writer.write(box, classes[box.slices()], values[(slice(None), *box.slices())])
    list(writer.write_levels())
    if not probabilities:
        stained = (np.isin(classes, (1, 2, 3)) * np.uint8(255)).astype(np.uint8)
        fine = halved(halved(stained, labels=False), labels=False)
        writer.write_picture(np.repeat(fine[..., None], 3, axis=2), Mpp(2.0, 1.6))
    writer.write_metadata({"slide": {"name": "a", "quick_hash": "0"}, "model": {"name": "m", "hash": "1"}})
    root = zarr.open_group(tmp_path / "m.zarr", mode="r")
    truth = {index: centroid_um(classes == index, (0.4, 0.5), (0, 0)) for index in (1, 2, 3, 255)}
    places = transforms(root["labels/tissue"])
    assert len(places) == 3
    for (path, scale, shift), tolerance in zip(places, (1e-9, 0.25, 0.45), strict=True):
        level = root[f"labels/tissue/{path}"][:]
        for index, (y, x) in truth.items():
            assert np.hypot(*(np.array(centroid_um(level == index, scale, shift)) - (y, x))) < tolerance
    for path, scale, shift in transforms(root):
        for channel, wanted in enumerate((1, 2, 3)):
            level = root[path][channel].astype(float)
            shape = classes == wanted if probabilities else np.isin(classes, (1, 2, 3))
            y, x = centroid_um(shape, (0.4, 0.5), (0, 0))
            assert np.hypot(*(np.array(centroid_um(level, scale[1:], shift[1:])) - (y, x))) < 0.3


def transforms(group: zarr.Group) -> list[tuple[str, list[float], list[float]]]:
    found = []
    for entry in group.attrs["ome"]["multiscales"][0]["datasets"]:
        scale, shift = entry["coordinateTransformations"]
        assert (scale["type"], shift["type"]) == ("scale", "translation")
        found.append((entry["path"], scale["scale"], shift["translation"]))
    return found


def centroid_um(weights: Pixels, scale: object, shift: object) -> tuple[float, ...]:
    return tuple(np.array(ndimage.center_of_mass(weights)) * np.array(scale) + np.array(shift))
