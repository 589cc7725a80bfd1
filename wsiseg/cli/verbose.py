"""`wsiseg predict --verbose`: what a run reads, what computes it, and how long its phases take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wsiseg.cli.options import echo
from wsiseg.system.printable import printable

if TYPE_CHECKING:
    from wsiseg.prediction.options import PredictOptions
    from wsiseg.slides.base import SlideReader


def tell_slide(slide: SlideReader, model: str) -> None:
    """The reader, and the level that a model's map is read from."""
    from wsiseg.models.spec import read_spec

    spec = read_spec(model)
    grid = slide.grid(spec.mpp)
    resampled = f", resampled by {grid.zoom_x:.4g}" if grid.resamples else ""
    _tell("slide", f"{slide.vendor}, read by {slide.reader}, {slide.size} px at {slide.mpp} um/px ({slide.mpp_source})")
    _tell("level", f"{grid.level} of {len(slide.levels)}{resampled}; map of {grid.size} px at {grid.mpp} um/px")


def tell_machine(model: str, options: PredictOptions) -> None:
    """What computes, in how many threads, and the memory that a run may take; loads torch."""
    import torch

    from wsiseg.models.devices import keep_to_quota
    from wsiseg.prediction.many import wanted_maps
    from wsiseg.system.control_group import usable_cpus
    from wsiseg.system.memory import default_max_memory

    wanted = wanted_maps(model, options)
    runtime, chosen = wanted.runtime, wanted.options
    exact = ", exact" if runtime.exact else ""
    _tell("runtime", f"{runtime.name}, {runtime.precision}{exact}, on {chosen.device}; batches of {chosen.batch_size}")
    floor = "" if chosen.gate_floor is None else f", floor {chosen.gate_floor:g}"
    _tell("gate", f"mode {chosen.gate_mode}, rule {chosen.gate_rule}, context {chosen.gate_context:g}{floor}")
    keep_to_quota()
    threads = torch.get_num_threads()
    _tell("threads", f"{threads} that compute, {chosen.workers} that read; {usable_cpus()} processors may be used")
    memory = options.max_memory or default_max_memory()
    _tell("memory", f"{memory / 2**30:.1f} GiB at most; versions: {_listed(wanted.versions)}")


class PhaseTimes:
    """Tells when a phase begins, and how long the one before it took."""

    def __init__(self) -> None:
        self._phase, self._began = "", time.monotonic()
        self._since = self._began

    def report(self, phase: str, done: int, total: int) -> None:
        """Take a step of a phase, with the arguments of `Progress.step`; print where a new phase begins."""
        if phase not in ("plan", self._phase):
            self.end()
            self._phase, self._since = phase, time.monotonic()
            _tell("phase", f"{phase} begins after {self._since - self._began:.1f} s")

    def end(self) -> None:
        """Print how long the last phase took."""
        if self._phase:
            _tell("phase", f"{self._phase} took {time.monotonic() - self._since:.1f} s")
            self._phase = ""


def _tell(kind: str, text: str) -> None:
    echo(printable(f"{kind}: {text}"))


def _listed(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
