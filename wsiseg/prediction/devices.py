"""Several devices: a process for each computes and writes pieces of one map, and this one keeps the journal.

Pieces depend on nothing but themselves and no two share a shard, so it does not matter who computes which: each process
takes the next one when it is ready for it, and the bytes are those of a single process.
"""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from wsiseg.errors import DeviceError, WsisegError
from wsiseg.prediction.distance_field import DistanceField, saved_before
from wsiseg.prediction.gate_field import StoredGateField
from wsiseg.prediction.shared_work import SharedWork, opened_work
from wsiseg.prediction.steps import AnyStep, Step
from wsiseg.system.memory import keep_little_freed_memory
from wsiseg.tiling.pieces import Piece


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
        with opened_work(work, device) as opened:
            tiles = work.plan.tiles
            distances = None if work.distances is None else DistanceField(work.distances, tiles)
            field = None if work.field is None else StoredGateField(work.field, tiles, work.plan.selected)
            waited_s = opened.compute(
                iter(queued.get, None), _Booking(messages), lambda: None, saved_before(distances, opened.watch.check),
                lambda patches: messages.put(Done(patches)), field, distances,
            )  # fmt: skip
            messages.put(Ended(waited_s))
    except WsisegError as error:
        messages.put(Failed(error))
    except KeyboardInterrupt:
        pass  # the parent is told as well
