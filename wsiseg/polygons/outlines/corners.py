"""Where outlines of a class map turn: the corners of all regions in a strip of its rows, found with whole arrays.

Outlines run along pixel sides with their own pixels at the right hand (x to the right, y down). At a pixel corner lie
four pixels, a b above c d. An outline turns there in one of eight ways, its *kind*:

    0…3  right, round the one pixel a, b, c or d, which differs from both its neighbours
    4…7  left, round the pixel a, b, c or d, where the other three are of one class

Where two pixels of a class meet at nothing but this corner, each is rounded by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Int64Array

EAST = np.array([0, 0, 1, 1, 1, 1, 0, 0], bool)
"""Kinds that begin or end a side that runs to the right; all others one that runs to the left."""

SOUTH = np.array([1, 0, 1, 0, 0, 1, 0, 1], bool)
"""Kinds that begin or end a side that runs down; all others one that runs up."""

BEGINS_LEVEL = np.array([1, 0, 0, 1, 0, 1, 1, 0], bool)
"""Kinds at which a level side begins; at all others one ends."""

SHELL_START = 3
"""Kind of the first corner (row by row) of every outer ring: the upper left one of the first pixel."""

HOLE_STARTS = np.array([0, 1, 0, 0, 0, 0, 0, 1], bool)
"""Kinds that the first corner of a hole can have: coming from the right below the pixel b, then down."""

_OWN_PIXEL = np.array([0, 1, 2, 3, 3, 2, 1, 0])
"""A pixel of the outline's class, for each kind."""


@dataclass(frozen=True, eq=False)
class Turns:
    """Corners of outlines, row by row from the left, at one place in the order of their kinds.

    Attributes:
        x: (N,) int32, pixel corner.
        y: (N,) int32.
        kind: (N,) uint8.
        label: (N,) uint8, class of the outline.
        run_x: (N,) int32; for kinds of `HOLE_STARTS` the first pixel of the run in which b lies, else 0.
        saddles: (M, 2) int64, turns of one class and place, round pixels that meet at this corner alone.
    """

    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    kind: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    run_x: npt.NDArray[np.int32]
    saddles: Int64Array

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def concatenate(cls, parts: list[Turns]) -> Turns:
        """The turns of strips, one or more, that follow one another."""
        if len(parts) == 1:
            return parts[0]
        before = np.cumsum([0, *map(len, parts)])
        return cls(
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.kind for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.run_x for part in parts]),
            np.concatenate([part.saddles + n for part, n in zip(parts, before[:-1], strict=True)]),
        )


def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The kinds at a corner as bits, and their number, by the code that `find_turns` makes of its four pixels."""
    code = np.arange(256)
    above, below, left, right, a, b, c, d = ((code >> bit & 1).astype(bool) for bit in range(8))
    kinds = [
        *(above & left & a, above & right & b, below & left & c, below & right & d),
        above & left & ~below & ~right & d,
        above & right & ~below & ~left & c,
        below & left & ~above & ~right & b,
        below & right & ~above & ~left & a,
    ]
    bits = np.packbits(np.stack(kinds, axis=1), axis=1, bitorder="little")[:, 0]
    return bits, np.sum(kinds, axis=0).astype(np.uint8)


_KINDS, _NUMBER = _tables()


def find_turns(pixels: npt.NDArray[np.uint8], y: int) -> Turns:
    """All turns at the pixel corners between the rows of a strip.

    Args:
        pixels: (h + 1, width + 2), contiguous: the row above the strip and its h rows, with a column of 0 at each side.
        y: the first of the strip's rows.
    """
    upright = pixels[:, :-1] != pixels[:, 1:]  # (h + 1, width + 1) borders along x, by the corner at their left
    level = pixels[:-1] != pixels[1:]  # (h, width + 2) borders along y
    above, below, left, right = upright[:-1], upright[1:], level[:, :-1], level[:, 1:]
    corners = above ^ below
    corners |= left ^ right
    corners |= below & left  # where all four sides are borders, they cancel out in both lines above
    at = np.flatnonzero(corners)
    row = at // corners.shape[1]
    flat, below_by = pixels.reshape(-1), pixels.shape[1]
    around = [flat[at + row + step] for step in (0, 1, below_by, below_by + 1)]
    a, b, c, d = around
    code = np.zeros(len(at), np.uint8)
    for bit, is_set in enumerate((a != b, c != d, a != c, b != d, a > 0, b > 0, c > 0, d > 0)):
        code |= is_set.view(np.uint8) << np.uint8(bit)
    present = np.flatnonzero(np.unpackbits(_KINDS[code][:, None], axis=1, bitorder="little"))
    corner, kind = present >> 3, (present & 7).astype(np.uint8)
    run_x = np.zeros(len(corner), np.int32)
    starts = np.flatnonzero(HOLE_STARTS[kind])
    if len(starts):
        # The run begins at the last border at or before the corner; class 0 beside the map makes sure there is one.
        borders, wanted = np.flatnonzero(above), at[corner[starts]]
        run_x[starts] = borders[np.searchsorted(borders, wanted, side="right") - 1] - wanted
        run_x[starts] += (at - row * corners.shape[1])[corner[starts]].astype(np.int32)
    return Turns(
        (at - row * corners.shape[1])[corner].astype(np.int32),
        (row + y)[corner].astype(np.int32),
        kind,
        np.stack(around, axis=1)[corner, _OWN_PIXEL[kind]],
        run_x,
        _saddles(around, code),
    )


def _saddles(around: list[npt.NDArray[np.uint8]], code: npt.NDArray[np.uint8]) -> Int64Array:
    """Pairs of turns round pixels of one class that lie across a corner, by their numbers among all turns."""
    a, b, c, d = around
    first = np.cumsum(_NUMBER[code], dtype=np.int64) - _NUMBER[code]
    crossed = (code & 15) == 15
    down = np.flatnonzero(crossed & (a == d) & (a > 0))
    up = np.flatnonzero(crossed & (b == c) & (b > 0))
    at_b = first[up] + (a[up] > 0)
    return np.concatenate(
        [
            np.stack([first[down], first[down] + _NUMBER[code[down]] - 1], axis=1),
            np.stack([at_b, at_b + 1], axis=1),
        ]
    )
