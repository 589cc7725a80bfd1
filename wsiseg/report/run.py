"""The call `report`: maps in, a page and tables out. One map after the other, so that memory is that of one."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsiseg.datasets.patients import NOBODY, Patients, read_patients
from wsiseg.errors import OptionError
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.confusion import ErrorMatrix, evaluation_of_shipped, read_evaluation
from wsiseg.report.endpoints import Measured
from wsiseg.report.measure import MeasureOptions, measure
from wsiseg.report.methods import methods
from wsiseg.report.page import Page, save_page
from wsiseg.report.picture import save_picture
from wsiseg.report.quality import UNSURE, map_flags, slide_flags
from wsiseg.report.roles import parse_roles, roles_of
from wsiseg.report.slide_report import ModelName, SlideReport, cohort
from wsiseg.report.slides import check_places, regions_of, slide_of
from wsiseg.report.tables import long, save_csv, save_parquet, wide, wide_names
from wsiseg.system.extras import require_extra
from wsiseg.system.files import check_file, whole_file
from wsiseg.system.memory import trim_memory
from wsiseg.system.printable import printable
from wsiseg.tissue_map.distance import Far
from wsiseg.tissue_map.reader import TissueMap, open_map

MOST_LARGE = 20
"""Slides up to which pictures are large."""

PICTURE_PX, SMALL_PICTURE_PX = 1000, 560

SUFFIXES: dict[str, tuple[str, ...]] = {
    "page": (".html", ".htm"), "csv": (".csv",), "parquet": (".parquet",), "long": (".csv", ".parquet"),
}  # fmt: skip


OWN_COLUMNS = ("area_mm2", "flag_", "share_")
"""What names of the tables' own columns begin with."""


@dataclass(frozen=True, slots=True)
class ReportOutputs:
    """What is written.

    Attributes:
        page: the HTML.
        csv: a row a slide, None for none.
        parquet: the same.
        long: a row a figure, .csv or .parquet by its name.
    """

    page: Path
    csv: Path | None = None
    parquet: Path | None = None
    long: Path | None = None

    def named(self) -> Iterator[tuple[str, Path]]:
        """Those that are to be written."""
        for name in SUFFIXES:
            path = getattr(self, name)
            if path is not None:
                yield name, path

    def check(self, overwrite: bool) -> None:
        """Refuse what could not be written, before any work is done."""
        paths = [path.absolute() for _, path in self.named()]
        if len(set(paths)) < len(paths):
            raise OptionError("two outputs have the same name; give each its own")
        for name, path in self.named():
            check_file(path, SUFFIXES[name], overwrite)


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What goes into a report besides the maps.

    Attributes:
        measure: how endpoints are measured.
        roles: ROLE=CLASS each, for classes whose names do not settle it.
        slides: folder of the maps' slides.
        slide: the slide of a single map, a path or an address.
        regions: GeoJSON of the tumour bed, or a folder of one for each slide.
        patients: table of slides and patients.
        evaluation: what `evaluate --json` wrote of the maps' model, or the bundle that it was put into; None takes
            what a model that comes with the program brings with it.
        unsure: a probability below this is of low confidence.
        title: of the page.
    """

    measure: MeasureOptions = field(default_factory=MeasureOptions)
    roles: tuple[str, ...] = ()
    slides: Path | None = None
    slide: str | None = None
    regions: Path | None = None
    patients: Path | None = None
    evaluation: Path | None = None
    unsure: float = UNSURE
    title: str = "Tissue map report"

    def __post_init__(self) -> None:
        if not 0 < self.unsure < 1:
            raise OptionError(f"a low confidence is below a probability of 0 to 1, got {self.unsure:g}")


@dataclass(frozen=True, eq=False)
class Report:
    """What was found.

    Attributes:
        slides: one each map.
        cohort: over patients; see `wsiseg.report.slide_report.cohort`.
        notes: on the whole, one sentence each.
    """

    slides: list[SlideReport]
    cohort: list[tuple[Measured, int, int, float, float]]
    notes: list[str]


def report(
    maps: Sequence[str | Path],
    outputs: ReportOutputs,
    options: ReportOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Measure maps and write the report.

    Args:
        maps: tissue maps.
        outputs: what is written; all of it or nothing.
        options: see `ReportOptions`.
        overwrite: replace files that are there.
        progress: told the maps that are done, all maps, and the name of the one that comes.

    Raises:
        OptionError: an option that does not fit, or a class whose role is in doubt.
        SlideError: a map is missing or damaged.
        OutputError: a file exists or cannot be written.
        MissingExtraError: a library is not installed.
    """
    options = options or ReportOptions()
    require_extra("report", "a report", "jinja2", "matplotlib")
    if outputs.parquet is not None or (outputs.long is not None and outputs.long.suffix.lower() == ".parquet"):
        require_extra("report", "Parquet", "pyarrow")
    outputs.check(overwrite)
    check_places(options.slides, options.regions)
    work = _Work.begin([Path(path) for path in maps], options)
    with tempfile.TemporaryDirectory(prefix="wsiseg-report-") as folder:
        slides = []
        for number, path in enumerate(work.paths):
            if progress is not None:
                progress(number, len(work.paths), path.name)
            slides.append(work.slide(path, Path(folder, str(number))))
            trim_memory()
        found = Report(slides, cohort(slides, options.measure.resamples, options.measure.seed), work.notes(slides))
        _write(found, work, outputs)
    return found


