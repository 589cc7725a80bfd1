"""What a worker process does: it holds the lease of a slide, makes its map, and tells how far it is."""

from __future__ import annotations

import os
import socket
import traceback
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from distributed import get_worker

from wsiseg.choices import left_open
from wsiseg.cohort.maker import SlideMaker
from wsiseg.cohort.options import CohortOptions
from wsiseg.cohort.slide_source import Entry
from wsiseg.errors import LockedError
from wsiseg.prediction.batch import SlideResult
from wsiseg.prediction.many import wanted_maps, whatever_comes
from wsiseg.prediction.options import PredictOptions
from wsiseg.system.leases import Watcher
from wsiseg.system.locks import locked
from wsiseg.system.memory import keep_little_freed_memory

TOLD_S = 1.0
"""At most one message of a slide's progress in this time, but for the first of a phase."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all slides of a run have in common.

    Attributes:
        topic: of the messages to the driver.
        model: a shipped model's name, or an absolute path.
        options: how to predict.
        how: how the cohort is done.
    """

    topic: str
    model: str
    options: PredictOptions
    how: CohortOptions


@dataclass(frozen=True, slots=True)
class SlideTask:
    """A slide that a worker is to do.

    Attributes:
        key: of the task.
        entry: the slide.
        path: of its map, absolute.
    """

    key: str
    entry: Entry
    path: Path


@dataclass(frozen=True, slots=True)
class Busy:
    """Instead of a result: another process holds the slide's lease."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Instead of a result: nobody waits for it any more; the slide can be resumed."""


class _Unwanted(BaseException):
    """The driver is gone, or was interrupted: not an error of the slide."""


class _Worker:
    """The state of a worker process for one run: its model, and what it saw of others' leases."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.dask: Any = get_worker()
        self.watcher = Watcher()
        self.key = ""
        self._told, self._phase = 0.0, ""
        options = replace(settings.options, device=device_of(settings.options.device, self.dask.name))
        self._stack = ExitStack()
        wanted = wanted_maps(settings.model, options)
        self.maker = self._stack.enter_context(SlideMaker(settings.model, options, settings.how, wanted, self))

    def close(self) -> None:
        """Give back what the run took."""
        self._stack.close()

    def plan(self, tissue_px: int) -> None:
        """See `wsiseg.prediction.progress.Progress`."""

    def step(self, phase: str, done: int, total: int) -> None:
        """See `wsiseg.prediction.progress.Progress`; ends the work on a slide that nobody waits for."""
        task = self.dask.state.tasks.get(self.key)
        if task is None or task.state in ("cancelled", "released", "forgotten"):
            raise _Unwanted
        now = monotonic()
        if phase != self._phase or now - self._told >= TOLD_S or done == total:
            self._told, self._phase = now, phase
            self.tell(kind="step", phase=phase, done=done, total=total)

    def tell(self, **message: object) -> None:
        """Send the driver a message about the slide."""
        self.dask.log_event(self.settings.topic, {"key": self.key, **message})

    def do(self, task: SlideTask) -> SlideResult | Busy | Dropped:
        """See `do_slide`."""
        self.key, self._phase = task.key, ""
        try:
            task.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(task.path, self.watcher) as lease:
                self.tell(kind="began", host=socket.gethostname(), process=os.getpid())
                return self.maker.make(task.entry, task.path, lease)
        except LockedError:
            return Busy()
        except _Unwanted:
            return Dropped()
        finally:
            self.tell(kind="left")


_now: list[_Worker] = []
"""The run that this process works for, if any."""


def do_slide(settings: Settings, task: SlideTask) -> SlideResult | Busy | Dropped:
    """Make the map of a slide in a worker process, or look at the one that is there."""
    result = whatever_comes(task.entry.slide, task.path, lambda: _ready(settings).do(task))  # type: ignore[arg-type, return-value]
    if isinstance(result, SlideResult) and result.defect is not None:  # a traceback does not travel
        result.defect.add_note("in the worker:\n" + "".join(traceback.format_exception(result.defect)))
        return replace(result, defect=result.defect.with_traceback(None))
    return result


def _ready(settings: Settings) -> _Worker:
    if not _now:
        keep_little_freed_memory()
    if _now and _now[0].settings != settings:
        _now.pop().close()
    if not _now:
        _now.append(_Worker(settings))
    return _now[0]


def device_of(device: str, name: object, gpus: int | None = None) -> str:
    """The device of a worker: of several GPUs that it sees the one of its number, where workers are numbered.

    Args:
        device: as the options have it.
        name: of the worker; a number where they are processes of one machine that all see the same GPUs.
        gpus: that it sees; None counts them.
    """
    count = torch.cuda.device_count() if gpus is None else gpus
    if (left_open(device) or device == "cuda") and count > 1 and isinstance(name, int):
        return f"cuda:{name % count}"
    return device
