"""Pieces of one slide over the workers of a Dask cluster, behind the interface of executors.

This process keeps the lease, the journal, and the files that are mapped into memory: what the gate sees around a piece
is sent with it, and how far its patches are from the training data comes back with its step. A worker writes the
piece's shards into the unfinished store, which all nodes must reach by the same path.
"""

from __future__ import annotations

import os
import uuid
import zlib
from collections import Counter, deque
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass

from distributed import Client, Future, KilledWorker, as_completed
from distributed.protocol.pickle import dumps

from wsiseg.cluster.piece_worker import FoundPiece, Refused, SentPiece, compute_piece, lease_of
from wsiseg.errors import ClusterError
from wsiseg.prediction.executors import PiecesWork
from wsiseg.prediction.machine import Machine
from wsiseg.prediction.steps import MachineStep
from wsiseg.system.leases import holder_of
from wsiseg.tiling.pieces import Piece

AHEAD = 2
"""Pieces that are sent for each worker: one is computed, the next one waits there."""

DEATHS = 3
"""So often a piece is sent again after its workers died."""


@dataclass(frozen=True, slots=True)
class DaskPieces:
    """Pieces on the workers of a cluster.

    Attributes:
        client: of its scheduler.
    """

    client: Client

    def compute(self, work: PiecesWork) -> float:
        """See `wsiseg.prediction.executors.Executor.compute`.

        Raises:
            ClusterError: the scheduler is gone, or workers died several times at one piece, which is named.
        """
        name, token = uuid.uuid4().hex[:12], holder_of(lease_of(work.shared)).token
        blob = zlib.compress(dumps(work.shared), 1)
        known = {Machine(step.threads, step.processor) for step in work.journal.booked(MachineStep)}
        known.add(Machine.of(work.stream.model))
        left, sent, deaths = deque(work.pieces), dict[Future, Piece](), Counter[int]()
        done, waited_s = as_completed(), 0.0

        def send() -> None:
            """Keep each worker's hands full, and no more: rows of the gate take memory."""
            wanted = AHEAD * max(1, sum(self.client.nthreads().values()))
            while left and len(sent) < wanted:
                piece = left.popleft()
                rows = None if work.field is None else work.field.of(piece)
                future = self.client.submit(
                    compute_piece, SentPiece(blob, token, piece, rows), pure=False, retries=0,
                    key=f"piece {piece.index} of {name}-{deaths[piece.index]}",
                )  # fmt: skip
                sent[future] = piece
                done.add(future)

        try:
            while left or sent:
                send()
                future = next(done)
                piece, found = sent.pop(future), _result(future)
                if found is None:
                    deaths[piece.index] += 1
                    if deaths[piece.index] >= DEATHS:
                        raise ClusterError(
                            f"workers died {deaths[piece.index]} times at piece {piece.index} of {work.slide.name}, "
                            "perhaps for lack of memory; repeat the command, with more memory for each worker or a "
                            "smaller --max-memory"
                        )
                    left.appendleft(piece)
                    continue
                if found.machine not in known:
                    known.add(found.machine)
                    work.journal.book(MachineStep(found.machine.threads, found.machine.processor))
                _keep_distances(work, found)
                work.slide.damage.restore(found.step.damage)
                work.journal.book(found.step)
                work.advance(found.patches)
                waited_s += found.waited_s
        finally:
            with suppress(
                OSError, TimeoutError, CancelledError
            ):  # what ended the run is to be told, not a scheduler that is gone
                self.client.cancel(list(sent))
        return waited_s / max(1, len(self.client.nthreads()))


def _result(future: Future) -> FoundPiece | None:
    """What came of a piece; None where its workers died."""
    try:
        found = future.result()
    except KilledWorker:
        return None
    except CancelledError as error:
        raise ClusterError("the cluster's scheduler is gone; repeat the command to go on, on a new one") from error
    finally:
        future.release()
    if isinstance(found, Refused):
        if found.number is None:
            raise found.error
        raise found.error from OSError(found.number, os.strerror(found.number))
    return found  # type: ignore[no-any-return]


def _keep_distances(work: PiecesWork, found: FoundPiece) -> None:
    """Put the distances of a piece's patches onto the disk, before the piece is booked."""
    if work.distances is not None:
        for tiles, values in found.distances:
            work.distances.put(tiles, values)
        work.distances.save()
