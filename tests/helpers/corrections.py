"""A map of a real slide, and its polygons as QuPath gives them back after a person worked on them."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from scipy import ndimage

from tests.helpers.stored_maps import CLASSES
from wsiseg.export.polygons import export_geojson
from wsiseg.geometry import Box
from wsiseg.models.folder import BUNDLES_FOLDER
from wsiseg.models.spec import bundle_hash
from wsiseg.slides import open_slide
from wsiseg.system.files import put_folder
from wsiseg.tissue_map.reader import open_map
from wsiseg.tissue_map.writer import MapWriter

SHIPPED = "tissue-brca-lite"
TISSUE = Box(300, 300, 700, 600)
"""Where the map has classes, in map pixels; few enough to be painted by a slow other way."""


def map_of_slide(folder: Path, slide_path: Path) -> Path:
    """A map of blobs on a real slide, with the shipped model's hash, and `map.geojson` beside it."""
    with open_slide(slide_path) as slide:
        grid, slide_hash, size = slide.grid(0.5), slide.quick_hash(), slide.size
    fields = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((3, *TISSUE.size.shape)), (0, 28, 28))
    classes = np.zeros(grid.size.shape, np.uint8)
    classes[TISSUE.slices()] = fields.argmax(axis=0) + 1
    path = folder / "map.zarr"
    store = folder / ".new" / path.name
    writer = MapWriter(store, CLASSES, grid, 2048, probabilities=False)
    for y in range(0, grid.size.height, 2048):
        for x in range(0, grid.size.width, 2048):
            box = Box(x, y, 2048, 2048).intersect(Box.from_size(grid.size))
            writer.write(box, classes[box.slices()], np.zeros((0, *box.size.shape), np.uint8))
    list(writer.write_levels())
    writer.write_metadata(
        {
            "slide": {"name": slide_path.name, "quick_hash": slide_hash, "width": size.width, "height": size.height},
            "model": {"name": SHIPPED, "hash": bundle_hash(BUNDLES_FOLDER / SHIPPED), "mpp": 0.5},
            "parameters": {"gate_mode": "patches", "patch_px": 96, "mpp": None, "reader": None, "series": None},
            "software": {"wsiseg": "0.2.0"},
            "areas": [{"name": n, "area_mm2": 0.1, "share": 1 / 3, "mean_probability": 0.5} for n in CLASSES.names],
            "tissue_mm2": 0.3,
            "unread_mm2": 0.0,
        }
    )
    put_folder(store, path)
    shutil.rmtree(store.parent)
    export_geojson(open_map(path), folder / "map.geojson")
    return path


def regions(folder: Path) -> list[dict[str, Any]]:
    """The features of `map.geojson`, the largest first."""
    features: list[dict[str, Any]] = json.loads((folder / "map.geojson").read_text())["features"]
    return sorted(features, key=lambda feature: -area_of(feature).area)


def area_of(feature: dict[str, Any]) -> Any:
    return shapely.geometry.shape(feature["geometry"])


def value_of(feature: dict[str, Any]) -> int:
    return CLASSES.names.index(feature["properties"]["classification"]["name"]) + 1


def drawn(geometry: Any, class_name: str | None = None, **properties: Any) -> dict[str, Any]:
    """A feature as QuPath writes one that a person drew."""
    shape = geometry if isinstance(geometry, dict) else shapely.geometry.mapping(geometry)
    found: dict[str, Any] = {"objectType": "annotation", **properties}
    if class_name is not None:
        found["classification"] = {"name": class_name, "color": [200, 0, 0]}
    return {"type": "Feature", "id": str(uuid.uuid4()), "geometry": json.loads(json.dumps(shape)), "properties": found}


def exported(path: Path, features: list[dict[str, Any]], form: str = "0.7") -> Path:
    """A file as QuPath exports it: our top-level member is gone, and older versions spell some things otherwise."""
    tree: Any = {"type": "FeatureCollection", "features": json.loads(json.dumps(features))}
    if form == "0.4":
        tree = tree["features"]
        for feature in tree:
            properties = feature["properties"]
            properties["measurements"] = [{"name": "Area", "value": 1.5}]
            if "classification" in properties:
                properties["classification"] = {"name": properties["classification"]["name"], "colorRGB": -3670016}
    if form == "one":
        assert len(features) == 1
        tree = tree["features"][0]
    path.write_text(json.dumps(tree))
    return path
