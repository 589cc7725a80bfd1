"""A cohort on a cluster: this process keeps the list, the lines and the tally; workers hold leases and make maps.

A slide is a task, and a worker gets one at a time. Who holds a slide's lease is who writes its map, so runs on other
machines, array jobs and workers that nobody can reach any more stay out of each other's way, as without a cluster.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from wsiseg.cluster.flights import Flights
from wsiseg.cluster.order import largest_first
from wsiseg.cluster.place import Place
from wsiseg.cluster.start import opened, share_of
from wsiseg.cluster.worker import Settings
from wsiseg.cohort.books import open_books
from wsiseg.cohort.names import Cohort
from wsiseg.cohort.options import CohortOptions
from wsiseg.errors import OptionError
from wsiseg.models import DEFAULT_MODEL
from wsiseg.prediction.batch import SlideResult
from wsiseg.prediction.many import refuse_impossible, wanted_maps
from wsiseg.prediction.options import PredictOptions
from wsiseg.system.files import refuse_address
from wsiseg.system.leases import Watcher


class Onlooker(Protocol):
    """Is told what happens on the cluster."""

    def opened(self, workers: str, dashboard: str | None) -> None:
        """The cluster is there: its workers, for people, and the address of Dask's dashboard."""

    def began(self, slide: str) -> None:
        """A worker began a slide."""

    def step(self, slide: str, phase: str, done: int, total: int) -> None:
        """A slide went on; see `wsiseg.prediction.progress.Progress`."""

    def ended(self, slide: str) -> None:
        """A slide is not being done any more; its result follows, or another worker resumes it."""

    def died(self, slide: str) -> None:
        """The worker of a slide died."""

    def waiting(self) -> None:
        """There have been no workers for a while."""


@dataclass
class ClusterRun:
    """Predicts the slides of a cohort on a cluster; results come in the order in which slides are done.

    Attributes:
        cohort: the slides and the names of their maps.
        folder: of the maps, which all workers must see by the same path; made if it is not there.
        place: where the workers are.
        onlooker: is told what happens.
        model: a shipped model's name, or a bundle's folder, which all workers must see by the same path.
        options: for all slides.
        how: see `CohortOptions`.
        tally: slides of this part by the text of their `State`, or `LOCKED`; complete at the end.
    """

    cohort: Cohort
    folder: Path
    place: Place
    onlooker: Onlooker
    model: str | Path = DEFAULT_MODEL
    options: PredictOptions = field(default_factory=PredictOptions)
    how: CohortOptions = field(default_factory=CohortOptions)
    tally: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        refuse_address(self.folder)
        refuse_impossible(self.options)
        if "," in self.options.device:
            raise OptionError("a worker of a cluster has one device; give one --device, and a worker for each GPU")
        self._share = share_of(self.place, self.options.max_memory)

    def __iter__(self) -> Iterator[SlideResult]:
        """The results of the slides that are done, looked at or failed now.

        Raises:
            WsisegError: where model, options, list, folder or cluster are to blame, and not one slide.
            ClusterLostError: the scheduler is gone; the same command goes on.
        """
        wanted, watcher = wanted_maps(self.model, self.options), Watcher()
        with open_books(self.cohort, self.folder.absolute(), self.how, wanted, self.tally, watcher) as books:
            left = self.cohort.part(*self.how.part)
            slides = largest_first(named for named in left if not books.is_decided(named))
            first = next(slides, None)
            if first is None:
                return
            with opened(self.place, self._share) as cluster:
                self.onlooker.opened(cluster.text, cluster.dashboard)
                with Flights(cluster.client, self._settings(), books, watcher, self.onlooker) as flights:
                    yield from flights.results(first, slides)

    def _settings(self) -> Settings:
        model, options, share = str(self.model), self.options, self._share
        if Path(model).is_dir():
            model = str(Path(model).absolute())
        if Path(options.tissue).is_file():
            options = replace(options, tissue=str(Path(options.tissue).absolute()))
        options = replace(
            options, workers=options.workers or share.readers, max_memory=options.max_memory or share.max_memory
        )
        return Settings(f"wsiseg-{secrets.token_hex(6)}", model, options, self.how)
