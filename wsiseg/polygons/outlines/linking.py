"""Turns of outlines -> rings, and the open ends of those that go on elsewhere.

Each turn is followed by one other: level sides join neighbours in a row, upright sides neighbours in a column. What
leaves the rows at hand is held by *seam ends*, one for each upright side that crosses the upper or the lower seam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, depth_first_order

from wsiseg.arrays import Int64Array
from wsiseg.polygons.outlines.corners import EAST, HOLE_STARTS, SOUTH, Turns

_LOW = np.int64(0xFFFFFFFF)


@dataclass(frozen=True, eq=False)
class Seam:
    """Upright sides that cross a row of pixels, from the left; at one place the one that runs down comes first.

    Attributes:
        x: (S,) pixel corner.
        down: (S,) whether the outline runs down there; else it runs up.
    """

    x: Int64Array
    down: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def from_row(cls, row: npt.NDArray[np.uint8]) -> Seam:
        """The sides that cross a row (width + 2,) with class 0 at both ends."""
        at = np.flatnonzero(row[:-1] != row[1:])
        sides = np.stack([row[at] > 0, row[at + 1] > 0], axis=1)  # of the pixel to the left, of that to the right
        present = np.flatnonzero(sides)
        return cls(at[present >> 1], (present & 1) == 0)


@dataclass(frozen=True, eq=False)
class Chains:
    """Turns in the order of the outlines, cut into *pieces*: whole rings, or parts of outlines that go on elsewhere.

    Nodes are the ends at the upper seam, then the turns, then the ends at the lower seam.

    Attributes:
        order: (N,) turns, piece after piece.
        starts: (P + 1,) first of each piece in `order`; the last one is N.
        closed: (P,) whether a piece is a whole ring. Rings begin at their first corner, row by row.
        first: (P,) first corner of each piece, row by row: a turn.
        above: (P,) for pieces whose first corner may be that of a hole, a node of an outline of the same region that
            begins higher up: the upper end of the side at the left of the run of pixels above the corner. Else -1.
        follows: (E, 2) pieces that follow one another.
        saddles: (M, 2) pieces that end at one corner and swap what follows them if they prove to be of one ring.
        enters: (2, S) of each open chain the seam end where it begins, and its first piece (-1: it has none).
        leaves: (2, S) of each the seam end where it ends, and its last piece, in the same order.
        piece: (N,) piece of each turn.
    """

    order: Int64Array
    starts: Int64Array
    closed: npt.NDArray[np.bool_]
    first: Int64Array
    above: Int64Array
    follows: Int64Array
    saddles: Int64Array
    enters: Int64Array
    leaves: Int64Array
    piece: Int64Array


def link(turns: Turns, upper: Seam, lower: Seam) -> Chains:
    """Order turns along the outlines.

    Args:
        turns: all of some rows.
        upper: the seam above them.
        lower: the seam below them.
    """
    top, count = len(upper), len(turns)
    successor, upward = _successors(turns, upper, lower)
    downs = (np.flatnonzero(upper.down), np.flatnonzero(lower.down) + top + count)
    ups = (np.flatnonzero(~upper.down), np.flatnonzero(~lower.down) + top + count)
    begins, ends = np.concatenate([downs[0], ups[1]]), np.concatenate([ups[0], downs[1]])
    saddles = turns.saddles + top
    labels, number = label_chains(successor)
    one = labels[saddles[:, 0]] == labels[saddles[:, 1]]
    # A ring that passes a corner twice is no valid polygon. Swapping what follows its two turns there makes two rings
    # of it. Swapping those of two rings would make one, so they stay. What is still open `rings` decides at the end.
    if one.any():
        swap(successor, saddles[one])
        labels, number = label_chains(successor)
    is_open = np.zeros(number, bool)
    is_open[labels[begins]] = True
    saddles = saddles[~one]
    saddles = saddles[is_open[labels[saddles]].all(axis=1)]
    nodes, chains = order_chains(successor, labels, number, begins, ends)
    inside = (nodes >= top) & (nodes < top + count)
    nodes, chains = nodes[inside] - top, chains[inside]
    cut_after = np.zeros(count, bool)
    cut_after[saddles - top] = True
    fresh = np.ones(len(nodes), bool)  # whether a node begins a piece
    fresh[1:] = (chains[1:] != chains[:-1]) | cut_after[nodes[:-1]]
    starts = np.flatnonzero(fresh)
    piece = np.empty(count, np.int64)
    piece[nodes] = np.cumsum(fresh) - 1
    chain = chains[starts]
    first = np.minimum.reduceat(nodes, starts) if len(starts) else starts
    goes_on = np.flatnonzero(chain[1:] == chain[:-1])
    first_piece, last_piece = np.full(number, -1), np.full(number, -1)
    first_piece[chain[::-1]] = np.arange(len(starts) - 1, -1, -1)
    last_piece[chain] = np.arange(len(starts))
    return Chains(
        order=nodes,
        starts=np.append(starts, len(nodes)),
        closed=~is_open[chain],
        first=first,
        above=_sides_above(turns, first, upward, top),
        follows=np.stack([goes_on, goes_on + 1], axis=1),
        saddles=piece[saddles - top],
        enters=_by_chain(begins, labels, first_piece),
        leaves=_by_chain(ends, labels, last_piece),
        piece=piece,
    )


def _by_chain(ends: Int64Array, labels: Int64Array, pieces: Int64Array) -> Int64Array:
    order = ends[np.argsort(labels[ends])]
    return np.stack([order, pieces[labels[order]]])


def _successors(turns: Turns, upper: Seam, lower: Seam) -> tuple[Int64Array, Int64Array]:
    """The node after each node (itself where there is none), and the ends of the sides that run up, by x and y."""
    top, count = len(upper), len(turns)
    successor = np.arange(top + count + len(lower))
    east, south = EAST[turns.kind], SOUTH[turns.kind]
    to_right, to_left = np.flatnonzero(east) + top, np.flatnonzero(~east) + top
    # Along a row sides that run one way begin and end by turns, so neighbours in this order belong together.
    successor[to_right[::2]] = to_right[1::2]
    successor[to_left[1::2]] = to_left[::2]
    x = np.concatenate([upper.x, turns.x.astype(np.int64), lower.x])
    is_down = np.concatenate([upper.down, south, lower.down])
    # Nodes are in the order of y already, so x and number sort them by column and y.
    by_column = [np.sort(x[nodes] << 32 | nodes) for nodes in (np.flatnonzero(is_down), np.flatnonzero(~is_down))]
    down, up = (keys & _LOW for keys in by_column)
    successor[down[::2]] = down[1::2]
    successor[up[1::2]] = up[::2]
    return successor, by_column[1]


def _sides_above(turns: Turns, first: Int64Array, upward: Int64Array, top: int) -> Int64Array:
    """For corners where a hole may begin: the upper end of the side at the left of the run of pixels above them."""
    above = np.full(len(first), -1)
    may = np.flatnonzero(HOLE_STARTS[turns.kind[first]])
    corners = first[may]
    row_start = np.searchsorted(turns.y, turns.y[corners]) + top  # the first node that lies no higher
    lower_end = np.searchsorted(upward, turns.run_x[corners].astype(np.int64) << 32 | row_start)
    above[may] = upward[lower_end - 1] & _LOW
    return above


def swap(successor: Int64Array, pairs: Int64Array) -> None:
    """Exchange, in place, what follows the two nodes of each pair."""
    a, b = pairs.T
    successor[a], successor[b] = successor[b], successor[a]


def label_chains(successor: Int64Array) -> tuple[Int64Array, int]:
    """Find the nodes that follow one another; gives the chain of each node, and how many chains there are."""
    count = len(successor)
    graph = csr_array((np.ones(count, np.int8), successor, np.arange(count + 1)), shape=(count, count))
    number, labels = connected_components(graph, connection="weak")
    return labels, int(number)


def order_chains(
    successor: Int64Array, labels: Int64Array, number: int, begins: Int64Array, ends: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """All nodes, chain after chain in the order of their first nodes, and the chain that each is in.

    Args:
        successor: what follows each node.
        labels: chain of each node.
        number: of chains.
        begins: first nodes of those that are open; a closed one begins at its lowest node.
        ends: last nodes of those that are open.
    """
    count = len(successor)
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    start, last = np.empty(number, np.int64), np.empty(number, np.int64)
    start[labels[::-1]] = np.arange(count - 1, -1, -1)  # of several assignments the last one holds
    start[labels[begins]] = begins
    before = np.empty(count, np.int64)
    before[successor] = np.arange(count)
    last = before[start]
    last[labels[ends]] = ends
    rank = np.argsort(start)
    start, last = start[rank], last[rank]
    # All chains in one line, which one search walks along.
    line = successor.copy()
    line[last[:-1]] = start[1:]
    line[last[-1]] = last[-1]
    graph = csr_array((np.ones(count, np.int8), line, np.arange(count + 1)), shape=(count, count))
    nodes = depth_first_order(graph, start[0], return_predecessors=False).astype(np.int64)
    return nodes, labels[nodes].astype(np.int64)
