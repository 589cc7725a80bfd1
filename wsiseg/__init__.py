"""Pixel-wise tissue segmentation of whole-slide images, learned from patch labels alone.

What the command line calls, from Python:

    slide = wsiseg.open_slide("slide.svs")
    model = wsiseg.load_model("tissue-brca-lite")
    result = wsiseg.predict("slide.svs", "map.zarr", model)
    figures = wsiseg.evaluate(model, "patches")  # of its test split
    tissue = wsiseg.open_map("map.zarr")
    tissue.class_map()  # a lazy dask array

Each is imported when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsiseg.evaluation.run import EvaluateOptions, evaluate
    from wsiseg.models.bundle import load_model
    from wsiseg.prediction import PredictOptions, predict
    from wsiseg.slides import open_slide
    from wsiseg.tissue_map import open_map

__all__ = ["EvaluateOptions", "PredictOptions", "evaluate", "load_model", "open_map", "open_slide", "predict"]

_HOME = {
    "EvaluateOptions": "wsiseg.evaluation.run",
    "evaluate": "wsiseg.evaluation.run",
    "PredictOptions": "wsiseg.prediction",
    "load_model": "wsiseg.models.bundle",
    "open_map": "wsiseg.tissue_map",
    "open_slide": "wsiseg.slides",
    "predict": "wsiseg.prediction",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
