"""Many slides, one after the other: the model is loaded once, and the next slide opened while this one ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wsiseg.addresses import last_part, without_secrets
from wsiseg.background import within
from wsiseg.clock import Clock
from wsiseg.errors import OptionError, OutputError, WsisegError
from wsiseg.export import VectorOptions
from wsiseg.map_job import PLAN_READS, MapJob, Progress, planned
from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.tissue_model import TissueModel
from wsiseg.outputs import is_tissue_map, refuse_address
from wsiseg.planning import Plan
from wsiseg.predict_options import PredictOptions
from wsiseg.prediction import loaded_model, predict_opened, silent
from wsiseg.report import Prediction
from wsiseg.slides import open_slide
from wsiseg.slides.base import SlideReader
from wsiseg.unfinished import check_outputs, unfinished_folder


@dataclass(frozen=True, slots=True)
class SlideResult:
    """What became of one of many slides.

    Attributes:
        slide: its path or address.
        map_path: of its map.
        prediction: None where its map was there already, or it failed.
        error: why it failed, one line; None where it did not.
    """

    slide: str
    map_path: Path
    prediction: Prediction | None = None
    error: str | None = None


def map_paths(slides: Sequence[str | Path], folder: Path) -> list[Path]:
    """The map of each slide in a folder, named after it.

    Raises:
        OptionError: two slides would have one name.
    """
    paths = [folder / f"{_stem(str(slide))}.zarr" for slide in slides]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            first = slides[paths.index(path)]
            pair = f"{without_secrets(str(first))} and {without_secrets(str(slides[index]))}"
            raise OptionError(f"{pair} would both become {path.name}; predict them apart")
    return paths


def _stem(slide: str) -> str:
    name = last_part(slide)
    for ending in (".ome.tiff", ".ome.tif"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name.rsplit(".", 1)[0] or name


def predict_many(
    slides: Sequence[str | Path],
    folder: str | Path,
    model: str | Path | TissueModel = DEFAULT_MODEL,
    options: PredictOptions | None = None,
    *,
    polygons: bool = True,
    vectors: VectorOptions | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: Progress | None = None,
    began: Callable[[str], None] | None = None,
) -> Iterator[SlideResult]:
    """Segment slides into a folder, which is made if it is not there; see `wsiseg.predict`.

    A slide whose map and polygons are there already is left out, so that the same call goes on with what an interrupted
    one had begun. A slide that fails does not keep the others from being predicted.

    Args:
        slides: files or addresses.
        folder: gets NAME.zarr and NAME.geojson of each.
        model: see `wsiseg.predict`, as for the other arguments.
        options: for all of them.
        polygons: whether they are written.
        vectors: how.
        overwrite: replace maps that are there.
        restart: forget unfinished runs.
        progress: called as the work on a slide goes on.
        began: called with each slide whose turn it is.

    Yields:
        The result of each slide: first of those that are done already, then of the others in order.

    Raises:
        WsisegError: where model, options or folder are to blame, and not one slide.
    """
    options = options or PredictOptions()
    refuse_address(folder)
    folder = Path(folder)
    paths = map_paths(slides, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made a folder: {error.strerror}; choose another name") from error
    pairs = [(str(slide), path) for slide, path in zip(slides, paths, strict=True)]
    done = [pair for pair in pairs if not overwrite and _is_done(pair[1], polygons)]
    for slide, path in done:
        yield SlideResult(slide, path)
    left = [pair for pair in pairs if pair not in done]
    if not left:
        return
    loaded, resolved = loaded_model(model, options)
    with _Opener(loaded, resolved, progress or silent, [slide for slide, _ in left]) as opener:
        for slide, path in left:
            geojson = path.with_suffix(".geojson") if polygons else None
            try:
                if began is not None:
                    began(slide)
                check_outputs(path, geojson, overwrite=overwrite, restart=restart)
                job = opener.open(slide, str(model))
                with job.slide:
                    found = predict_opened(job, path, geojson, vectors, overwrite=overwrite, restart=restart)
            except WsisegError as error:
                yield SlideResult(slide, path, error=" ".join(str(error).split()))
            else:
                yield SlideResult(slide, path, found)


def _is_done(path: Path, polygons: bool) -> bool:
    drawn = not polygons or path.with_suffix(".geojson").exists()
    return is_tissue_map(path) and drawn and not unfinished_folder(path).exists()


@dataclass
class _Opener:
    """Opens slides and finds their tissue, each while the one before it gets its pyramid and polygons."""

    model: TissueModel
    options: PredictOptions
    progress: Progress
    slides: Sequence[str]
    _ahead: dict[str, Future[tuple[SlideReader, Plan]]] = field(default_factory=dict)

    def __enter__(self) -> _Opener:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="opener")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for future in self._ahead.values():
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result()[0].close()

    def open(self, slide: str, model_name: str) -> MapJob:
        """The work on a slide; from its pyramid on the next slide is opened."""
        clock = Clock()
        ahead = self._ahead.pop(slide, None)
        reader, todo = self._open(slide) if ahead is None else ahead.result()
        clock.lap("start")
        following = self.slides[self.slides.index(slide) + 1 :][:1]

        def report(phase: str, done: int, total: int) -> None:
            if phase == "pyramid":
                for name in following:
                    if name not in self._ahead:
                        self._ahead[name] = self._pool.submit(self._open, name)
            self.progress(phase, done, total)

        return MapJob(reader, self.model, model_name, self.options, report, clock, todo)

    def _open(self, slide: str) -> tuple[SlideReader, Plan]:
        limit_s = self.options.read_timeout_s
        options = self.options
        opening = partial(
            open_slide, slide, mpp=options.mpp, reader=options.reader, series=options.series, retry_s=options.retry_s
        )
        reader = within(opening, limit_s)
        try:
            return reader, within(partial(planned, reader, self.model, options), PLAN_READS * limit_s)
        except BaseException:
            reader.close()
            raise
