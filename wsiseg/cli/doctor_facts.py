"""What `wsiseg doctor` tells: facts of the installation and the machine, and a self-test."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from wsiseg.choices import READER_LIBRARIES, RUNTIMES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from wsiseg.system.json_values import JsonObject

Section = Mapping[str, str | int | bool | None]
"""What is told of one subject, by name."""

TILE_PX, TILE_MPP = 448, 0.5
"""Side of the self-test's tile, and its microns per pixel."""

_SAMPLE = Path(__file__).parents[2] / "sample_data" / "CMU-1-Small-Region.svs"
_CORNER = (600, 900)
"""Where in the sample the tile is."""

_EXTRAS = {
    "train": ("lightning", "kornia", "torchmetrics"),
    "openvino": ("openvino",),
    "remote": ("boto3", "obstore", "urllib3"),
    "dicom": ("highdicom",),
    "python": ("geopandas", "pandas", "xarray"),
    "report": ("jinja2", "matplotlib", "pyarrow"),
    "tensorboard": ("tensorboard",),
}


def facts() -> dict[str, Section]:
    """What is there, by subject, plain JSON; no paths and no names of users or machines."""
    from wsiseg.system.control_group import cpu_limit, memory_limit, usable_cpus
    from wsiseg.system.memory import available_bytes, default_max_memory
    from wsiseg.system.versions import openslide_library, software

    readers = {name: find_spec(module) is not None for name, module in READER_LIBRARIES.items()}
    readers["openslide"] = readers["openslide"] and openslide_library() is not None
    return {
        "versions": software(),
        "system": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "processors of the machine": os.cpu_count(),
            "processors this process may use": usable_cpus(),
            "processors its control groups allow": cpu_limit() or "no limit",
        },
        "memory": {
            "this process may take": _size(available_bytes()),
            "free now": _free_memory(),
            "limit of its control groups": _size(memory_limit()) if memory_limit() else "no limit",
            "--max-memory by default": _size(default_max_memory()),
        },
        "disk": {
            "free in this folder": _free_disk(Path()),
            "free for temporary files": _free_disk(Path(tempfile.gettempdir())),
            "this folder can be locked": _locks(Path()),
            "open files allowed": _open_files(),
        },
        "devices": _devices(),
        "runtimes": _runtimes(),
        "readers": readers,
        "extras": {name: all(find_spec(module) for module in modules) for name, modules in _EXTRAS.items()},
    }


