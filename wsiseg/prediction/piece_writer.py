"""Finished pieces onto the disk and into the journal, and out of the journal again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import UInt8Array
from wsiseg.classes import WHITE_VALUE
from wsiseg.prediction.gate_places import decisions, packed
from wsiseg.prediction.plan import Plan
from wsiseg.prediction.result import Counts
from wsiseg.prediction.steps import Books, PieceCounts, PieceStep
from wsiseg.slides.damage import DamageMap
from wsiseg.system.memory import trim_memory
from wsiseg.tiling.pieces import Piece
from wsiseg.tissue_map.areas import Areas
from wsiseg.tissue_map.edge import SlideEdge
from wsiseg.tissue_map.writer import MapWriter


class _Pixels(Protocol):
    @property
    def classes(self) -> UInt8Array: ...
    @property
    def values(self) -> UInt8Array: ...


class _Finished(Protocol):
    @property
    def piece(self) -> Piece: ...
    @property
    def pixels(self) -> _Pixels: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def bright(self) -> npt.NDArray[np.bool_] | None: ...
    @property
    def opened(self) -> npt.NDArray[np.bool_] | None: ...


class PieceWriter:
    """Writes pieces within the tissue, and books them.

    Args:
        writer: of the map.
        todo: grid and tissue.
        journal: of the run.
        damage: of the slide: what an earlier run found damaged is remembered at once.
        check: called before a piece is booked; raises where the slide is no longer the one that was opened, so that
            what was read of it does not count.
    """

    def __init__(
        self, writer: MapWriter, todo: Plan, journal: Books, damage: DamageMap, check: Callable[[], None]
    ) -> None:
        self._check = check
        self._writer = writer
        self._todo = todo
        self._journal = journal
        self._damage = damage
        self._edge = SlideEdge.from_grid(todo.grid, todo.mask.slide_size)
        # Pieces that are done are not read again, so what they found damaged is known from the journal alone.
        for step in journal.booked(PieceStep):
            damage.restore(step.damage)
        self._booked = {tuple(cell) for cell in damage.to_json()}

    def missing(self, pieces: Iterable[Piece]) -> list[Piece]:
        """The pieces that are not booked, or whose shards are not what was booked."""
        booked = _by_index(self._journal)
        return [
            piece
            for piece in pieces
            if piece.index not in booked or booked[piece.index].bytes != self._writer.sizes_on_disk(piece.box)
        ]

    def write(self, finished: _Finished) -> None:
        """Write a piece: class and probabilities are 0 outside the tissue; white has a value but no probabilities."""
        piece, classes, values = finished.piece, finished.pixels.classes, finished.pixels.values
        tissue = self._todo.mask.rows(self._todo.grid, piece.box)
        if not tissue.all():
            np.multiply(classes, tissue, out=classes)
            np.multiply(values, tissue, out=values)
        if self._todo.white is not None and finished.bright is not None and finished.bright.any():
            kept = classes != 0  # neither outside the tissue nor where the slide is damaged
            # Damaged pixels count as bright while parts are measured. Else damage could cut a white part into pieces
            # that are each too small to be white.
            white = self._todo.white.parts(finished.bright | (tissue & ~kept))
            white &= kept & finished.bright
            classes[white] = WHITE_VALUE
            np.multiply(values, ~white, out=values)
        areas = Areas.from_classes(classes, values, tissue, self._edge.parts(piece.box))
        unread = (tissue | self._todo.unseen_in(piece.box)) & (classes == 0)
        self._writer.write(piece.box, classes, values, unread)
        damage = [cell for cell in self._damage.to_json() if tuple(cell) not in self._booked]
        self._booked.update(tuple(cell) for cell in damage)
        counts = finished.counts
        # In this order: written, then the slide looked at, then booked. A piece that is not booked is computed again.
        self._check()
        done = PieceCounts(counts.gated, counts.decided, counts.shut)
        sizes = self._writer.sizes_on_disk(piece.box)
        self._journal.book(PieceStep(piece.index, sizes, areas, done, damage, packed(finished.opened)))
        trim_memory()


def sum_up(journal: Books, areas: Areas, counts: Counts, damage: DamageMap) -> None:
    """Add what all booked pieces hold to `areas` and `counts`, and mark what they found damaged."""
    for step in _by_index(journal).values():
        areas.add(step.areas)
        counts.gated += step.counts.gated
        counts.decided += step.counts.decided
        counts.add_shut(step.counts.shut)
    for step in journal.booked(PieceStep):
        damage.restore(step.damage)


def gate_decisions(
    journal: Books, pieces: Iterable[Piece], plan: Plan, per_tile: int, classes: int
) -> Iterator[UInt8Array]:
    """What the gate decided in all windows, class by class; see `wsiseg.prediction.gate_places.decisions`."""
    booked = {index: step.opened for index, step in _by_index(journal).items()}
    return decisions(pieces, plan, booked, per_tile, classes)


def _by_index(journal: Books) -> dict[int, PieceStep]:
    """The last step of each piece: one whose shards had changed was computed, and booked, again."""
    return {step.index: step for step in journal.booked(PieceStep)}
