"""Weights from elsewhere: torch checkpoints, safetensors and MXNet's parameters, as a state dict of plain tensors.

A file comes from outside and is treated as hostile. Torch checkpoints are pickles and are read with
`weights_only=True`, which makes tensors and plain values and runs nothing.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsiseg.errors import OptionError
from wsiseg.models.folder import MAX_WEIGHT_BYTES
from wsiseg.models.weights.mxnet import MAGIC, read_params, resnet38_arrays

CLASS_LAYERS = ("fc8.", "decoder.last_conv.8.", "network.segmentation_head.")
"""Layers whose size is the number of classes."""

_COUNTER = "num_batches_tracked"


def read_state(path: Path, max_bytes: int = MAX_WEIGHT_BYTES) -> dict[str, Tensor]:
    """The state dict in a file: a torch checkpoint, safetensors, or MXNet's parameters of ResNet-38.

    Files of more than `max_bytes` are refused. A checkpoint is a state dict, or a mapping that holds one as
    `state_dict`, as training programs write it beside their optimiser; `module.` before names (of `DataParallel`) is
    taken off.

    Raises:
        OptionError: where the file is missing, damaged, or holds anything but plain tensors.
    """
    if not path.is_file():
        raise OptionError(f"there is no file of weights {str(path)!r:.120}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > max_bytes:
        raise OptionError(f"{path} has {size} bytes, more than the {max_bytes} that a file of weights may have")
    if head.startswith(MAGIC):
        arrays = resnet38_arrays(read_params(path))
        return _plain({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, path)
    if head[8:] == b"{" or path.suffix == ".safetensors":
        return read_safetensors(path)
    content = _read_torch(path, max_bytes)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    return _plain(content, path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of safetensors, without `module.` before names; raises `OptionError` on any other."""
    try:
        return _plain(load_file(path), path)
    except (SafetensorError, OSError, ValueError) as error:
        raise OptionError(f"{path} is not a whole safetensors file ({error!s:.100})") from error


def _read_torch(path: Path, max_bytes: int) -> Any:
    _refuse_compressed(path, max_bytes)
    try:
        with torch.serialization.safe_globals(_stand_ins()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged pickle fails in any way it likes
        raise OptionError(
            f"{path} is no torch checkpoint of plain tensors: it is damaged, or holds what is not loaded from files"
        ) from error


def _refuse_compressed(path: Path, max_bytes: int) -> None:
    """Torch stores without compression; a small file that unpacks to a huge one is not torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            total = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the format before zip, or no checkpoint at all: torch says so
    if packed or total > max_bytes:
        raise OptionError(f"{path} is no torch checkpoint: its parts are compressed or too large")


class _NumpyType:
    """In place of `numpy.dtype` while a checkpoint is read; what it stands for is not needed."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _numpy_number(*arguments: object) -> float:
    """In place of numpy's scalar: DeepLab's published checkpoint keeps its best score as one, beside the weights."""
    return 0.0


def _stand_ins() -> list[Any]:
    numbers = [(_numpy_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*numbers, (_NumpyType, "numpy.dtype")]


def _plain(content: object, path: Path) -> dict[str, Tensor]:
    """A state dict without `module.`, its tensors dense and on the CPU, or an error."""
    if not isinstance(content, Mapping) or not content:
        raise OptionError(f"{path} holds no state dict, that is names of tensors and the tensors")
    state: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise OptionError(f"{path} holds no state dict: {name!r:.60} is no tensor but {type(tensor).__name__}")
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise OptionError(f"{path}: tensor {name!r:.60} is sparse, quantised or without values")
        state[name.removeprefix("module.")] = tensor.detach()
    return state


def fitting(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path, optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """Those tensors of a file that a network takes; counters of batches, which nothing uses, may be missing.

    Args:
        state: of the file.
        target: the network's state dict; shapes alone are read.
        path: the file, for messages.
        optional: beginnings of names whose tensors may be missing or of another shape; those are left out.

    Raises:
        OptionError: where any other tensor is missing or of another shape.
    """
    chosen: dict[str, Tensor] = {}
    for name, tensor in target.items():
        if name in state and state[name].shape == tensor.shape:
            chosen[name] = state[name]
        elif not name.startswith(tuple(optional)) and not name.endswith(_COUNTER):
            found = tuple(state[name].shape) if name in state else "nothing"
            raise OptionError(f"{path} is of another network: {name} should be {tuple(tensor.shape)}, it has {found}")
    return chosen


def whole(state: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """All tensors of a network from a file that holds exactly those, float32.

    Raises:
        OptionError: where the file is of another network, or of another number of classes.
    """
    for name, tensor in target.items():
        if name.startswith(CLASS_LAYERS) and name in state and state[name].ndim and state[name].shape != tensor.shape:
            raise OptionError(
                f"{path} was trained on {state[name].shape[0]} classes, the class table names {tensor.shape[0]}"
            )
    chosen = fitting(state, target, path)
    if unknown := sorted(set(state) - set(target)):
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise OptionError(f"{path} is of another network: it has an unknown tensor {unknown[0]!r:.80}{more}")
    for name in target:
        if name not in chosen:
            chosen[name] = torch.zeros(target[name].shape, dtype=torch.int64)
    if odd := next((name for name in chosen if not _is_finite(chosen[name])), None):
        raise OptionError(f"{path}: tensor {odd!r:.80} has values that are no numbers, the file is damaged")
    return {name: tensor.to(target[name].dtype) for name, tensor in chosen.items()}


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_complex() and bool(torch.isfinite(tensor).all())
