"""Several devices: a process for each computes and writes pieces of one map, and this one keeps the journal.

Pieces depend on nothing but themselves and no two share a shard, so it does not matter who computes which: each process
takes the next one when it is ready for it, and the bytes are those of a single process.
"""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from wsiseg.errors import DeviceError, WsisegError
from wsiseg.models.bundle import load_model
from wsiseg.models.runtime.choose import Runtime
from wsiseg.prediction.distance_field import DistanceField, saved_before
from wsiseg.prediction.gate_field import GateFieldFile, StoredGateField
from wsiseg.prediction.gated import make_gate
from wsiseg.prediction.options import ResolvedOptions
from wsiseg.prediction.piece_writer import PieceWriter
from wsiseg.prediction.plan import Plan
from wsiseg.prediction.steps import AnyStep, Step
from wsiseg.prediction.stream import SlideWork, Stream
from wsiseg.slides import open_slide
from wsiseg.slides.watch import SlideWatch
from wsiseg.system.memory import MemoryPlan, keep_little_freed_memory
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


@dataclass(frozen=True)
class Booked:
    """A message: a piece is on the disk, and its step is to be booked."""

    step: Step


@dataclass(frozen=True)
class Done:
    """A message: so many more patches are done."""

    patches: int


@dataclass(frozen=True)
class Ended:
    """A message: a process has no more work; its networks waited so many seconds for pixels."""

    waited_s: float


@dataclass(frozen=True)
class Failed:
    """A message: a process cannot go on."""

    error: WsisegError


Message = Booked | Done | Ended | Failed


def run_on_devices(
    work: SharedWork,
    devices: Sequence[str],
    pieces: Sequence[Piece],
    book: Callable[[Step], None],
    advance: Callable[[int], None],
) -> float:
    """Compute pieces on several devices, one process each.

    Args:
        work: see `SharedWork`.
        devices: names of them, as "cuda:0"; one may come twice.
        pieces: what to compute.
        book: given the step of each piece that is on disk.
        advance: told of patches as they are done.

    Returns:
        Seconds in which a device waited for pixels, the mean over the devices.

    Raises:
        WsisegError: that of the first process that failed; the others are ended.
    """
    context = multiprocessing.get_context("spawn")  # a forked process must not use the parent's CUDA
    queued: Any = context.Queue()  # of Piece, then None for each process
    messages: Any = context.Queue()  # of Message
    for piece in pieces:
        queued.put(piece)
    for _ in devices:
        queued.put(None)
    processes = [context.Process(target=_work, args=(work, name, queued, messages), daemon=True) for name in devices]
    for process in processes:
        process.start()
    waited: list[float] = []
    try:
        for message in _messages(messages, processes):
            match message:
                case Booked(step):
                    book(step)
                case Done(patches):
                    advance(patches)
                case Ended(waited_s):
                    waited.append(waited_s)
                case Failed(error):
                    raise error
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
    return sum(waited) / len(devices)


def _messages(messages: Any, processes: Sequence[BaseProcess]) -> Iterator[Message]:
    """What the processes tell until all have ended their work; one that dies without a word is an error."""
    left = len(processes)
    while left:
        try:
            message: Message = messages.get(timeout=1.0)
        except queue.Empty:
            dead = [process.exitcode for process in processes if process.exitcode not in (None, 0)]
            if dead:
                raise DeviceError(
                    f"a process of this run ended with code {dead[0]}, perhaps for lack of memory; repeat the command, "
                    "on fewer devices or with a smaller --batch-size"
                ) from None
            continue
        left -= isinstance(message, Ended)
        yield message


class _Booking:
    """A journal whose steps another process writes."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    def book(self, step: Step) -> None:
        """Send a step to the process that keeps the journal."""
        self._messages.put(Booked(step))

    def booked(self, kind: type[AnyStep]) -> list[AnyStep]:
        """No steps: what an earlier run did is known to the parent process."""
        return []


def _work(work: SharedWork, device: str, queued: Any, messages: Any) -> None:
    """Compute pieces until there are no more."""
    keep_little_freed_memory()
    try:
        asked = work.options
        with open_slide(
            work.slide, mpp=asked.mpp, reader=asked.reader, series=asked.series, retry_s=asked.retry_s
        ) as slide:
            slide.damage.restore(work.damage)
            options = replace(work.options, device=device)
            model = load_model(work.model, device).use(work.runtime)
            if work.threads:
                torch.set_num_threads(work.threads)
            writer = MapWriter(
                work.store, model.classes, work.plan.grid, work.memory.piece_px, probabilities=options.probabilities,
                unread=True,
            )  # fmt: skip
            distances = None if work.distances is None else DistanceField(work.distances, work.plan.tiles)
            check = saved_before(distances, SlideWatch(slide).check)
            piece_writer = PieceWriter(writer, work.plan, _Booking(messages), slide.damage, check)
            stream = Stream(model, make_gate(model, options), options, work.memory)
            field = None if work.field is None else StoredGateField(work.field, work.plan.tiles, work.plan.selected)
            with WriteBehind(piece_writer.write) as behind:
                pieces = iter(queued.get, None)
                stream.run([
                    SlideWork(
                        slide, work.plan, pieces, field, [behind],
                        lambda batch, found: messages.put(Done(len(batch.patches))),
                        distances,
                    )
                ])  # fmt: skip
            messages.put(Ended(stream.waited_s))
    except WsisegError as error:
        messages.put(Failed(error))
    except KeyboardInterrupt:
        pass  # the parent is told as well
