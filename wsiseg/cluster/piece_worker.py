"""What a worker of a Dask cluster does with a piece that is sent to it; see `wsiseg.cluster.pieces`."""

from __future__ import annotations

import errno
import threading
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from distributed.protocol.pickle import loads  # as Dask itself sends tasks; no file is read so

from wsiseg.arrays import Float32Array
from wsiseg.errors import LockedError, WsisegError
from wsiseg.models.bundle import load_model
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.machine import Machine, threads_of_torch
from wsiseg.prediction.shared_work import OpenedWork, SharedWork, opened_work
from wsiseg.prediction.steps import AnyStep, PieceStep, Step
from wsiseg.system.leases import holder_of
from wsiseg.system.locks import lease_path
from wsiseg.tiling.grid import Tile
from wsiseg.tiling.pieces import Piece


@dataclass(frozen=True, slots=True)
class SentPiece:
    """What a worker gets for each piece.

    Attributes:
        work: pickled and compressed; the slide's masks shrink to little.
        token: of the driver's lease: a worker that is not heard of any more must not write into a later run's store.
        piece: to compute.
        rows: what the gate goes by, (rows, columns, C) float32; None where each patch decides alone.
    """

    work: bytes
    token: str
    piece: Piece
    rows: Float32Array | None


@dataclass(frozen=True, slots=True)
class FoundPiece:
    """What comes back.

    Attributes:
        step: to book.
        machine: that computed it.
        patches: that were done.
        waited_s: seconds in which the networks waited for pixels.
        distances: of the piece's own patches from the training data.
    """

    step: PieceStep
    machine: Machine
    patches: int
    waited_s: float
    distances: list[tuple[Sequence[Tile], Float32Array]]


@dataclass(frozen=True, slots=True)
class Refused:
    """What comes back where a piece cannot be done; `number` is what the system said, which pickling an error loses."""

    error: WsisegError
    number: int | None


@dataclass
class _Worker:
    """What a worker process keeps from one piece to the next: a slide, and the model."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    of: bytes = b""
    opened: OpenedWork | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    def open(self, blob: bytes) -> OpenedWork:
        """The work, opened once for all of its pieces; that of another slide is closed."""
        if self.opened is None or self.of != blob:
            self.stack.close()
            self.opened = None
            work: SharedWork = loads(zlib.decompress(blob))
            self.opened = self.stack.enter_context(opened_work(work, work.options.device, _model))
            self.of = blob
        return self.opened

    def close(self) -> None:
        """Forget the slide: something was wrong with it, and the next piece may find it mended."""
        self.of, self.opened = b"", None
        self.stack.close()


_WORKER = _Worker()


@lru_cache(maxsize=1)
def _model(name: str, device: str) -> TissueModel:
    return load_model(name, device)


@dataclass
class _Books:
    """The step of the one piece, with all that is known of the slide's damage: what others learn may never arrive."""

    opened: OpenedWork
    step: PieceStep | None = None

    def book(self, step: Step) -> None:
        """See `wsiseg.prediction.steps.Books`."""
        assert isinstance(step, PieceStep)
        self.step = replace(step, damage=self.opened.slide.damage.to_json())

    def booked(self, kind: type[AnyStep]) -> list[AnyStep]:
        """No steps: what an earlier run did is known to the driver."""
        return []


@dataclass
class _Rows:
    """What the gate goes by in the one piece."""

    rows: Float32Array

    def put(self, patches: list[Tile], values: Float32Array) -> None:
        """Nothing: the gate's own pass is over."""

    def of(self, piece: Piece) -> Float32Array:
        """See `wsiseg.prediction.piece_reader.Field`."""
        return self.rows


@dataclass
class _Distances:
    """Distances from the training data, to be sent back."""

    found: list[tuple[Sequence[Tile], Float32Array]] = field(default_factory=list)

    def put(self, patches: Sequence[Tile], distances: Float32Array) -> None:
        """See `wsiseg.prediction.stream.Distances`."""
        self.found.append((patches, distances))


def compute_piece(sent: SentPiece) -> FoundPiece | Refused:
    """Compute one piece and write it, in a worker."""
    # A worker of several threads computes one piece at a time all the same.
    with _WORKER.lock, ExitStack() as unless_done:
        unless_done.callback(_WORKER.close)
        try:
            found = _computed(_WORKER.open(sent.work), sent)
        except WsisegError as error:
            number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
            return Refused(error, number if number in errno.errorcode else None)
        unless_done.pop_all()
        return found


def _computed(opened: OpenedWork, sent: SentPiece) -> FoundPiece:
    books, distances, patches = _Books(opened), _Distances(), 0

    def told(count: int) -> None:
        nonlocal patches
        patches += count

    waited_s = opened.compute(
        [sent.piece], books, partial(_check_lease, opened.work, sent.token), opened.watch.check, told,
        None if sent.rows is None else _Rows(sent.rows),
        None if opened.work.distances is None else distances,
    )  # fmt: skip
    assert books.step is not None
    with threads_of_torch(opened.work.threads):
        machine = Machine.of(opened.model)
    return FoundPiece(books.step, machine, patches, waited_s, distances.found)


def _check_lease(work: SharedWork, token: str) -> None:
    """Raise `LockedError` where the run that sent a piece has ended, or was taken over."""
    lease = lease_of(work)
    if not lease.is_dir() or holder_of(lease).token != token:
        raise LockedError(f"{work.store.name} is another run's by now, or nobody's; its piece is not written")


def lease_of(work: SharedWork) -> Path:
    """The lease of the map: its unfinished store lies in a folder beside it, under its own name."""
    return lease_path(work.store.parent.parent / work.store.name)
