"""Networks as OpenVINO compiled them, kept for the next run: converting them takes longer than importing torch."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from wsiseg.models.runtime.patch_network import PatchNetwork
from wsiseg.system.cache import Cache, cache_folder

MOST_BYTES = 512 * 2**20
"""Of all kept networks; one of the shipped model is 13 MB."""

_PACKAGES = ("wsiseg", "torch", "openvino", "timm", "segmentation-models-pytorch")
"""Their versions are part of a key. A library that a new network takes layers from belongs here: else what was compiled
of an older version would go on being used.
"""


def kept_networks() -> Cache:
    """The user's folder of compiled networks."""
    folder = cache_folder()
    return Cache(None if folder is None else folder / "openvino", MOST_BYTES)


def can_be_kept(network: PatchNetwork) -> bool:
    """Whether `network_key` knows everything that its values depend on: its layers are those of this package.

    Code is hashed of `networks/` and `runtime/` alone, so layers have to stand there.
    """
    return type(network.network).__module__.startswith("wsiseg.models.networks.")


def network_key(network: PatchNetwork, model_hash: str, settings: Mapping[str, Any], height: int, width: int) -> str:
    """A file's name, another one wherever values or the compiled program could differ.

    Args:
        network: before anything is folded into anything.
        model_hash: of its bundle.
        settings: of OpenVINO, and what else decides how the network is compiled.
        height: of patches, in pixels.
        width: likewise.
    """
    digest = hashlib.sha256()
    layers = repr(network)  # kinds of layers and their sizes
    # Beside the hash of the bundle the weights themselves: a caller may have changed them in memory.
    for fact in (model_hash, network.task, layers, sorted(settings.items()), height, width, _surroundings()):
        digest.update(f"{fact}\0".encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{digest.hexdigest()}.blob"


@cache
def _surroundings() -> str:
    """Versions of all that takes part, this package's own layers, and the processor."""
    code = hashlib.sha256()
    models = Path(__file__).parents[1]
    for path in sorted([*models.glob("networks/*.py"), *models.glob("runtime/*.py")]):
        code.update(path.read_bytes())
    versions = [f"{name} {_version(name)}" for name in _PACKAGES]
    return "\n".join([*versions, code.hexdigest(), platform.platform(), _processor()])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _processor() -> str:
    """Name and abilities of the processor, as Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    telling = ("vendor_id", "cpu family", "model", "stepping", "flags", "features", "cpu part", "cpu implementer")
    return "\n".join(sorted({line for line in lines if line.lower().startswith(telling)}))
