"""Where the gate left classes open: gathered piece by piece, kept in the journal, written into the map at its end."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from wsiseg.arrays import BoolArray, UInt8Array
from wsiseg.geometry import ceil_div
from wsiseg.prediction.plan import Plan
from wsiseg.tiling.grid import Tile, TileGrid
from wsiseg.tiling.pieces import Piece
from wsiseg.tissue_map.gate import NOT_ASKED, OPEN, SHUT


class PiecePlaces:
    """What was left open in the windows of the patches that a piece owns.

    Args:
        piece: its place.
        tiles: the grid of patches.

    Attributes:
        opened: (rows, columns, W, K) bool, of the patches that have their corner in the piece; None before any is here.
    """

    def __init__(self, piece: Piece, tiles: TileGrid) -> None:
        self.opened: BoolArray | None = None
        self._rows, self._columns = owned(piece, tiles)

    def add(self, patches: Sequence[Tile], opened: BoolArray) -> None:
        """Keep what was left open in patches, (N, W, K) bool."""
        if self.opened is None:
            self.opened = np.zeros((len(self._rows), len(self._columns), *opened.shape[1:]), np.bool_)
        for patch, found in zip(patches, opened, strict=True):
            self.opened[patch.row - self._rows.start, patch.column - self._columns.start] = found


def owned(piece: Piece, tiles: TileGrid) -> tuple[range, range]:
    """Rows and columns of the patches that have their corner in a piece."""
    box, stride = piece.box, tiles.stride_px
    rows = range(ceil_div(box.y, stride), min(tiles.rows, ceil_div(box.bottom, stride)))
    columns = range(ceil_div(box.x, stride), min(tiles.columns, ceil_div(box.right, stride)))
    return rows, columns


def packed(opened: BoolArray | None) -> str:
    """Bits as text for the journal; "" of None."""
    return "" if opened is None else base64.b64encode(zlib.compress(np.packbits(opened).tobytes())).decode()


def _bits(text: str) -> UInt8Array:
    """The bytes that `packed` made a text of."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def decisions(
    pieces: Iterable[Piece], plan: Plan, booked: Mapping[int, str], per_tile: int, classes: int
) -> Iterator[UInt8Array]:
    """What the gate decided in all windows of a map, (rows, columns) uint8, class by class.

    Args:
        pieces: all of the map.
        plan: which patches were read.
        booked: what is open in each piece, by its index, as `packed` gives it.
        per_tile: windows along a side of a patch.
        classes: K.
    """
    tiles, windows = plan.tiles, per_tile**2
    places = [(*owned(piece, tiles), _bits(text)) for piece in pieces if (text := booked.get(piece.index))]
    asked = np.kron(plan.selected, np.ones((per_tile, per_tile), np.bool_))
    for index in range(classes):
        found = np.where(asked, SHUT, NOT_ASKED).astype(np.uint8)
        for rows, columns, bits in places:
            count = len(rows) * len(columns) * windows * classes
            shape = (len(rows), len(columns), per_tile, per_tile, classes)
            mine = np.unpackbits(bits, count=count).reshape(shape)[..., index].astype(np.bool_)
            flat = mine.transpose(0, 2, 1, 3).reshape(len(rows) * per_tile, len(columns) * per_tile)
            part = found[
                rows.start * per_tile : rows.stop * per_tile, columns.start * per_tile : columns.stop * per_tile
            ]
            part[flat] = OPEN
        yield found
