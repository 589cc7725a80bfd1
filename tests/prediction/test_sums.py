"""Sums of patches: weighted means, whatever the bands; damage left out; equal inputs, equal bytes."""

import numpy as np
import pytest
import torch

from wsiseg.geometry import Box, Size
from wsiseg.prediction.sums import PieceSums, first_of_largest
from wsiseg.tiling.blending import blend, window
from wsiseg.tiling.grid import TileGrid
from wsiseg.tiling.pieces import blocks_of, pieces_of


@pytest.mark.parametrize(("patch", "overlap", "block"), [(16, 8, 3), (16, 0, 2), (20, 15, 4), (7, 3, 1)])
@pytest.mark.parametrize("side", [48, 64, 300])
def test_pieces_hold_the_blended_patches(patch: int, overlap: int, block: int, side: int) -> None:
    rng = np.random.default_rng(patch * side)
    tiles = TileGrid(Size(131, 97), patch, overlap)
    selected = rng.random((tiles.rows, tiles.columns)) < 0.6
    found = {(t.row, t.column): (t, rng.dirichlet(np.ones(3), (patch, patch)).transpose(2, 0, 1).astype(np.float32))
             for t in tiles.tiles(selected)}  # fmt: skip
    expected = blend(tiles.map_size, list(found.values()), tiles)
    covered = expected.sum(axis=0) > 0
    weights = torch.from_numpy(window(patch, overlap))
    values = np.zeros((3, 97, 131), np.uint8)
    classes = np.zeros((97, 131), np.uint8)
    for piece in pieces_of(tiles, selected, side):
        sums = PieceSums(piece.box, 3, weights, (block - 1) * tiles.stride_px + patch)
        for group in blocks_of(piece, tiles, selected, block):
            first = (group[0].row - piece.rows.start) // block * block + piece.rows.start
            for tile in group:
                sums.close_above(first * tiles.stride_px)
                sums.add(tile, torch.from_numpy(found[tile.row, tile.column][1]))
        pixels = sums.finish()
        values[(slice(None), *piece.box.slices())] = pixels.values
        classes[piece.box.slices()] = pixels.classes
    assert np.abs(values.astype(int) - np.rint(expected * 255).astype(int)).max() <= 1
    near = np.sort(expected, axis=0)
    sure = covered & (near[-1] - near[-2] > 1e-5)
    assert np.array_equal(classes[sure], expected.argmax(axis=0)[sure] + 1)
    assert np.array_equal(classes == 0, ~covered)


def test_damaged_pixels_do_not_count_and_a_certain_class_stays_certain() -> None:
    tiles = TileGrid(Size(30, 20), 20, 10)
    weights = torch.from_numpy(window(20, 10))
    sums = PieceSums(Box(0, 0, 30, 20), 2, weights, 20)
    readable = np.ones((20, 20), bool)
    readable[:, 5:] = False
    ones, twos = torch.zeros(2, 20, 20), torch.zeros(2, 20, 20)
    ones[0], twos[1] = 1, 1
    first, second = tiles.tiles()
    sums.add(first, ones, readable)
    sums.add(second, twos)
    pixels = sums.finish()
    assert (pixels.classes[:, :5] == 1).all()
    assert (pixels.classes[:, 5:10] == 0).all()  # only the damaged patch lies there
    assert (pixels.classes[:, 10:] == 2).all()
    assert set(np.unique(pixels.values)) == {0, 255}
    assert (pixels.values[:, :, 5:10] == 0).all()


def test_of_equal_probabilities_the_first_class_wins() -> None:
    values = np.random.default_rng(0).integers(0, 3, (5, 300, 400)).astype(np.float32)
    assert np.array_equal(first_of_largest(torch.from_numpy(values)).numpy(), values.argmax(axis=0))
