"""Polygons for QuPath, a picture and a table of areas, from a tissue map."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsiseg.export.drawn_polygons import DrawnClass, DrawnPolygons, Simplification
from wsiseg.export.legend import with_legend
from wsiseg.export.picture import draw, require_same_slide
from wsiseg.export.polygon_facts import class_areas, facts_of_map
from wsiseg.export.vector_options import MAX_MEMORY, VectorOptions
from wsiseg.geojson.measures import Measures, measure_classes, measure_regions
from wsiseg.geojson.write import SUFFIXES, Identity, Written, prepare_regions, write_regions
from wsiseg.geojson.write_outlines import write_outlines
from wsiseg.geometry import Mpp
from wsiseg.polygons.class_map import Known
from wsiseg.polygons.drawing import VectorSummary
from wsiseg.polygons.frame import Frame
from wsiseg.polygons.levels import fitting_level
from wsiseg.polygons.outlines.reader import bands, trace_outlines
from wsiseg.polygons.simplify import exact_polygons, simplified_polygons
from wsiseg.slides.base import SlideReader
from wsiseg.system.files import check_file, whole_file
from wsiseg.system.json_values import JsonObject
from wsiseg.tissue_map.areas import write_areas_csv
from wsiseg.tissue_map.checks import require_areas
from wsiseg.tissue_map.reader import TissueMap

__all__ = ["VectorOptions", "export_csv", "export_geojson", "export_png", "map_polygons", "require_same_slide"]

UM_PER_INCH, MOST_DPI = 25400, 1e8
"""PNG counts pixels a metre in 32 bits."""


def export_geojson(
    tissue_map: TissueMap, path: str | Path, options: VectorOptions | None = None, *, overwrite: bool = False
) -> DrawnPolygons:
    """Write a map's polygons for QuPath.

    Args:
        tissue_map: open for reading.
        path: `.geojson` or `.geojson.gz`.
        options: exact or simplified, and how.
        overwrite: replace existing output.

    Returns:
        What was written, and what simplification did.
    """
    options = options or VectorOptions()
    path = Path(path)
    check_file(path, SUFFIXES, overwrite)
    return (_export_exact if options.exact else _export_simplified)(tissue_map, path, options, overwrite)


def _identity(tissue_map: TissueMap) -> Identity:
    return Identity(tissue_map.metadata["slide"]["quick_hash"], tissue_map.metadata["model"]["hash"])


def _export_exact(tissue_map: TissueMap, path: Path, options: VectorOptions, overwrite: bool) -> DrawnPolygons:
    """One MultiPolygon for each class, streamed."""
    classes, grid = tissue_map.classes, tissue_map.grid
    frame = Frame.of_map(tissue_map.metadata["slide"], grid)
    source = Known(tissue_map, len(classes), part=frame.pixels)
    measures = measure_classes(tissue_map) if tissue_map.has_probabilities else []
    with trace_outlines(source, len(classes), folder=path.parent) as outlines:
        areas_px = frame.areas_px(source, outlines.area_px)
        um2 = {index: float(areas_px[index]) * grid.mpp.pixel_area_um2 for index in range(1, len(classes) + 1)}
        rows = class_areas(classes.names, list(um2.values()), um2, [])
        written = write_outlines(
            path, outlines, classes, grid, identity=_identity(tissue_map), frame=frame, areas_px=areas_px,
            facts=facts_of_map(tissue_map, rows, None, qupath_names=options.qupath_names), measures=measures,
            overwrite=overwrite,
        )  # fmt: skip
    return _drawn(rows, written)


def _export_simplified(tissue_map: TissueMap, path: Path, options: VectorOptions, overwrite: bool) -> DrawnPolygons:
    """Many polygons for each class, simplified together."""
    classes = tissue_map.classes
    found = _simplify(tissue_map, options)
    summary, done = found.summary, found.done
    prepared = prepare_regions(found.regions, classes, tissue_map.grid)
    rows = class_areas(classes.names, summary.map_um2, prepared.area_um2, summary.class_min_area_um2)
    measures: list[Measures | None] = []
    if tissue_map.has_probabilities:
        measures = measure_regions(tissue_map, prepared.regions, prepared.classes)
    written = write_regions(
        path, prepared, classes, identity=_identity(tissue_map), measures=measures,
        facts=facts_of_map(tissue_map, rows, done, qupath_names=options.qupath_names), overwrite=overwrite,
    )  # fmt: skip
    return _drawn(rows, written, found)


def _drawn(rows: list[DrawnClass], written: Written, simplified: _Simplified | None = None) -> DrawnPolygons:
    """What a file holds, with what became of polygons before they were written."""
    before = (0, 0) if simplified is None else (simplified.summary.repaired, simplified.summary.dropped)
    return DrawnPolygons(
        classes=rows,
        annotations=written.annotations,
        vertices=written.vertices,
        repaired=before[0] + written.repaired,
        dropped=before[1] + written.dropped,
        simplification=None if simplified is None else simplified.done,
    )


@dataclass(frozen=True, slots=True)
class MapPolygons:
    """Polygons of a map.

    Attributes:
        regions: in map pixels, by class index; exact ones are a MultiPolygon a class.
        summary: what simplification did, as plain JSON; empty for exact ones.
    """

    regions: dict[int, list[Any]]
    summary: JsonObject


def map_polygons(tissue_map: TissueMap, options: VectorOptions) -> MapPolygons:
    """Polygons of all classes, exact or simplified."""
    if not options.exact:
        simplified = _simplify(tissue_map, options)
        return MapPolygons(dict(simplified.regions), simplified.to_json())
    frame = Frame.of_map(tissue_map.metadata["slide"], tissue_map.grid)
    exact = exact_polygons(Known(tissue_map, len(tissue_map.classes), part=frame.pixels), tissue_map.classes)
    bounded = {index: shapely.transform(region, frame.bound) for index, region in exact.items()}
    return MapPolygons({index: [region] for index, region in bounded.items() if not region.is_empty}, {})


@dataclass(frozen=True, slots=True)
class _Simplified:
    """Simplified polygons in map pixels by class index, and what was done to reach them."""

    regions: dict[int, list[shapely.Polygon]]
    summary: VectorSummary
    done: Simplification

    def to_json(self) -> JsonObject:
        """What was done, plain JSON values."""
        found = {**asdict(self.summary), **asdict(self.done)}
        del found["polygons_um2"]  # the polygons are there to be measured
        return found


def _simplify(tissue_map: TissueMap, options: VectorOptions) -> _Simplified:
    """Simplified polygons from the finest level that memory allows."""
    max_memory = MAX_MEMORY if options.max_memory is None else options.max_memory
    level = fitting_level(tissue_map, max_memory)
    area, tolerance = options.min_area_um2, options.tolerance_um
    frame = Frame.of_map(tissue_map.metadata["slide"], tissue_map.grid, level.factor)
    map_px = None
    if level.level:
        # Nothing finer than a pixel is there any more; what was asked for has to be said as it is.
        area = None if area is None else max(area, level.mpp.pixel_area_um2)
        tolerance = None if tolerance is None else max(tolerance, level.mpp.mean)
        map_px = _finest_areas_px(tissue_map) / level.factor**2
    found, summary = simplified_polygons(
        level, tissue_map.classes, level.mpp, tolerance, area, frame=frame, map_px=map_px
    )
    halvings = summary.halvings
    done = Simplification.from_summary(
        summary,
        asked=options.min_area_um2 is not None or options.tolerance_um is not None,
        level=level.level + halvings,
        level_um=level.mpp.times(2**halvings).mean,
        max_memory=max_memory,
    )
    return _Simplified({index: level.to_map_pixels(polygons) for index, polygons in found.items()}, summary, done)


def _finest_areas_px(tissue_map: TissueMap) -> npt.NDArray[np.float64]:
    """(256,) area of each class in map pixels, white as the one behind the last, where polygons come from elsewhere."""
    frame = Frame.of_map(tissue_map.metadata["slide"], tissue_map.grid)
    count = len(tissue_map.classes)
    source = Known(tissue_map, count, count + 1, frame.pixels)
    pixels = np.zeros(256, np.int64)
    for band in bands(source):
        if band.any():
            for index in range(1, count + 2):
                pixels[index] += np.count_nonzero(band == index)
    return frame.areas_px(source, pixels)


def export_png(
    tissue_map: TissueMap,
    path: str | Path,
    slide: SlideReader | None = None,
    *,
    max_px: int = 2048,
    opacity: float = 0.4,
    overwrite: bool = False,
) -> float:
    """Write the classes in colour, upon the slide where it is given, else upon white, with scale bar and legend.

    The file holds its resolution.

    Args:
        tissue_map: open for reading.
        path: the PNG.
        slide: the one that the map was made from; another is refused.
        max_px: longest side of the picture, legend apart; reached wherever the map has as many pixels.
        opacity: of the colours, 0 to 1.
        overwrite: replace existing output.

    Returns:
        Microns per pixel of the picture.
    """
    path = Path(path)
    check_file(path, (".png",), overwrite)
    drawn = draw(tissue_map, slide, max_px=max_px, opacity=opacity)
    _write_png(path, with_legend(tissue_map, drawn), drawn.mpp)
    return drawn.mpp.mean


def export_csv(
    tissue_map: TissueMap, path: str | Path, *, polygons: DrawnPolygons | None = None, overwrite: bool = False
) -> None:
    """Write a map's areas as a table of one row a class; see `wsiseg.tissue_map.areas.write_areas_csv`.

    Args:
        tissue_map: open for reading.
        path: the CSV.
        polygons: what `export_geojson` returned; the table then holds the areas of these polygons.
        overwrite: replace existing output.
    """
    path = Path(path)
    check_file(path, (".csv",), overwrite)
    require_areas(tissue_map.path, tissue_map.metadata)
    with whole_file(path) as temporary:
        drawn = None
        if polygons is not None:
            drawn = {index: row.polygons_um2 / 1e6 for index, row in enumerate(polygons.classes, start=1)}
        write_areas_csv(temporary, tissue_map.metadata, drawn)


def _write_png(path: Path, image: npt.NDArray[np.uint8], mpp: Mpp) -> None:
    """Write a picture with its resolution, in dots per inch."""
    from PIL import Image  # noqa: PLC0415  (only pictures need it)

    with whole_file(path) as temporary:
        dpi = (UM_PER_INCH / mpp.x, UM_PER_INCH / mpp.y)
        told = {"dpi": dpi} if all(1 <= value <= MOST_DPI for value in dpi) else {}
        Image.fromarray(image).save(temporary, format="PNG", optimize=True, **told)
