"""The work on one slide's pieces as another process gets it, and how it is opened there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from wsiseg.models.bundle import load_model
from wsiseg.models.runtime.choose import Runtime
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gate_field import GateFieldFile
from wsiseg.prediction.gated import make_gate
from wsiseg.prediction.machine import threads_of_torch
from wsiseg.prediction.options import ResolvedOptions
from wsiseg.prediction.piece_reader import Field
from wsiseg.prediction.piece_writer import PieceWriter
from wsiseg.prediction.plan import Plan
from wsiseg.prediction.steps import Books
from wsiseg.prediction.stream import Distances, FinishedPiece, SlideWork, Stream
from wsiseg.slides import open_slide
from wsiseg.slides.base import SlideReader
from wsiseg.slides.watch import SlideWatch
from wsiseg.system.memory import MemoryPlan
from wsiseg.system.threads import WriteBehind
from wsiseg.tiling.pieces import Piece
from wsiseg.tissue_map.writer import MapWriter


@dataclass(frozen=True)
class SharedWork:
    """All that a process needs to know of the work; it can be pickled.

    Attributes:
        slide: its path or address.
        model: a shipped model's name or a bundle's folder.
        plan: grid, tissue and patches.
        options: resolved, but for the device.
        runtime: what computes the networks, decided for all devices.
        memory: of the whole run, which the processes share out.
        store: the unfinished store, whose arrays are there.
        field: of the gate in context, None without one.
        damage: source tiles that are known to be damaged.
        distances: file of the distances from the training data, None where nobody measures them.
        threads: that torch divides a batch among on a CPU, as in one process; 0 as it chooses.
    """

    slide: str
    model: str
    plan: Plan
    options: ResolvedOptions
    runtime: Runtime
    memory: MemoryPlan
    store: Path
    field: GateFieldFile | None
    damage: list[list[int]]
    distances: Path | None = None
    threads: int = 0


@dataclass(frozen=True, slots=True)
class OpenedWork:
    """Work whose slide, model and map are open in this process.

    Attributes:
        work: see `SharedWork`.
        slide: open for reading.
        watch: knows whether the slide is still the one that was opened.
        model: ready to compute.
        writer: of the map.
    """

    work: SharedWork
    slide: SlideReader
    watch: SlideWatch
    model: TissueModel
    writer: MapWriter

    def compute(
        self,
        pieces: Iterable[Piece],
        books: Books,
        may_write: Callable[[], None],
        check: Callable[[], None],
        told: Callable[[int], None],
        field: Field | None,
        distances: Distances | None,
    ) -> float:
        """Compute pieces, and write each before it is booked.

        Args:
            pieces: taken ahead of what is computed.
            books: get the step of each piece that is on the disk.
            may_write: called before a piece is written; raises where it must not be.
            check: called before a piece is booked; raises where it must not be.
            told: of patches as they are done.
            field: what the gate goes by where it looks beyond a patch, else None.
            distances: given how far patches are from the training data; None where nobody asked.

        Returns:
            Seconds in which the networks waited for the slide's pixels.
        """
        work = self.work
        options = replace(work.options, device=str(self.model.device))
        piece_writer = PieceWriter(self.writer, work.plan, books, self.slide.damage, check)

        def write(finished: FinishedPiece) -> None:
            may_write()
            piece_writer.write(finished)

        with threads_of_torch(work.threads), WriteBehind(write) as behind:
            stream = Stream(self.model, make_gate(self.model, options), options, work.memory)
            stream.run([
                SlideWork(
                    self.slide, work.plan, pieces, field, [behind],
                    lambda batch, found: told(len(batch.patches)), distances,
                )
            ])  # fmt: skip
        return stream.waited_s


@contextmanager
def opened_work(
    work: SharedWork, device: str, load: Callable[[str, str], TissueModel] = load_model
) -> Iterator[OpenedWork]:
    """Open slide, model and map of shared work.

    Args:
        work: see `SharedWork`.
        device: to compute on.
        load: gives a model by its name and device; it may keep it.

    Raises:
        WsisegError: one of them cannot be opened here.
    """
    asked = work.options
    with open_slide(
        work.slide, mpp=asked.mpp, reader=asked.reader, series=asked.series, retry_s=asked.retry_s
    ) as slide:
        slide.damage.restore(work.damage)
        with threads_of_torch(work.threads):  # a runtime with threads of its own is prepared with as many
            model = load(work.model, device).use(work.runtime)
        writer = MapWriter(
            work.store, model.classes, work.plan.grid, work.memory.piece_px, probabilities=asked.probabilities,
            unread=True,
        )  # fmt: skip
        yield OpenedWork(work, slide, SlideWatch(slide), model, writer)
