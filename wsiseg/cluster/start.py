"""Starts a Dask cluster, or finds one, and ends what was started."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import dask
from distributed import Client, LocalCluster, WorkerPlugin

from wsiseg.cluster.place import Local, Place, Scheduler, Slurm
from wsiseg.errors import OptionError, OutputError
from wsiseg.system.control_group import usable_cpus
from wsiseg.system.extras import require_extra
from wsiseg.system.memory import LEAST_BYTES, MOST_BYTES, available_bytes, default_max_memory, parse_bytes

_SETTINGS = {
    # A slide is tried again by the run itself, which knows who died at which slide; Dask would count every task that a
    # dead worker held.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    # Results are a few kilobytes, and the memory of a slide is the run's own affair.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # Long calls into libraries hold the interpreter now and then, which is no reason to warn.
    "distributed.admin.tick.limit": "60s",
    "logging.distributed": "critical",
}
"""What differs from Dask's defaults, for schedulers and workers that are started here."""

CLOSE_S = 20
"""How long workers have to end by themselves."""

LIBRARIES_BYTES = 13 * 2**27
"""What a worker's libraries take beside `--max-memory`, about 1.6 GB."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A cluster to work on.

    Attributes:
        client: of its scheduler.
        text: where the workers are, for people.
        dashboard: its address, None where there is none.
    """

    client: Client
    text: str
    dashboard: str | None


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several workers may take of its machine; None leaves it to the worker.

    Attributes:
        threads: to compute in.
        readers: threads that read.
        max_memory: bytes, see `PredictOptions`.
    """

    threads: int | None = None
    readers: int | None = None
    max_memory: int | None = None


class _NoInterrupt(WorkerPlugin):  # type: ignore[misc]
    """A terminal's Ctrl-C reaches the workers as well; the driver ends them, in order."""

    name = "wsiseg-no-interrupt"

    def setup(self, worker: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def share_of(place: Place, max_memory: int | None) -> Share:
    """What each worker may take.

    Raises:
        OptionError: so many workers do not fit into the memory.
    """
    if isinstance(place, Slurm):
        room = parse_bytes(place.memory) - LIBRARIES_BYTES
        if (max_memory or LEAST_BYTES) > room:
            raise OptionError(
                f"a job with {place.memory} has no room for {_gb(max_memory or LEAST_BYTES)} (--max-memory) and "
                f"{_gb(LIBRARIES_BYTES)} of libraries; give more memory in the file"
            )
        half = max(LEAST_BYTES, min(MOST_BYTES, parse_bytes(place.memory) // 2))
        return Share(place.cores, min(8, place.cores), min(half, room))
    if isinstance(place, Local):
        cpus, room = usable_cpus(), available_bytes() // place.workers - LIBRARIES_BYTES
        if (max_memory or LEAST_BYTES) > room:
            raise OptionError(
                f"{place.workers} workers with {_gb(max_memory or LEAST_BYTES)} each (--max-memory) and "
                f"{_gb(LIBRARIES_BYTES)} of libraries do not fit into {_gb(available_bytes())}; give fewer workers"
            )
        threads = max(1, cpus // place.workers)
        return Share(threads, min(8, threads), None if default_max_memory() <= room else room)
    return Share()


@contextmanager
def opened(place: Place, share: Share) -> Iterator[Opened]:
    """A cluster; of what was started here nothing is left at the end.

    Raises:
        MissingExtraError: what SLURM needs is not installed.
        OptionError: no scheduler answers, or this machine has no SLURM.
        OutputError: a cluster cannot be started.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    threads = {} if share.threads is None else dict.fromkeys(_THREADS, share.threads)
    environment = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in threads.items()}
    with dask.config.set({**_SETTINGS, **environment}), ExitStack() as stack:
        if isinstance(place, Scheduler):
            client = _connected(place)
            stack.callback(client.close, timeout=CLOSE_S)
            yield Opened(client, place.address, client.dashboard_link)
            return
        cluster = _local(place) if isinstance(place, Local) else _slurm(place)
        stack.callback(cluster.close, timeout=CLOSE_S)
        client = Client(cluster, set_as_default=False)
        stack.callback(client.close, timeout=CLOSE_S)
        client.register_plugin(_NoInterrupt())
        if isinstance(place, Slurm):
            cluster.adapt(minimum_jobs=place.jobs, maximum_jobs=place.jobs)
            text = f"{place.jobs} SLURM jobs with {place.cores} threads each"
        else:
            text = f"{place.workers} processes with {share.threads} thread{'s'[: share.threads != 1]} each"
        yield Opened(client, text, cluster.dashboard_link)


_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def _local(place: Local) -> LocalCluster:
    try:
        return LocalCluster(
            n_workers=place.workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )  # fmt: skip
    except (OSError, RuntimeError, TimeoutError) as error:
        raise OutputError(f"cannot start {place.workers} worker processes: {_line(error)}") from error


def _slurm(place: Slurm) -> Any:
    require_extra("cluster", "--cluster with a file of SLURM jobs", "dask_jobqueue")
    if shutil.which("sbatch") is None:
        raise OptionError("--cluster with a file of SLURM jobs needs sbatch, which is not on this machine's path")
    from dask_jobqueue import SLURMCluster  # noqa: PLC0415

    exports = [f"export {name}={place.cores}" for name in _THREADS]
    given = {"queue": place.queue, "account": place.account, "walltime": place.walltime, "interface": place.interface}
    return SLURMCluster(
        cores=1, processes=1, job_cpu=place.cores, memory=place.memory, job_mem=place.memory,
        job_extra_directives=list(place.directives), job_script_prologue=[*exports, *place.prologue],
        worker_extra_args=["--memory-limit", "0"], log_directory=place.logs, job_name="wsiseg",
        scheduler_options={"dashboard_address": ":0"}, silence_logs="critical",
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip


def _connected(place: Scheduler) -> Client:
    try:
        return Client(place.address, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise OptionError(
            f"no Dask scheduler answers at {place.address}; start one (`dask scheduler`), or correct --cluster"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _gb(amount: int) -> str:
    return f"{amount / 2**30:.1f} GB"
