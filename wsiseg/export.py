"""What is made from a tissue map for others: polygons for QuPath, a picture, a table of areas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from wsiseg.errors import OptionError
from wsiseg.exact_geojson import write_outlines
from wsiseg.geojson import SUFFIXES, Identity, write_geojson
from wsiseg.geometry import Mpp
from wsiseg.levels import fitting_level
from wsiseg.map_checks import require_areas
from wsiseg.map_legend import with_legend
from wsiseg.map_picture import draw, require_same_slide
from wsiseg.outlines import trace_outlines
from wsiseg.outputs import check_file, whole_file
from wsiseg.report import write_areas_csv
from wsiseg.slides.base import SlideReader
from wsiseg.tissue_map import TissueMap
from wsiseg.vectors import MIN_AREA_UM2, exact_polygons, simplified_polygons

__all__ = ["VectorOptions", "export_csv", "export_geojson", "export_png", "map_polygons", "require_same_slide"]

UM_PER_INCH, MOST_DPI = 25400, 1e8
"""PNG counts pixels a metre in 32 bits."""

MAX_MEMORY, LEAST_MEMORY = 1536 * 2**20, 64 * 2**20
"""Bytes that simplified polygons may take, by default and at least."""


@dataclass(frozen=True, slots=True)
class VectorOptions:
    """How polygons are made.

    Attributes:
        exact: every pixel's border, one MultiPolygon a class; the other values do not matter then.
        tolerance_um: about how far simplified borders may move; None fits it to the map's mpp.
        min_area_um2: regions below it join the neighbour that they touch most.
        max_memory: bytes that simplifying may take; None takes `MAX_MEMORY`. A map with more corners is simplified
            from a coarser level of its pyramid. Exact polygons take less in any case.
    """

    exact: bool = False
    tolerance_um: float | None = None
    min_area_um2: float | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("tolerance", self.tolerance_um), ("minimum area", self.min_area_um2)):
            if value is not None and not 0 <= value < float("inf"):
                raise OptionError(f"the {name} must be 0 or more, got {value}")
        if self.max_memory is not None and self.max_memory < LEAST_MEMORY:
            raise OptionError(f"polygons need at least 64M of memory, got {self.max_memory} bytes; give more")


def export_geojson(
    tissue_map: TissueMap, path: str | Path, options: VectorOptions | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write a map's polygons for QuPath.

    Args:
        tissue_map: open for reading.
        path: `.geojson` or `.geojson.gz`.
        options: exact or simplified, and how.
        overwrite: replace what is there.

    Returns:
        What was written (`annotations`, `vertices`, `repaired`, `dropped`), and for simplified polygons also what
        simplification did: the fields of `VectorSummary`, whose `dropped` and `repaired` include those of writing;
        the pyramid's `level` that was simplified (0 unless the map has too many corners for `max_memory`), and the
        side of its pixels, `level_um`.
    """
    options = options or VectorOptions()
    path = Path(path)
    check_file(path, SUFFIXES, overwrite)
    classes, grid = tissue_map.classes, tissue_map.grid
    identity = Identity(tissue_map.metadata["slide"]["quick_hash"], tissue_map.metadata["model"]["hash"])
    summary: dict[str, Any] = {}
    if options.exact:
        with trace_outlines(tissue_map, len(classes), folder=path.parent) as outlines:
            written = write_outlines(path, outlines, classes, grid, identity=identity, overwrite=overwrite)
    else:
        regions, summary = _simplify(tissue_map, options)
        written = write_geojson(path, regions, classes, grid, identity=identity, overwrite=overwrite)
    return {
        **summary,
        "annotations": written.annotations,
        "vertices": written.vertices,
        "repaired": summary.get("repaired", 0) + written.repaired,
        "dropped": summary.get("dropped", 0) + written.dropped,
    }


def map_polygons(tissue_map: TissueMap, options: VectorOptions) -> tuple[dict[int, list[Any]], dict[str, Any]]:
    """Polygons in map pixels by class index, and what simplification did; exact ones are a MultiPolygon a class."""
    if not options.exact:
        simplified, summary = _simplify(tissue_map, options)
        return dict(simplified), summary
    exact = exact_polygons(tissue_map, tissue_map.classes)
    return {index: [region] for index, region in exact.items() if not region.is_empty}, {}


def _simplify(tissue_map: TissueMap, options: VectorOptions) -> tuple[dict[int, list[shapely.Polygon]], dict[str, Any]]:
    """Simplified polygons in map pixels, from the finest level that memory allows, and what was done to reach them."""
    max_memory = MAX_MEMORY if options.max_memory is None else options.max_memory
    level = fitting_level(tissue_map, max_memory)
    area = MIN_AREA_UM2 if options.min_area_um2 is None else options.min_area_um2
    tolerance = options.tolerance_um
    if level.level:
        # Nothing finer than a pixel is there any more; what was asked for has to be said as it is.
        area = max(area, level.mpp.pixel_area_um2)
        tolerance = None if tolerance is None else max(tolerance, level.mpp.mean)
    found, done = simplified_polygons(level, tissue_map.classes, level.mpp, tolerance, area)
    summary = {**asdict(done), "level": level.level, "level_um": level.mpp.mean, "max_memory": max_memory}
    return {index: level.to_map_pixels(polygons) for index, polygons in found.items()}, summary


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
        overwrite: replace what is there.

    Returns:
        Microns per pixel of the picture.
    """
    path = Path(path)
    check_file(path, (".png",), overwrite)
    drawn = draw(tissue_map, slide, max_px=max_px, opacity=opacity)
    _write_png(path, with_legend(tissue_map, drawn), drawn.mpp)
    return drawn.mpp.mean


def export_csv(
    tissue_map: TissueMap,
    path: str | Path,
    *,
    polygons_mm2: Mapping[int, float] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a map's areas as a table of one row a class; see `wsiseg.report.write_areas_csv`."""
    path = Path(path)
    check_file(path, (".csv",), overwrite)
    require_areas(tissue_map.path, tissue_map.metadata)
    with whole_file(path) as temporary:
        write_areas_csv(temporary, tissue_map.metadata, polygons_mm2)


def _write_png(path: Path, image: npt.NDArray[np.uint8], mpp: Mpp) -> None:
    """Write a picture with its resolution, in dots per inch."""
    from PIL import Image  # noqa: PLC0415  (only pictures need it)

    with whole_file(path) as temporary:
        dpi = (UM_PER_INCH / mpp.x, UM_PER_INCH / mpp.y)
        told: dict[str, Any] = {"dpi": dpi} if all(1 <= value <= MOST_DPI for value in dpi) else {}
        Image.fromarray(image).save(temporary, format="PNG", optimize=True, **told)
