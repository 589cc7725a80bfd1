"""Pixel-wise tissue segmentation of whole-slide images, learned from patch labels alone.

What the command line calls, from Python:

    with wsiseg.open_slide("slide.svs") as slide:  # closed at the end of the block
        print(slide.size, slide.mpp)
    model = wsiseg.load_model("tissue-brca-lite")
    result = wsiseg.predict("slide.svs", "map.zarr", model)
    for done in wsiseg.predict_many(["a.svs", "b.svs"], "maps", model):
        print(done.slide, done.error)
    wsiseg.train("my-patches", "my-model")
    figures = wsiseg.evaluate(model, "patches")  # of its test split

A map, and what is made of it:

    tissue = wsiseg.open_map("map.zarr")
    tissue.class_map()  # a lazy dask array; 0 is not tissue or not read, 255 white
    tissue.areas  # a table; tissue.areas["Stroma"].area_mm2, tissue.areas.to_pandas()
    tissue.class_map_at(wsiseg.Box(4000, 3000, 500, 500))  # in level-0 pixels of the slide
    tissue.overlay()  # a picture, (height, width, 3)
    tissue.to_xarray()  # a Dataset in um
    tissue.polygons()  # a GeoDataFrame in level-0 pixels
    tissue.to_spatialdata()
    wsiseg.export_geojson(tissue, "map.geojson")  # for QuPath
    wsiseg.export_png(tissue, "overlay.png")
    wsiseg.export_csv(tissue, "areas.csv")
    wsiseg.export_ome_tiff(tissue, "map.ome.tif")  # QuPath, Bio-Formats, OMERO, Digital Slide Archive
    wsiseg.export_ome_zarr_v2(tissue, "map-0.4.zarr")  # readers of OME-Zarr 0.4

Bad input raises a child of `WsisegError` that says what to do. Each name is imported when it is first used, so that
importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsiseg.classes import ClassTable
    from wsiseg.errors import WsisegError
    from wsiseg.evaluation.run import EvaluateOptions, evaluate
    from wsiseg.export.ome_tiff import export_ome_tiff
    from wsiseg.export.ome_zarr_v2 import export_ome_zarr_v2
    from wsiseg.export.opened_map import TissueMap, open_map
    from wsiseg.export.polygons import VectorOptions, export_csv, export_geojson, export_png
    from wsiseg.geometry import Box
    from wsiseg.models.bundle import load_model
    from wsiseg.prediction.many import predict_many
    from wsiseg.prediction.run import PredictOptions, predict
    from wsiseg.slides import open_slide
    from wsiseg.training.run import train

    __version__: str

__all__ = [
    "Box",
    "ClassTable",
    "EvaluateOptions",
    "PredictOptions",
    "TissueMap",
    "VectorOptions",
    "WsisegError",
    "__version__",
    "evaluate",
    "export_csv",
    "export_geojson",
    "export_ome_tiff",
    "export_ome_zarr_v2",
    "export_png",
    "load_model",
    "open_map",
    "open_slide",
    "predict",
    "predict_many",
    "train",
]

_HOME = {
    "Box": "wsiseg.geometry",
    "ClassTable": "wsiseg.classes",
    "EvaluateOptions": "wsiseg.evaluation.run",
    "PredictOptions": "wsiseg.prediction.run",
    "TissueMap": "wsiseg.export.opened_map",
    "VectorOptions": "wsiseg.export.polygons",
    "WsisegError": "wsiseg.errors",
    "evaluate": "wsiseg.evaluation.run",
    "export_csv": "wsiseg.export.polygons",
    "export_geojson": "wsiseg.export.polygons",
    "export_ome_tiff": "wsiseg.export.ome_tiff",
    "export_ome_zarr_v2": "wsiseg.export.ome_zarr_v2",
    "export_png": "wsiseg.export.polygons",
    "load_model": "wsiseg.models.bundle",
    "open_map": "wsiseg.export.opened_map",
    "open_slide": "wsiseg.slides",
    "predict": "wsiseg.prediction.run",
    "predict_many": "wsiseg.prediction.many",
    "train": "wsiseg.training.run",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  (it takes as long as all the rest)

        return version("wsiseg")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
