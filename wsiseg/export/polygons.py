"""Polygons for QuPath, a picture and a table of areas, from a tissue map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsiseg.export.legend import with_legend
from wsiseg.export.picture import draw, require_same_slide
from wsiseg.export.polygon_facts import class_areas, facts_of_map
from wsiseg.export.vector_options import MAX_MEMORY, VectorOptions
from wsiseg.geojson.measures import Measures, measure_classes, measure_regions
from wsiseg.geojson.write import SUFFIXES, Identity, prepare_regions, write_regions
from wsiseg.geojson.write_outlines import write_outlines
from wsiseg.geometry import Mpp
from wsiseg.polygons.class_map import Known
from wsiseg.polygons.drawing import REGIONS_AT_MOST
from wsiseg.polygons.frame import Frame
from wsiseg.polygons.levels import fitting_level
from wsiseg.polygons.outlines.reader import bands, trace_outlines
from wsiseg.polygons.simplify import exact_polygons, simplified_polygons
from wsiseg.slides.base import SlideReader
from wsiseg.system.files import check_file, whole_file
from wsiseg.tissue_map.areas import write_areas_csv
from wsiseg.tissue_map.checks import require_areas
from wsiseg.tissue_map.reader import TissueMap

__all__ = ["VectorOptions", "export_csv", "export_geojson", "export_png", "map_polygons", "require_same_slide"]

UM_PER_INCH, MOST_DPI = 25400, 1e8
"""PNG counts pixels a metre in 32 bits."""


def export_geojson(
    tissue_map: TissueMap, path: str | Path, options: VectorOptions | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write a map's polygons for QuPath.

    Args:
        tissue_map: open for reading.
        path: `.geojson` or `.geojson.gz`.
        options: exact or simplified, and how.
        overwrite: replace existing output.

    Returns:
        What was written (`exact`, `annotations`, `vertices`, `repaired`, `dropped`, and for each class in `classes` its
        area in the map and in the polygons, in um2, their difference as a share, and whether that is within
        `AREA_CHANGE`), and for simplified polygons also what simplification did: the fields of `VectorSummary`, whose
        `dropped` and `repaired` include those of writing; whether minimum area and tolerance were `asked` for; the
        pyramid's `level` that was simplified (0 unless the map has too many corners for `max_memory`, or too many
        regions, for which it was coarsened by `halvings` levels of these), and the side of its pixels, `level_um`.
    """
    options = options or VectorOptions()
    path = Path(path)
    check_file(path, SUFFIXES, overwrite)
    return (_export_exact if options.exact else _export_simplified)(tissue_map, path, options, overwrite)


def _identity(tissue_map: TissueMap) -> Identity:
    return Identity(tissue_map.metadata["slide"]["quick_hash"], tissue_map.metadata["model"]["hash"])


def _export_exact(tissue_map: TissueMap, path: Path, options: VectorOptions, overwrite: bool) -> dict[str, Any]:
    """One MultiPolygon for each class, streamed."""
    classes, grid = tissue_map.classes, tissue_map.grid
    frame = Frame.of_map(tissue_map.metadata["slide"], grid)
    source = Known(tissue_map, len(classes), part=frame.pixels)
    measures = measure_classes(tissue_map) if tissue_map.has_probabilities else []
    with trace_outlines(source, len(classes), folder=path.parent) as outlines:
        areas_px = frame.areas_px(source, outlines.area_px)
        um2 = {index: float(areas_px[index]) * grid.mpp.pixel_area_um2 for index in range(1, len(classes) + 1)}
        done: dict[str, Any] = {"exact": True, "classes": class_areas(classes.names, list(um2.values()), um2, [])}
        written = write_outlines(
            path, outlines, classes, grid, identity=_identity(tissue_map), frame=frame, areas_px=areas_px,
            facts=facts_of_map(tissue_map, done, qupath_names=options.qupath_names), measures=measures,
            overwrite=overwrite,
        )  # fmt: skip
    counts = {"annotations": written.annotations, "vertices": written.vertices}
    return {**done, **counts, "repaired": written.repaired, "dropped": written.dropped}


