"""Where the pieces of a map are computed: in this process, or in one for each of several devices.

The order of phases (`wsiseg.prediction.job`) knows only the interface, and the loop (`wsiseg.prediction.stream`) not
even that. Whoever computes, the driver keeps the lease and the journal, and makes pyramid and polygons; pieces depend
on nothing but themselves, so the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wsiseg.models.devices import device_names
from wsiseg.prediction.devices import run_on_devices
from wsiseg.prediction.distance_field import DistanceField
from wsiseg.prediction.gate_field import StoredGateField
from wsiseg.prediction.piece_writer import PieceWriter
from wsiseg.prediction.shared_work import SharedWork
from wsiseg.prediction.steps import Books
from wsiseg.prediction.stream import SlideWork, Stream
from wsiseg.slides.base import SlideReader
from wsiseg.system.threads import WriteBehind
from wsiseg.tiling.pieces import Piece


@dataclass(frozen=True, slots=True)
class PiecesWork:
    """Pieces of one slide's map, as an executor gets them.

    Attributes:
        shared: all that another process needs to know; it can be pickled.
        pieces: what to compute.
        journal: gets the step of each piece that is on the disk.
        advance: told of patches as they are done.
        slide: open in this process.
        stream: the loop, in this process.
        writer: of finished pieces, in this process; it books them itself.
        field: what the gate goes by where it looks beyond a patch, else None.
        distances: given how far each patch is from the training data; None where nobody asked.
    """

    shared: SharedWork
    pieces: Sequence[Piece]
    journal: Books
    advance: Callable[[int], None]
    slide: SlideReader
    stream: Stream
    writer: PieceWriter
    field: StoredGateField | None
    distances: DistanceField | None


class Executor(Protocol):
    """Computes pieces, and sees to it that each is on the disk before it is booked."""

    def compute(self, work: PiecesWork) -> float:
        """Compute and write all pieces.

        Returns:
            Seconds in which the networks waited for the slide's pixels.

        Raises:
            WsisegError: it cannot be done; what is booked is on the disk all the same.
        """


@dataclass(frozen=True, slots=True)
class ThisProcess:
    """Pieces one after the other, here."""

    def compute(self, work: PiecesWork) -> float:
        """See `Executor.compute`."""
        with WriteBehind(work.writer.write) as behind:
            work.stream.run([
                SlideWork(
                    work.slide, work.shared.plan, work.pieces, work.field, [behind],
                    lambda batch, found: work.advance(len(batch.patches)), work.distances,
                )
            ])  # fmt: skip
        return work.stream.waited_s


@dataclass(frozen=True, slots=True)
class Devices:
    """Pieces on several devices of this machine, a process for each.

    Attributes:
        names: of them, as "cuda:0"; one may come twice.
    """

    names: tuple[str, ...]

    def compute(self, work: PiecesWork) -> float:
        """See `Executor.compute`."""
        return run_on_devices(work.shared, self.names, work.pieces, work.journal.book, work.advance)


def executor_for(device: str) -> Executor:
    """The executor that `--device` means: this process for one device, else a process for each."""
    names = device_names(device)
    return Devices(tuple(names)) if len(names) > 1 else ThisProcess()
