"""Pieces cover a map, and between them they hold every patch, owned by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.geometry import Box, Size
from wsiseg.tiling.grid import TileGrid
from wsiseg.tiling.pieces import block_patches, blocks_of, owned_by, patches_of, pieces_of


@given(
    st.integers(1, 100), st.integers(1, 100), st.integers(1, 40), st.integers(0, 39), st.integers(16, 80),
    st.integers(1, 9), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_each_patch_is_in_every_piece_it_touches_and_owned_by_one(
    width: int, height: int, patch: int, overlap: int, side: int, block: int, seed: int
) -> None:
    tiles = TileGrid(Size(width, height), patch, overlap % patch)
    selected = np.random.default_rng(seed).random((tiles.rows, tiles.columns)) < 0.5
    pieces = pieces_of(tiles, selected, side)
    touching = {piece.index: set() for piece in pieces}
    owners = np.zeros(selected.shape, int)
    for piece in pieces:
        blocks = list(blocks_of(piece, tiles, selected, block))
        found = [tile for group in blocks for tile in group]
        assert [tile.index for tile in found] == list(range(len(found)))
        assert len(found) == patches_of(piece, selected) > 0
        assert all(len(group) <= block * block for group in blocks)
        owned = [tile for tile in found if piece.owns(tile)]
        assert len(owned) == owned_by(piece, tiles, selected)
        for tile in found:
            assert not tile.box.intersect(piece.box).is_empty
            touching[piece.index].add((tile.row, tile.column))
        for tile in owned:
            owners[tile.row, tile.column] += 1
    assert (owners == selected).all()
    for piece in pieces:
        for row, column in np.argwhere(selected).tolist():
            touches = not tiles.box(row, column).intersect(piece.box).is_empty
            assert ((row, column) in touching[piece.index]) == touches
    whole = Box.from_size(tiles.map_size)
    assert all(piece.box.intersect(whole) == piece.box for piece in pieces)


def test_blocks_stay_within_what_is_read_at_once() -> None:
    tiles = TileGrid(Size(5000, 5000), 96, 48)
    assert block_patches(tiles, 1.0) == 13  # 12 * 48 + 96 = 672
    assert block_patches(tiles, 4.0) == 9  # 480 map pixels are 1920 of the level
    assert block_patches(TileGrid(Size(5000, 5000), 2000, 0), 1.0) == 1
