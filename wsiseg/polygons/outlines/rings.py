"""Pieces of outlines -> rings -> regions, as tables; no vertex is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Int64Array
from wsiseg.polygons.outlines.linking import label_chains, order_chains, swap
from wsiseg.polygons.outlines.tracing import Pieces


@dataclass(frozen=True, eq=False)
class Rings:
    """All rings, sorted by class, then by the first pixel of their region, its outer ring first, then its holes.

    Attributes:
        classes: (R,) uint8.
        is_shell: (R,) whether a ring is the outer one of its region.
        vertices: (R,) number of vertices, the first one counted once.
        first_piece: (R + 1,) where the pieces of each begin in `pieces`.
        pieces: pieces of the rings, in order; the first corner of a ring (row by row) lies in its first piece.
        offsets: vertices in the file before each piece.
        counts: vertices of each piece.
    """

    classes: npt.NDArray[np.uint8]
    is_shell: npt.NDArray[np.bool_]
    vertices: Int64Array
    first_piece: Int64Array
    pieces: Int64Array
    offsets: Int64Array
    counts: Int64Array


def assemble(table: Pieces) -> Rings:
    """Join pieces to rings and rings to regions."""
    none = np.empty(0, np.int64)
    counts = np.concatenate([none, *table.counts])
    keys = np.concatenate([none, *table.keys])
    pieces, lengths = _join(table, keys)
    starts = np.cumsum(lengths) - lengths
    head = pieces[starts]  # the piece with the first corner
    ring = np.empty(len(counts), np.int64)
    ring[pieces] = np.repeat(np.arange(len(lengths)), lengths)
    is_shell = np.concatenate([none.astype(bool), *table.is_shell])[head]
    classes = np.concatenate([none.astype(np.uint8), *table.classes])[head]
    # A hole belongs to the region of a ring that begins higher up, and so on up to an outer ring.
    shell = np.where(is_shell, np.arange(len(head)), ring[np.concatenate([none, *table.beside])[head]])
    while (higher := shell[shell] != shell).any():
        shell[higher] = shell[shell[higher]]
    order = np.lexsort((keys[head], keys[head][shell], classes))
    vertices = np.add.reduceat(counts[pieces], starts) if len(starts) else none
    places = np.repeat(starts[order], lengths[order]) + _within(lengths[order])
    return Rings(
        classes=classes[order],
        is_shell=is_shell[order],
        vertices=vertices[order],
        first_piece=np.append(0, np.cumsum(lengths[order])),
        pieces=pieces[places],
        offsets=np.cumsum(counts) - counts,
        counts=counts,
    )


def _join(table: Pieces, keys: Int64Array) -> tuple[Int64Array, Int64Array]:
    """(pieces, ring after ring, each from the piece with its first corner; number of pieces of each ring)."""
    none = np.empty(0, np.int64)
    parts = np.concatenate([none, *table.open])
    closed = np.ones(len(keys), bool)
    closed[parts] = False
    alone = np.flatnonzero(closed)
    if not len(parts):
        return alone, np.ones(len(alone), np.int64)
    rank = np.argsort(keys[parts], kind="stable")  # by first corner, so that every ring begins with its lowest number
    parts = parts[rank]
    number = np.empty(len(keys), np.int64)
    number[parts] = np.arange(len(parts))
    successor = np.empty(len(parts), np.int64)
    follows = number[np.concatenate(table.follows)]
    successor[follows[:, 0]] = follows[:, 1]
    saddles = number[np.concatenate(table.saddles)]
    labels, count = label_chains(successor)
    one = labels[saddles[:, 0]] == labels[saddles[:, 1]]
    if one.any():
        swap(successor, saddles[one])
        labels, count = label_chains(successor)
    nodes, chains = order_chains(successor, labels, count, none, none)
    starts = np.flatnonzero(np.append(True, chains[1:] != chains[:-1]))
    lengths = np.diff(np.append(starts, len(nodes)))
    return np.concatenate([alone, parts[nodes]]), np.concatenate([np.ones(len(alone), np.int64), lengths])


def _within(lengths: Int64Array) -> Int64Array:
    """0, 1, … for each of several runs of these lengths."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
