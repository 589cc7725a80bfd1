"""A tissue map as what other Python libraries work with: xarray, geopandas or shapely, spatialdata.

None of them is needed for anything else; where one is missing, the error says how to get it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from wsiseg.export.polygons import VectorOptions, map_polygons
from wsiseg.system.extras import require_extra, require_modules
from wsiseg.tissue_map.reader import TissueMap

if TYPE_CHECKING:
    import geopandas
    import xarray
    from spatialdata import SpatialData


@dataclass(frozen=True, slots=True)
class ClassPolygon:
    """A polygon of one class.

    Attributes:
        index: of the class.
        name: of the class.
        geometry: in level-0 pixels of the slide, counted from the corner of its bounds.
        area_mm2: its area.
    """

    index: int
    name: str
    geometry: shapely.Polygon | shapely.MultiPolygon
    area_mm2: float


def to_xarray(tissue_map: TissueMap, level: int = 0) -> xarray.Dataset:
    """A level as a lazy dataset.

    Args:
        tissue_map: open for reading.
        level: of the pyramid.

    Returns:
        `classes` (y, x), and where the level has them `probabilities` (c, y, x), both uint8. `y` and `x` are the
        centres of pixels in um, as the level's own transform says; `c` has the names of the classes. `classes` has
        `flag_values` and `class_names` among its attributes, in the same order; 0 is not tissue or not read, 255 white.

    Raises:
        MissingExtraError: xarray is not installed.
        OptionError: there is no such level.
    """
    require_extra("python", "a dataset", "xarray")
    xr = import_module("xarray")
    placed, size = tissue_map.transform(level), tissue_map.grid.coarsen(2**level)
    axes = {
        name: (name, np.arange(length) * scale + start, {"units": "micrometer"})
        for name, length, scale, start in zip("yx", size.shape, placed.scale, placed.translation, strict=True)
    }
    names = list(tissue_map.classes.names)
    flags = {"flag_values": list(range(1, len(names) + 1)), "class_names": names}
    layers: dict[str, Any] = {"classes": (("y", "x"), tissue_map.class_map(level), flags)}
    if level in tissue_map.levels_with_probabilities:
        layers["probabilities"] = (("c", "y", "x"), tissue_map.probabilities(level), {"full_scale": 255})
        axes["c"] = ("c", np.array(names, dtype=object), {})
    slide, model = tissue_map.metadata["slide"], tissue_map.metadata["model"]
    about = {"slide": slide["name"], "model": model.get("name", ""), "level": int(level)}
    dataset: xarray.Dataset = xr.Dataset(layers, coords=axes, attrs=about)
    return dataset


def polygons(
    tissue_map: TissueMap, options: VectorOptions | None = None
) -> geopandas.GeoDataFrame | list[ClassPolygon]:
    """The polygons of all classes in level-0 pixels of the slide, counted from the corner of its bounds.

    Args:
        tissue_map: open for reading.
        options: exact or simplified, and how; see `wsiseg.export.polygons.VectorOptions`.

    Returns:
        Where geopandas is installed a `GeoDataFrame` with `class`, `value`, `area_mm2` and `geometry`, without a CRS;
        `attrs["summary"]` says what simplification did. Else a list of `ClassPolygon`.
    """
    found = map_polygons(tissue_map, options or VectorOptions())
    grid = tissue_map.grid
    px_mm2 = grid.mpp.pixel_area_um2 / (grid.step_x * grid.step_y) / 1e6
    rows = [
        ClassPolygon(c.index, c.name, geometry, float(geometry.area * px_mm2))
        for c in tissue_map.classes
        for geometry in _on_slide(tissue_map, found.regions.get(c.index, []))
    ]
    try:
        gpd: Any = import_module("geopandas")
    except ImportError:
        return rows
    columns = {
        "class": [row.name for row in rows],
        "value": np.array([row.index for row in rows], np.uint8),
        "area_mm2": np.array([row.area_mm2 for row in rows], float),
    }
    frame: geopandas.GeoDataFrame = gpd.GeoDataFrame(columns, geometry=[row.geometry for row in rows], crs=None)
    frame.attrs["summary"] = found.summary
    return frame


def _on_slide(tissue_map: TissueMap, regions: list[Any]) -> list[Any]:
    """Regions in map pixels as such in level-0 pixels, cut off where the slide ends within a map pixel."""
    if not regions:
        return []
    grid, slide = tissue_map.grid, tissue_map.metadata["slide"]
    scaled = shapely.transform(np.array(regions, object), lambda xy: xy * np.array([grid.step_x, grid.step_y]))
    if "width" not in slide or "height" not in slide:
        return list(scaled)
    width, height = slide["width"], slide["height"]
    _, _, right, bottom = shapely.bounds(scaled).T
    beyond = (right > width) | (bottom > height)
    scaled[beyond] = shapely.intersection(scaled[beyond], shapely.box(0, 0, width, height))
    return [region for region in scaled if region.area > 0]


def to_spatialdata(tissue_map: TissueMap, *, with_polygons: bool = True) -> SpatialData:
    """The map as a `SpatialData`, its coordinate system `global` in um from the corner of the slide's bounds.

    Args:
        tissue_map: open for reading.
        with_polygons: add simplified polygons, which takes the time of drawing them.

    Returns:
        `labels["tissue"]` (lazy, all levels), `tables["classes"]` with name and area of each label value,
        `images["probabilities"]` where they are kept, `shapes["polygons"]`.

    Raises:
        MissingExtraError: spatialdata is not installed.
    """
    require_modules("spatialdata", "a SpatialData", "spatialdata")
    sd = import_module("spatialdata")
    models, transformations = import_module("spatialdata.models"), import_module("spatialdata.transformations")

    def scaled(factor_x: float, factor_y: float) -> dict[str, Any]:
        return {"global": transformations.Scale([factor_x, factor_y], axes=("x", "y"))}

    def pyramid(parse: Any, read: Any, which: range, dims: tuple[str, ...], **more: Any) -> Any:
        tree: Any = import_module("xarray").DataTree
        levels = {}
        for index, level in enumerate(which):
            mpp = tissue_map.mpp.times(2**level)
            array = parse(read(level), dims=dims, transformations=scaled(mpp.x, mpp.y), **more)
            # spatialdata counts coordinates in pixels of the finest level, from its corner.
            centres = {axis: (np.arange(array.sizes[axis]) + 0.5) * 2**index for axis in "yx"}
            levels[f"scale{index}"] = array.assign_coords(centres).to_dataset(name="image")
        return tree.from_dict(levels) if len(levels) > 1 else levels["scale0"]["image"]

    elements: dict[str, Any] = {
        "tissue": pyramid(models.Labels2DModel.parse, tissue_map.class_map, range(tissue_map.levels), ("y", "x"))
    }
    if tissue_map.has_probabilities:
        names = list(tissue_map.classes.names)
        elements["probabilities"] = pyramid(
            models.Image2DModel.parse,
            tissue_map.probabilities,
            tissue_map.levels_with_probabilities,
            ("c", "y", "x"),
            c_coords=names,
        )
    elements["classes"] = _class_table(tissue_map, models)
    if with_polygons:
        frame = polygons(tissue_map)
        grid = tissue_map.grid
        across, down = grid.mpp.x / grid.step_x, grid.mpp.y / grid.step_y
        if len(frame):
            elements["polygons"] = models.ShapesModel.parse(frame, transformations=scaled(across, down))
    found: SpatialData = sd.SpatialData.init_from_elements(elements)
    return found


def _class_table(tissue_map: TissueMap, models: Any) -> Any:
    """What each value of the labels means, as spatialdata's table of annotations."""
    anndata, pandas = import_module("anndata"), import_module("pandas")
    indices = [c.index for c in tissue_map.classes]
    names = list(tissue_map.classes.names)
    rows = pandas.DataFrame(
        {"region": pandas.Categorical(["tissue"] * len(indices)), "instance_id": indices, "class": names},
        index=[str(index) for index in indices],
    )
    if "areas" in tissue_map.metadata:
        rows["area_mm2"] = [row.area_mm2 for row in tissue_map.areas]
    table = anndata.AnnData(obs=rows)
    return models.TableModel.parse(table, region="tissue", region_key="region", instance_key="instance_id")
