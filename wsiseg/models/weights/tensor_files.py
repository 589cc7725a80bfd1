"""Files of plain tensors: hashed by what they hold, read without any pickle, and made from torch checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from wsiseg.errors import OptionError, OutputError
from wsiseg.models.weights.checkpoints import read_safetensors, read_state
from wsiseg.system.files import check_file, whole_file

SUFFIX = ".safetensors"


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors by its name or its first bytes; it may be damaged all the same."""
    if path.suffix == SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError:
        return False


def read_tensors(path: Path, max_bytes: int) -> dict[str, Tensor]:
    """The tensors of a safetensors file, and of nothing else: no pickle is opened.

    Raises:
        OptionError: where the file is another, is damaged or has more than `max_bytes`.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > max_bytes:
        raise OptionError(f"{path} has {size} bytes, more than the {max_bytes} that a file of weights may have")
    return read_safetensors(path)


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, whatever file they came from and in whatever order.

    So a torch checkpoint and the safetensors file that was made of it have the same.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\n{str(tensor.dtype).removeprefix('torch.')}\n{tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def convert(source: Path, target: Path, max_bytes: int, *, overwrite: bool = False) -> tuple[int, str]:
    """Write the tensors of a file of weights as safetensors.

    Args:
        source: a torch checkpoint of plain tensors, or what else `read_state` reads; nothing in it is run.
        target: name of the new file, which ends in `.safetensors`.
        max_bytes: that the source may have.
        overwrite: replace a file of that name.

    Returns:
        How many tensors there are, and `tensors_sha256` of them.

    Raises:
        OptionError: the source is missing or holds anything but plain tensors; or the target has another ending.
        OutputError: the target is there, or cannot be written.
    """
    check_file(target, (SUFFIX,), overwrite)
    # A tensor of its own each: those of a checkpoint may share memory, which safetensors does not take.
    state = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in read_state(source, max_bytes).items()
    }
    with whole_file(target) as part:
        try:
            save_file(state, part, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OutputError(f"cannot write {target}: {error!s:.160}; choose another place") from error
        part.chmod(0o644)
    return len(state), tensors_sha256(state)
