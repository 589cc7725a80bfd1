"""Rows of a class map -> pieces of outlines, their vertices in a file as soon as they are known.

Rings leave memory when they close. Of outlines that go on below only the ends are kept; what they have passed is in
the file as well. What stays are some 20 bytes for each ring, in a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Int64Array
from wsiseg.polygons.outlines.corners import BEGINS_LEVEL, SHELL_START, Turns, find_turns
from wsiseg.polygons.outlines.linking import Seam, link
from wsiseg.polygons.outlines.spool import Spool

STRIP_PX = 1 << 19
"""Pixels that are searched for turns at once: few enough to stay in a processor's cache."""

TURNS_AT_ONCE = 1 << 19
"""Turns that are linked at once, about; they take some 150 bytes each."""


@dataclass
class Pieces:
    """What is kept of each piece (a ring, or a part of one that is too long to be linked at once) while a map is read.

    Lists of arrays, one of each round of linking.
    """

    counts: list[npt.NDArray[Any]] = field(default_factory=list)
    keys: list[npt.NDArray[Any]] = field(default_factory=list)  # first corner, y * (width + 1) + x
    classes: list[npt.NDArray[Any]] = field(default_factory=list)
    is_shell: list[npt.NDArray[Any]] = field(default_factory=list)
    beside: list[npt.NDArray[Any]] = field(default_factory=list)  # piece of the same region that begins higher up
    open: list[Int64Array] = field(default_factory=list)  # pieces that are no rings
    follows: list[Int64Array] = field(default_factory=list)  # (E, 2)
    saddles: list[Int64Array] = field(default_factory=list)  # (M, 2)


class Strips:
    """Turns of a class map whose rows come from above to below, a strip of rows at a time.

    Attributes:
        row: the last one, (width + 2,) with a pixel of 0 at each end.
    """

    def __init__(self, width: int) -> None:
        self.row = np.zeros(width + 2, np.uint8)
        self._y = 0

    def of(self, rows: npt.NDArray[np.uint8]) -> Iterator[Turns]:
        """The turns above and between the next rows, (height, width), as far as there are any."""
        width = len(self.row) - 2
        step = max(1, STRIP_PX // max(1, width))
        for start in range(0, len(rows), step):
            strip = rows[start : start + step]
            pixels = np.zeros((len(strip) + 1, width + 2), np.uint8)
            pixels[0], pixels[1:, 1:-1] = self.row, strip
            turns = find_turns(pixels, self._y)
            self._y += len(strip)
            self.row = pixels[-1].copy()
            if len(turns):
                yield turns

    def end(self) -> Iterator[Turns]:
        """The turns below the last row."""
        return self.of(np.zeros((1, len(self.row) - 2), np.uint8))


class Tracer:
    """Takes rows from above to below; writes vertices to a file and keeps a table of pieces."""

    def __init__(self, width: int, class_count: int, spool: Spool, turns_at_once: int) -> None:
        self.width, self.spool, self.turns_at_once = width, spool, turns_at_once
        self.table = Pieces()
        self.area_px = np.zeros(class_count + 1, np.int64)
        self.pieces = 0
        self._strips = Strips(width)
        self._turns: list[Turns] = []
        self._seam = Seam.from_row(self._strips.row)
        self._carried = np.empty(0, np.int64)  # for each end at the seam the piece that reaches it

    def add(self, rows: npt.NDArray[np.uint8]) -> None:
        """Take the next rows, (height, width)."""
        for turns in self._strips.of(rows):
            self._turns.append(turns)
            if sum(map(len, self._turns)) >= self.turns_at_once:
                self._link()

    def finish(self) -> None:
        """Close what is open along the lower side of the map."""
        self._turns += self._strips.end()
        self._link()

    def _link(self) -> None:
        """Link the turns that have come together, and write them."""
        if not self._turns:
            return  # what crosses the rows since the last turn still crosses them where it did
        turns, lower = Turns.concatenate(self._turns), Seam.from_row(self._strips.row)
        self._turns = []
        chains = link(turns, self._seam, lower)
        base, table = self.pieces, self.table
        self.pieces += len(chains.first)
        first = chains.first
        table.counts.append(np.diff(chains.starts).astype(np.int32))
        table.keys.append(turns.y[first].astype(np.int64) * (self.width + 1) + turns.x[first])
        table.classes.append(turns.label[first])
        table.is_shell.append(turns.kind[first] == SHELL_START)
        at_seam, has_one = chains.above < len(self._seam), chains.above >= 0
        beside = np.full(len(first), -1)
        beside[has_one & at_seam] = self._carried[chains.above[has_one & at_seam]]
        beside[has_one & ~at_seam] = chains.piece[chains.above[has_one & ~at_seam] - len(self._seam)] + base
        table.beside.append(beside.astype(np.int32))
        table.open.append(np.flatnonzero(~chains.closed) + base)
        table.follows.append(chains.follows + base)
        table.saddles.append(chains.saddles + base)
        self._carry(chains.enters, chains.leaves, len(self._seam), len(turns), len(lower), base)
        self._seam = lower
        self._measure(turns)
        vertices = np.empty((len(turns), 2), np.int32)
        vertices[:, 0], vertices[:, 1] = turns.x[chains.order], turns.y[chains.order]
        self.spool.append(vertices)

    def _carry(self, enters: Int64Array, leaves: Int64Array, top: int, count: int, bottom: int, base: int) -> None:
        """Join pieces across the upper seam, and note which reach the lower one."""
        carried = np.full(bottom, -1)
        (begin, first), (end, last) = enters, leaves
        begins_above, ends_above, empty = begin < top, end < top, first < 0
        # What comes from above and goes on here; what goes on above; what runs through without a turn.
        into = begins_above & ~empty
        out_of = ends_above & ~empty
        self.table.follows.append(np.stack([self._carried[begin[into]], first[into] + base], axis=1))
        self.table.follows.append(np.stack([last[out_of] + base, self._carried[end[out_of]]], axis=1))
        lower = top + count
        carried[begin[~begins_above & ~empty] - lower] = first[~begins_above & ~empty] + base
        carried[end[~ends_above & ~empty] - lower] = last[~ends_above & ~empty] + base
        carried[end[empty & begins_above] - lower] = self._carried[begin[empty & begins_above]]
        carried[begin[empty & ends_above] - lower] = self._carried[end[empty & ends_above]]
        self._carried = carried

    def _measure(self, turns: Turns) -> None:
        """Add what these turns contribute to the areas: by Green's theorem x * y, where a level side begins."""
        signed = turns.x.astype(np.int64) * turns.y
        np.negative(signed, out=signed, where=~BEGINS_LEVEL[turns.kind])
        for index in range(1, len(self.area_px)):
            self.area_px[index] += signed[turns.label == index].sum()
