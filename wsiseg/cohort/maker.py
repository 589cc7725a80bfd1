"""Makes the maps of a cohort's slides, one after the other: the model is loaded once, when the first slide needs it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Self

from wsiseg.cohort.options import CohortOptions
from wsiseg.cohort.slide_source import Entry
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.batch import SlideResult
from wsiseg.prediction.kept_map import Wanted
from wsiseg.prediction.many import Keeper, whatever_comes
from wsiseg.prediction.map_folders import LocalFolder
from wsiseg.prediction.opener import Opener
from wsiseg.prediction.options import PredictOptions
from wsiseg.prediction.output import Output
from wsiseg.prediction.progress import Progress
from wsiseg.prediction.run import loaded_model, predict_opened
from wsiseg.prediction.unfinished import unfinished_folder
from wsiseg.system.files import is_tissue_map
from wsiseg.system.leases import Lease

COHORT_PROBABILITIES: Final = "coarse"
"""What the maps of a cohort keep of their probabilities, where nothing else is asked for: a tenth of the room."""


@dataclass
class SlideMaker:
    """Makes maps with one model and the same options.

    Attributes:
        model: see `wsiseg.predict`.
        options: for all slides; a slide may have an mpp of its own. Where they do not say how much of the
            probabilities is kept, maps that are there may have full or coarse ones, and new ones get
            `COHORT_PROBABILITIES`.
        how: see `CohortOptions`.
        wanted: what a map that is there must have been made with.
        progress: told as the work on a slide goes on.
    """

    model: str | Path | TissueModel
    options: PredictOptions
    how: CohortOptions
    wanted: Wanted
    progress: Progress

    def __enter__(self) -> Self:
        self._opener: Opener | None = None
        self._stack = ExitStack()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def make(self, entry: Entry, path: Path, lease: Lease, streamed: Callable[[], None] = lambda: None) -> SlideResult:
        """The result of a slide: its map as it is there, or made now.

        Args:
            entry: the slide.
            path: of its map.
            lease: of the map, held.
            streamed: called as its pyramid begins.
        """
        if not self.how.overwrite and _is_there(path):
            wanted = replace(self.wanted, asked=replace(self.options, mpp=entry.mpp or self.options.mpp))
            keeper = Keeper(wanted, self.how.polygons, self.how.vectors, LocalFolder(path.parent))
            return keeper.look_at(entry.slide, path)
        if self._opener is None:
            options = replace(self.options, probabilities=self.options.probabilities or COHORT_PROBABILITIES)
            loaded, resolved = loaded_model(self.model, options)
            self._opener = self._stack.enter_context(Opener(loaded, resolved, self.progress))
        return whatever_comes(entry.slide, path, partial(self._made, self._opener, entry, path, lease, streamed))

    def ahead(self, entry: Entry, path: Path) -> None:
        """Begin to open a slide whose turn comes next, unless its map is there."""
        if self._opener is not None and not _is_there(path):
            self._opener.ahead(entry.slide, entry.mpp)

    def _made(
        self, opener: Opener, entry: Entry, path: Path, lease: Lease, streamed: Callable[[], None]
    ) -> SlideResult:
        geojson = path.with_suffix(".geojson") if self.how.polygons else None
        output = Output(path, geojson, self.how.vectors, self.how.overwrite, self.how.restart, held=lease)
        output.check()
        job = opener.open(entry.slide, str(self.model), entry.mpp, streamed=streamed)
        with job.slide:
            found = predict_opened(job, output)
        return SlideResult(entry.slide, path, found)


def _is_there(path: Path) -> bool:
    return is_tissue_map(path) and not unfinished_folder(path).exists()
