"""Opens slides and finds their tissue, each while the one before it gets its pyramid and polygons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.job import PLAN_READS, MapJob, planned
from wsiseg.prediction.options import ResolvedOptions
from wsiseg.prediction.plan import Plan
from wsiseg.prediction.progress import Progress
from wsiseg.slides import open_slide
from wsiseg.slides.base import SlideReader
from wsiseg.system.clock import Clock
from wsiseg.system.threads import within


@dataclass
class Opener:
    """Opens one slide after the other for the same model.

    Attributes:
        model: ready to compute.
        options: resolved; a slide may have an mpp of its own.
        progress: told as the work on slides goes on.
    """

    model: TissueModel
    options: ResolvedOptions
    progress: Progress
    _ahead: dict[str, Future[tuple[SlideReader, Plan]]] = field(default_factory=dict)

    def __enter__(self) -> Opener:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="opener")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for future in self._ahead.values():
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result()[0].close()

    def ahead(self, slide: str | None, mpp: float | None = None) -> None:
        """Begin to open a slide that will be asked for next; nothing for None."""
        if slide is not None and slide not in self._ahead:
            self._ahead[slide] = self._pool.submit(self._open, slide, self._with_mpp(mpp))

    def open(self, slide: str, model_name: str, mpp: float | None = None, *, streamed: Callable[[], None]) -> MapJob:
        """The work on a slide.

        Args:
            slide: its path or address.
            model_name: see `MapJob`.
            mpp: microns per level-0 pixel, None as the options say.
            streamed: called as its pyramid begins: the time to open the next one.
        """
        clock, options = Clock(), self._with_mpp(mpp)
        ahead = self._ahead.pop(slide, None)
        reader, plan = self._open(slide, options) if ahead is None else ahead.result()
        clock.lap("start")
        with closed_on_error(reader):
            return MapJob(reader, self.model, model_name, options, self.progress, clock, plan, streamed)

    def _with_mpp(self, mpp: float | None) -> ResolvedOptions:
        return self.options if mpp is None else replace(self.options, mpp=mpp)

    def _open(self, slide: str, options: ResolvedOptions) -> tuple[SlideReader, Plan]:
        limit_s = options.read_timeout_s
        opening = partial(
            open_slide, slide, mpp=options.mpp, reader=options.reader, series=options.series, retry_s=options.retry_s
        )
        reader = within(opening, limit_s)
        with closed_on_error(reader):
            return reader, within(partial(planned, reader, self.model, options), PLAN_READS * limit_s)


@contextmanager
def closed_on_error(reader: SlideReader) -> Iterator[None]:
    """Close a slide if what is done with it fails or is interrupted; else it stays open for whoever gets it."""
    with ExitStack() as stack:
        stack.callback(reader.close)
        yield
        stack.pop_all()