@dataclass(frozen=True, eq=False)
class _Work:
    """What is the same for all maps."""

    paths: list[Path]
    options: ReportOptions
    roles: dict[str, str]
    patients: Patients
    matrix: ErrorMatrix | None

    @classmethod
    def begin(cls, paths: list[Path], options: ReportOptions) -> _Work:
        """Open each map once, so that what is wrong is said before any work is done."""
        if not paths:
            raise OptionError("nothing to report; name at least one tissue map")
        if options.slide is not None and (len(paths) > 1 or options.slides is not None):
            raise OptionError(
                "--slide is for a single map, without --slides; give the folder of all slides by --slides"
            )
        if options.regions is not None and len(paths) > 1 and not options.regions.is_dir():
            raise OptionError("--regions of several maps is a folder with NAME.geojson for each slide NAME")
        same = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
        if same:
            raise OptionError(f"{same[0].name} was given twice; name each map once")
        stated = parse_roles(options.roles)
        names: set[str] = set()
        models = set()
        for path in paths:
            source = open_map(path)
            roles_of(source.classes, stated)
            names |= set(source.classes.names)
            models.add(source.metadata["model"]["hash"])
        unknown = [name for name in stated if name not in names]
        if unknown:
            raise OptionError(
                f"--role names the class {printable(unknown[0], 60)!r}, which no map has; the classes are "
                f"{', '.join(printable(name, 40) for name in sorted(names))}"
            )
        given = options.evaluation
        matrix = evaluation_of_shipped(models) if given is None else read_evaluation(given)
        if given is not None and matrix is not None and matrix.model_hash not in models:
            raise OptionError(
                f"{matrix.file} is the evaluation of another model ({matrix.model_hash[:12]}…) than made these maps; "
                "evaluate the maps' own model"
            )
        patients = NOBODY if options.patients is None else read_patients(options.patients, wide_names(), OWN_COLUMNS)
        return cls(paths, options, stated, patients, matrix)

    def slide(self, path: Path, picture: Path) -> SlideReport:
        """One map's part of the report."""
        options = self.options
        source = open_map(path)
        roles = roles_of(source.classes, self.roles)
        coarse = CoarseMap.of(source, options.measure.cell_um)
        model = ModelName(str(source.metadata["model"].get("name", "not named")), source.metadata["model"]["hash"])
        matrix, notes = self._matrix_of(source, model)
        bed = regions_of(source, options.regions)
        if options.regions is not None and bed is None:
            notes.append("no areas of the tumour bed were found for this slide")
        measures = measure(coarse, roles, options.measure, bed, matrix)
        name = str(source.metadata["slide"]["name"])
        patient = self.patients.of([name, Path(name).stem, path.stem])
        if patient is None and options.patients is not None:
            notes.append("the table of patients does not name this slide; it counts as a patient of its own")
        with slide_of(source, options.slides, options.slide) as (slide, why):
            flags = (*map_flags(coarse, options.unsure), *slide_flags(slide, why))
            file = save_picture(coarse, measures, slide, picture, self._picture_px)
        real = float("nan") if measures.bulk is None else measures.bulk.real_outline
        every = [one for first in measures.counted for one in (first, *measures.variants.get(first.name, []))]
        said = source.metadata.get("notes")
        far = Far.from_metadata(source.metadata)
        if far is not None and far.warning is not None:
            notes.append(far.warning)
        notes += [printable(note, 400) for note in said if isinstance(note, str)] if isinstance(said, list) else []
        return SlideReport(
            slide=name, patient=name if patient is None else patient[0],
            further=("",) * len(self.patients.columns) if patient is None else patient[1],
            map_name=path.name, quick_hash=source.metadata["slide"]["quick_hash"], model=model, roles=roles,
            areas=_areas(source), colors={c.name: f"#{c.hex_color}" for c in source.classes}, measures=tuple(every),
            zone_mm2={str(zone): area for zone, area in measures.zone_mm2.items()}, real_outline=real,
            cell_um=measures.cell_um, area_change=measures.worst_area_change, flags=flags,
            notes=tuple(notes), picture=file, has_slide=slide is not None,
        )  # fmt: skip

    @property
    def _picture_px(self) -> int:
        return PICTURE_PX if len(self.paths) <= MOST_LARGE else SMALL_PICTURE_PX

    def _matrix_of(self, source: TissueMap, model: ModelName) -> tuple[ErrorMatrix | None, list[str]]:
        """The evaluation's matrix in the order of a map's classes, or a note why it does not apply."""
        if self.matrix is None:
            return None, []
        if self.matrix.model_hash != model.hash:
            given = self.options.evaluation is not None
            return None, ["the evaluation is of another model; nothing is corrected by it here"] if given else []
        matrix = self.matrix.for_classes(source.classes.names)
        return matrix, [] if matrix else ["the evaluation has other classes; nothing is corrected by it here"]

    def notes(self, slides: Sequence[SlideReport]) -> list[str]:
        """On the report as a whole."""
        found = []
        if len({slide.model.hash for slide in slides}) > 1:
            found.append("The maps are of several models: their figures are not comparable with one another.")
        twice = [name for name, count in Counter(slide.quick_hash for slide in slides).items() if count > 1]
        if twice:
            found.append(f"{len(twice)} slide{'' if len(twice) == 1 else 's'} stand here with more than one map each.")
        if self.options.measure.bulk.specimen == "biopsy":
            found.append("Biopsies: there is no invasive margin, and the bulk is found with smaller discs.")
        return found