def _export_simplified(tissue_map: TissueMap, path: Path, options: VectorOptions, overwrite: bool) -> dict[str, Any]:
    """Many polygons for each class, simplified together."""
    classes = tissue_map.classes
    regions, done = _simplify(tissue_map, options)
    prepared = prepare_regions(regions, classes, tissue_map.grid)
    done = {"exact": False, **done}
    done["classes"] = class_areas(classes.names, done.pop("map_um2"), prepared.area_um2, done.pop("class_min_area_um2"))
    measures: list[Measures | None] = []
    if tissue_map.has_probabilities:
        measures = measure_regions(tissue_map, prepared.regions, prepared.classes)
    written = write_regions(
        path, prepared, classes, identity=_identity(tissue_map), measures=measures,
        facts=facts_of_map(tissue_map, done, qupath_names=options.qupath_names), overwrite=overwrite,
    )  # fmt: skip
    return {
        **done,
        "annotations": written.annotations,
        "vertices": written.vertices,
        "repaired": done["repaired"] + written.repaired,
        "dropped": done["dropped"] + written.dropped,
    }


def map_polygons(tissue_map: TissueMap, options: VectorOptions) -> tuple[dict[int, list[Any]], dict[str, Any]]:
    """Polygons in map pixels by class index, and what simplification did; exact ones are a MultiPolygon a class."""
    if not options.exact:
        simplified, summary = _simplify(tissue_map, options)
        return dict(simplified), summary
    frame = Frame.of_map(tissue_map.metadata["slide"], tissue_map.grid)
    exact = exact_polygons(Known(tissue_map, len(tissue_map.classes), part=frame.pixels), tissue_map.classes)
    bounded = {index: shapely.transform(region, frame.bound) for index, region in exact.items()}
    return {index: [region] for index, region in bounded.items() if not region.is_empty}, {}


def _simplify(tissue_map: TissueMap, options: VectorOptions) -> tuple[dict[int, list[shapely.Polygon]], dict[str, Any]]:
    """Simplified polygons in map pixels, from the finest level that memory allows, and what was done to reach them."""
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
    done = asdict(summary)
    del done["polygons_um2"]  # of what is written it is told class by class
    done["asked"] = options.min_area_um2 is not None or options.tolerance_um is not None
    halvings = summary.halvings
    done |= {"level": level.level + halvings, "level_um": level.mpp.times(2**halvings).mean, "max_memory": max_memory}
    return {index: level.to_map_pixels(polygons) for index, polygons in found.items()}, done


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
    tissue_map: TissueMap, path: str | Path, *, polygons: Mapping[str, Any] | None = None, overwrite: bool = False
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
            drawn = {index: row["polygons_um2"] / 1e6 for index, row in enumerate(polygons["classes"], start=1)}
        write_areas_csv(temporary, tissue_map.metadata, drawn)


def _write_png(path: Path, image: npt.NDArray[np.uint8], mpp: Mpp) -> None:
    """Write a picture with its resolution, in dots per inch."""
    from PIL import Image  # noqa: PLC0415  (only pictures need it)

    with whole_file(path) as temporary:
        dpi = (UM_PER_INCH / mpp.x, UM_PER_INCH / mpp.y)
        told: dict[str, Any] = {"dpi": dpi} if all(1 <= value <= MOST_DPI for value in dpi) else {}
        Image.fromarray(image).save(temporary, format="PNG", optimize=True, **told)


def coarser_note(vectors: Mapping[str, Any]) -> str | None:
    """A note on polygons (as `export_geojson` returned) that were made from a coarser level; None for others."""
    if not vectors.get("level"):
        return None
    if vectors.get("halvings"):
        return (
            f"polygons are made from a coarser level ({vectors['level_um']:.3g} um/px) since the map has more than "
            f"{REGIONS_AT_MOST:,} regions, as noise has; they show nothing finer, and `wsiseg export --exact` keeps "
            "every pixel"
        )
    return (
        f"polygons are made from a coarser level ({vectors['level_um']:.3g} um/px) since the map has too many corners "
        f"for {vectors['max_memory'] / 2**30:.3g} GiB; a larger --max-memory makes them finer, and "
        "`wsiseg export --exact` keeps every pixel"
    )
