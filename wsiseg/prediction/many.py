"""Many slides, one after the other: the model is loaded once, and the next slide opened while this one ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress, pairwise
from pathlib import Path

from wsiseg.choices import READERS, TISSUE_METHODS, check_choice
from wsiseg.errors import OptionError, OutputError, WsisegError
from wsiseg.export.drawn_polygons import DrawnPolygons
from wsiseg.export.vector_options import VectorOptions
from wsiseg.geometry import MPP_MAX, MPP_MIN
from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.devices import device_names
from wsiseg.models.spec import bundle_hash, read_spec
from wsiseg.models.tissue_model import TissueModel, checked_device
from wsiseg.prediction.batch import KeptMap, SlideResult
from wsiseg.prediction.failure import Failure
from wsiseg.prediction.kept_map import Wanted, difference, other_versions, recorded_damage
from wsiseg.prediction.map_folders import MapFolder, map_folder
from wsiseg.prediction.opener import Opener
from wsiseg.prediction.options import PredictOptions
from wsiseg.prediction.output import Output
from wsiseg.prediction.progress import Progress, ProgressFunction, as_progress
from wsiseg.prediction.run import as_prepared, chosen_runtime, loaded_model, predict_opened
from wsiseg.prediction.slide_list import map_paths, slides_among
from wsiseg.slides import open_slide
from wsiseg.slides.arguments import slides_of
from wsiseg.system.files import folds_case
from wsiseg.system.memory import MemoryPlan
from wsiseg.system.threads import within
from wsiseg.system.versions import of_map, software
from wsiseg.tissue_map.checks import require_areas
from wsiseg.tissue_map.reader import TissueMap

__all__ = ["SlideResult", "map_paths", "predict_many"]


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
    keep_folders: bool = False,
    progress: Progress | ProgressFunction | None = None,
    began: Callable[[str], None] | None = None,
    scratch: str | Path | None = None,
) -> Iterator[SlideResult]:
    """Segment slides into a folder, which is made if it is not there; see `wsiseg.predict`.

    A slide whose map is there already is left out where that was made from this slide, by this model, with these
    parameters, so that the same call goes on with what an interrupted one had begun; a map of anything else is refused,
    for that slide. Missing polygons are drawn from a map that is there. A slide that fails, in whatever way, does not
    keep the others from being predicted.

    Args:
        slides: files or addresses; what is no slide is left out, see `wsiseg.prediction.slide_list.slides_among`.
        folder: gets NAME.zarr and NAME.geojson of each; also one of a bucket, `s3://bucket/maps`.
        model: see `wsiseg.predict`, as for the other arguments.
        options: for all of them.
        polygons: whether they are written.
        vectors: how.
        overwrite: replace maps that are there.
        restart: forget unfinished runs.
        keep_folders: put maps into folders like those of the slides; see `wsiseg.prediction.slide_list.map_paths`.
        progress: told as the work on a slide goes on.
        began: called with each slide whose turn it is.
        scratch: the folder where maps for a bucket are made before they are sent; None takes the user's cache folder.

    Returns:
        The result of each, made when it is asked for: first of what is no slide, then of slides that have a map, then
        of the others, in order.

    Raises:
        WsisegError: where model, options or folder are to blame, and not one slide.
    """
    options = options or PredictOptions()
    refuse_impossible(options)
    return _results(
        slides, map_folder(folder, scratch, options.retry_s), model, options, polygons=polygons, vectors=vectors,
        overwrite=overwrite, restart=restart, keep_folders=keep_folders, tell=as_progress(progress),
        told=began or (lambda _: None),
    )  # fmt: skip


def refuse_impossible(options: PredictOptions) -> None:
    """Refuse options that no slide could be predicted with, once and not slide by slide.

    Raises:
        OptionError: for a reader, a resolution or an amount of memory that cannot be.
        DeviceError: this machine has no such device.
        SlideError, OptionError: a mask of tissue that is not there.
    """
    if options.reader is not None:
        check_choice("a reader", options.reader, READERS)
    if options.mpp is not None and not MPP_MIN <= options.mpp <= MPP_MAX:
        raise OptionError(f"expected {MPP_MIN} to {MPP_MAX} um per pixel (--mpp), got {options.mpp}")
    MemoryPlan.from_limit(options.max_memory, 1)
    for name in device_names(options.device):
        checked_device(name)
    if options.tissue not in TISSUE_METHODS and not Path(options.tissue).is_file():
        raise OptionError(f"expected otsu, none, or a GeoJSON or PNG of the tissue, got {options.tissue}")


def _results(
    slides: Sequence[str | Path],
    folder: MapFolder,
    model: str | Path | TissueModel,
    options: PredictOptions,
    *,
    polygons: bool,
    vectors: VectorOptions | None,
    overwrite: bool,
    restart: bool,
    keep_folders: bool,
    tell: Progress,
    told: Callable[[str], None],
) -> Iterator[SlideResult]:
    """See `predict_many`."""
    names, others = slides_among(slides_of([str(slide) for slide in slides]))
    paths = map_paths(names, folder.root, keep_folders=keep_folders, folds_case=folds_case(folder.root))
    for name, reason in others:
        yield SlideResult(name, None, skipped=reason)
    with made_folder(folder.root):
        pairs = list(zip(names, paths, strict=True))
        kept = [not overwrite and folder.is_whole(path) for _, path in pairs]
        if any(kept):
            keeper = Keeper(wanted_maps(model, options), polygons, vectors, folder)
            for pair in compress(pairs, kept):
                yield keeper.look_at(*pair)
        left = [pair for pair, is_kept in zip(pairs, kept, strict=True) if not is_kept]
        if not left:
            return
        loaded, resolved = loaded_model(model, options)
        following = dict(pairwise(slide for slide, _ in left))
        with Opener(loaded, resolved, tell) as opener:
            for slide, path in left:

                def make(slide: str = slide, path: Path = path) -> SlideResult:
                    told(slide)
                    geojson = path.with_suffix(".geojson") if polygons else None
                    output = Output(path, geojson, vectors, overwrite, restart)
                    with made_folder(path.parent), folder.ready(output) as ready:
                        job = opener.open(slide, str(model), streamed=lambda: opener.ahead(following.get(slide)))
                        with job.slide:
                            found = predict_opened(job, ready).at(folder.shown)
                    return SlideResult(slide, folder.shown(path), found)

                yield whatever_comes(slide, folder.shown(path), make)


def whatever_comes(slide: str, path: Path | str, make: Callable[[], SlideResult]) -> SlideResult:
    """The result of a slide, also where it fails: a night's batch must not end with one of a thousand slides."""
    try:
        return make()
    except WsisegError as error:
        return SlideResult(slide, path, error=_line(error), failure=Failure.of(error))
    except MemoryError as error:
        text = "memory ran out; give a smaller --max-memory, or fewer --workers"
        return SlideResult(slide, path, error=text, failure=Failure.of(error))
    except Exception as error:  # a defect, which is told as one, with its traceback
        text = f"a defect of this program ({type(error).__name__}: {_line(error)}); please report it"
        return SlideResult(slide, path, error=text, defect=error, failure=Failure.of(error))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """A folder that is made if it is not there; of those that were made none stays that is empty at the end."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made a folder: {error.strerror}; choose another name") from error
    try:
        yield
    finally:
        with suppress(OSError):
            for one in made:
                one.rmdir()


def wanted_maps(model: str | Path | TissueModel, options: PredictOptions) -> Wanted:
    """The model, options and versions that a run would use; no network is loaded for that.

    Raises:
        WsisegError: there is no such model, or the options do not go with it.
    """
    if isinstance(model, TissueModel):
        resolved = options.resolved(model)
        changed = as_prepared(options, resolved, model.runtime)
        runtime = model.runtime if changed is None else chosen_runtime(model.spec, changed, str(model.device))
        digest = model.hash
    else:
        spec, device = read_spec(model), device_names(options.device)[0]
        resolved = options.resolved_by(spec, device)
        runtime, digest = chosen_runtime(spec, resolved, device), bundle_hash(model)
    return Wanted(digest, resolved, options, runtime, of_map(software(), runtime.name))


@dataclass
class Keeper:
    """Looks at maps that are there, and draws polygons that are missing."""

    wanted: Wanted
    polygons: bool
    vectors: VectorOptions | None
    folder: MapFolder

    def look_at(self, slide: str, path: Path) -> SlideResult:
        """The result of a slide whose map is there: kept, or failed since it is the map of something else."""
        return whatever_comes(slide, self.folder.shown(path), partial(self._kept, slide, path))

    def _kept(self, slide: str, path: Path) -> SlideResult:
        tissue_map, shown = self.folder.open(path), self.folder.shown(path)
        require_areas(tissue_map.path, tissue_map.metadata)
        asked = self.wanted.asked
        opening = partial(
            open_slide, slide, mpp=asked.mpp, reader=asked.reader, series=asked.series, retry_s=asked.retry_s
        )
        with within(opening, asked.read_timeout_s) as reader:
            changed = within(partial(difference, tissue_map.metadata, reader, self.wanted), asked.read_timeout_s)
            notes = [*reader.notes]
        if changed is not None:
            raise OutputError(f"{shown} exists and {changed}; replace it with --overwrite, or choose another folder")
        if versions := other_versions(tissue_map.metadata, self.wanted):
            notes.append(versions)
        geojson, drawn = path.with_suffix(".geojson"), None
        if self.polygons and not self.folder.has(geojson):
            drawn = self._drawn(tissue_map, geojson)
        elif self.polygons and self.vectors not in (None, VectorOptions()):
            notes.append(
                "its polygons were there already and stay as they are, whatever the options for polygons; remove "
                f"{geojson.name} to have them drawn anew"
            )
        tiles, area_mm2 = recorded_damage(tissue_map.metadata)
        kept = KeptMap(tissue_map.metadata["tissue_mm2"], tiles, area_mm2, drawn, tuple(notes))
        return SlideResult(slide, shown, kept=kept)

    def _drawn(self, tissue_map: TissueMap, geojson: Path) -> DrawnPolygons:
        """Polygons of a map, as the run that made it would have drawn them."""
        memory = MemoryPlan.from_limit(self.wanted.asked.max_memory, 1 + len(tissue_map.classes)).max_memory
        vectors = self.vectors or VectorOptions()
        if vectors.max_memory is None:
            vectors = replace(vectors, max_memory=memory // 8)
        return self.folder.draw(tissue_map, geojson, vectors)