def _areas(source: TissueMap) -> tuple[Measured, ...]:
    """The map's own areas: tissue, white, unread, and each class."""
    table = source.areas
    whole = (("tissue", table.tissue_mm2), ("white", table.white_mm2), ("unread", table.unread_mm2))
    rows = [(f"{name}_mm2", name, float("nan") if area is None else area) for name, area in whole]
    rows += [(f"area_mm2_{row.name}", row.name, row.area_mm2) for row in table]
    return tuple(
        Measured(name, title, area, unit="mm2", method="wsiseg:area/1",
                 reason="the map does not say" if area != area else "")  # noqa: PLR0124
        for name, title, area in rows
    )  # fmt: skip


def _write(found: Report, work: _Work, outputs: ReportOutputs) -> None:
    """All outputs, each under a temporary name until all of them are there."""
    options = work.options
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, wsiseg {version('wsiseg')}"
    text = methods(found.slides, options.measure, work.matrix, patients=options.patients is not None)
    page = Page(
        options.title, found.slides, found.cohort, text, _parameters(options), found.notes, work.patients.columns, made
    )
    with ExitStack() as stack:
        part = {name: stack.enter_context(whole_file(path)) for name, path in outputs.named()}
        rows = wide(found.slides, work.patients.columns)
        if "csv" in part:
            save_csv(part["csv"], rows)
        if "parquet" in part:
            save_parquet(part["parquet"], rows)
        if outputs.long is not None:
            save = save_parquet if outputs.long.suffix.lower() == ".parquet" else save_csv
            save(part["long"], long(found.slides))
        save_page(page, part["page"])


def _parameters(options: ReportOptions) -> list[tuple[str, str]]:
    """All that was chosen, or not."""
    one, bulk = options.measure, options.measure.bulk
    files: list[tuple[str, Any]] = [
        ("regions", options.regions), ("patients", options.patients), ("evaluation", options.evaluation),
    ]  # fmt: skip
    return [
        ("specimen", bulk.specimen),
        ("bulk: disc", f"{bulk.diameter_um:g} um"),
        ("bulk: smallest tumour region", f"{bulk.speck_mm2:g} mm²"),
        ("bulk: smallest part", f"{bulk.least_mm2:g} mm²"),
        ("bulk: buffer", f"{bulk.buffer_um:g} um"),
        ("invasive margin: half of its width", f"{bulk.margin_um:g} um"),
        ("hot spot field: diameter", f"{one.field_um:g} um"),
        ("blocks", f"{one.block_um:g} um"),
        ("resamples", f"{one.resamples}, seed {one.seed}"),
        ("cells", f"at most {one.cell_um:g} um"),
        ("low confidence", f"probability below {options.unsure:g}"),
        ("roles stated", ", ".join(options.roles) or "none"),
        *((name, path.name if path is not None else "none") for name, path in files),
    ]