@dataclass(frozen=True, slots=True)
class Segmented:
    """What came of segmenting the tile.

    Attributes:
        error: what went wrong, None where nothing did.
        runtime: what computed the networks, where they were computed.
        shares: of the tile, by class.
    """

    error: str | None
    runtime: str | None = None
    shares: Mapping[str, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether all went well."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class SelfTest:
    """A tile, segmented with a model.

    Attributes:
        model: its name.
        tile: what was segmented.
        found: what came of it.
        seconds: that it took.
    """

    model: str
    tile: str
    found: Segmented
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether all went well."""
        return self.found.passed

    def to_json(self) -> JsonObject:
        """Plain JSON."""
        found = self.found
        computed = {}
        if found.shares is not None:
            shares = {f"share of {name}": f"{share:.1%}" for name, share in found.shares.items()}
            computed = {"runtime": found.runtime, **shares}
        return {
            "model": self.model,
            "tile": self.tile,
            "passed": self.passed,
            **({} if found.error is None else {"error": found.error}),
            **computed,
            "seconds": round(self.seconds, 1),
        }


def self_test() -> SelfTest:
    """Segment a tile with the shipped model, in a folder that is removed then."""
    from PIL import Image

    from wsiseg.errors import WsisegError
    from wsiseg.models import DEFAULT_MODEL

    since = time.monotonic()
    pixels, source = _tile()
    with tempfile.TemporaryDirectory(prefix="wsiseg-doctor-", ignore_cleanup_errors=True) as folder:
        try:
            Image.fromarray(pixels).save(Path(folder, "tile.png"))
            found = _segmented(Path(folder))
        except WsisegError as error:
            found = Segmented(without_paths(str(error), folder))
        except Exception as error:  # whatever it is, the report must tell it
            found = Segmented(without_paths(f"{type(error).__name__}: {error}", folder))
    return SelfTest(DEFAULT_MODEL, f"{source}, {TILE_PX} px", found, time.monotonic() - since)


def _segmented(folder: Path) -> Segmented:
    """Areas of the map of a folder's tile, checked against the area of the tile."""
    from wsiseg import open_map, predict
    from wsiseg.prediction.run import PredictOptions

    options = PredictOptions(mpp=TILE_MPP, tissue="none", white=False)
    result = predict(folder / "tile.png", folder / "map.zarr", options=options, geojson=folder / "map.geojson")
    areas = {area.name: area.area_mm2 for area in result.areas}
    whole = (TILE_PX * TILE_MPP / 1000) ** 2
    runtime = open_map(folder / "map.zarr").metadata.get("parameters", {}).get("runtime")
    passed = abs(sum(areas.values()) - whole) < 1e-3 * whole and (folder / "map.geojson").is_file()
    error = None if passed else f"areas of classes sum up to {sum(areas.values()):.4f} mm2, not {whole:.4f}"
    return Segmented(error, runtime, {name: area / whole for name, area in areas.items()})


def _tile() -> tuple[npt.NDArray[np.uint8], str]:
    """A tile (H, W, 3) of the sample slide of a checkout; a drawn one where there is none."""
    from wsiseg.errors import WsisegError

    if _SAMPLE.is_file():
        from wsiseg.geometry import Box
        from wsiseg.slides import open_slide

        try:
            with open_slide(_SAMPLE) as slide:
                return slide.read_level(0, Box(*_CORNER, TILE_PX, TILE_PX)).pixels, "of the sample slide"
        except WsisegError:
            return _drawn_tile(), "drawn, since the sample slide cannot be read"
    return _drawn_tile(), "drawn"


def _drawn_tile() -> npt.NDArray[np.uint8]:
    """Nuclei on stroma in the colours of haematoxylin and eosin, (TILE_PX, TILE_PX, 3), the same every time."""
    import numpy as np
    from scipy import ndimage

    random = np.random.default_rng(0)
    fibres = ndimage.gaussian_filter(random.standard_normal((TILE_PX, TILE_PX)), (2, 9))
    seeds = np.zeros((TILE_PX, TILE_PX), bool)
    seeds[tuple(random.integers(0, TILE_PX, (2, 400)))] = True
    nuclei = ndimage.gaussian_filter((ndimage.distance_transform_edt(~seeds) < 5).astype(float), 1)[..., None]
    stroma = np.array([225, 160, 195]) + 25 * (fibres / fibres.std())[..., None].clip(-2, 2)
    colours = nuclei * np.array([95, 60, 130]) + (1 - nuclei) * stroma
    pixels: npt.NDArray[np.uint8] = colours.clip(0, 255).astype(np.uint8)
    return pixels


def without_paths(text: str, *folders: str) -> str:
    """A message without what names a user or a machine: paths of these folders, of homes, and of this package."""
    named = {**dict.fromkeys(folders, "<folder>"), str(Path(__file__).parents[1]): "<wsiseg>"}
    named |= {str(Path.home()): "<home>", tempfile.gettempdir(): "<temporary>"}
    for folder in sorted(filter(lambda one: len(one) > 1, named), key=len, reverse=True):
        text = text.replace(folder, named[folder])
    return text


def _devices() -> dict[str, str]:
    import torch

    from wsiseg.models.devices import keep_to_quota

    keep_to_quota()
    found = {"cpu": f"{torch.get_num_threads()} threads of torch"}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{about.name}, {_size(about.total_memory)}"
    return found


def _runtimes() -> dict[str, bool]:
    import torch

    from wsiseg.models.runtime.choose import has_bfloat16, has_openvino

    compiles = any(map(shutil.which, ("cc", "gcc", "clang", "cl")))
    there = {"torch": True, "compiled": compiles, "openvino": has_openvino()}
    return {
        **{name: there[name] for name in RUNTIMES if name in there},
        "bfloat16 on the processor": has_bfloat16(torch.device("cpu")),
    }


def _size(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 2**30:.1f} GiB"


def _free_memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return "unknown"
    free = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return _size(free[0] * 1024) if free else "unknown"


def _free_disk(folder: Path) -> str:
    try:
        return _size(shutil.disk_usage(folder).free)
    except OSError:
        return "unknown"


def _locks(folder: Path) -> str:
    """Whether files in a folder can be locked, or how runs keep each other away otherwise."""
    try:
        import fcntl
    except ImportError:  # Windows
        return "yes"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return f"no ({error.strerror}); runs go by their leases alone"
    except OSError as error:
        return f"not to be written to ({error.strerror})"
    return "yes"


def _open_files() -> int | str:
    try:
        import resource
    except ImportError:  # Windows
        return "unknown"
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
