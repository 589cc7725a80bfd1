"""Encoders whose weights are not in a bundle's file: shared by both networks, or not to be handed on.

Where a licence forbids sharing, a bundle names the tensors by their hash. They are looked for in the files and
folders of the environment variable WSISEG_ENCODERS, and in the Hugging Face hub's cache; nothing is fetched, and
nothing but safetensors is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from torch import nn

from wsiseg.errors import BundleError, OptionError
from wsiseg.models.spec import EncoderSpec, NetworkSpec

VARIABLE = "WSISEG_ENCODERS"
_ENDINGS = (".safetensors", ".bin", ".pth", ".pt")


def encoder_names(module: nn.Module) -> set[str]:
    """Names, in a network's state dict, of the tensors of its timm encoder; none where it has no such."""
    inner = getattr(module, "extractor", None)
    prefix = next((name for name, part in module.named_modules() if part is inner), None) if inner is not None else None
    return set() if prefix is None else {name for name in module.state_dict() if name.startswith(f"{prefix}.")}


def fill_lacking(module: nn.Module, network: NetworkSpec, lender: nn.Module | None) -> None:
    """Fill the encoder of a network whose file lacks it.

    Args:
        module: the network, with all other weights, not on the meta device.
        network: what its bundle says of it.
        lender: the classifier of the bundle, whose encoder may be this one's as well.

    Raises:
        BundleError: where the encoder cannot be found, or is another one.
    """
    held = network.encoder
    assert held is not None
    inner = getattr(module, "extractor", None)
    if inner is None:
        raise BundleError(f"{network.architecture} has no encoder of timm that could lie elsewhere")
    if held.sha256:
        _fill_from_outside(module, network)
        return
    lent = getattr(lender, "extractor", None)
    state = {} if lent is None else lent.state_dict()
    wanted = inner.state_dict()
    if {name: tensor.shape for name, tensor in state.items()} != {name: t.shape for name, t in wanted.items()}:
        raise BundleError("the segmenter is to have the classifier's encoder, and they are not alike: train again")
    inner.load_state_dict(state)


def _fill_from_outside(module: nn.Module, network: NetworkSpec) -> None:
    from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter  # noqa: PLC0415  (only where it is needed)
    from wsiseg.models.weights.encoder_weights import MAX_ENCODER_BYTES, fill_encoder  # noqa: PLC0415
    from wsiseg.models.weights.tensor_files import read_tensors  # noqa: PLC0415

    held = network.encoder
    assert held is not None
    assert isinstance(module, LiteClassifier | LiteSegmenter)
    path = _found(held)
    try:
        fill_encoder(module, str(network.arguments.get("encoder")), read_tensors(path, MAX_ENCODER_BYTES), path)
    except OptionError as error:
        raise BundleError(f"{error}; the bundle says that these are the encoder's weights") from error


def _found(held: EncoderSpec) -> Path:
    """The safetensors file that holds a bundle's encoder. Torch checkpoints are pickles, and are left closed."""
    from wsiseg.models.weights.tensor_files import is_safetensors  # noqa: PLC0415

    closed: Path | None = None
    for path in _candidates(held.source):
        if not is_safetensors(path):
            closed = closed or path
        elif _hash(path, _stamp(path)) == held.sha256:
            return path
    needed = (
        f"this model needs the encoder {held.source or 'of its training'} (tensors' SHA-256 {held.sha256[:12]}…), "
        f"whose licence ({held.licence or 'not stated'}) does not let a bundle hold it: "
    )
    if closed is None:
        raise BundleError(f"{needed}get the file from its owner as safetensors, and set {VARIABLE} to it or its folder")
    raise BundleError(
        f"{needed}{closed} is no safetensors file, and no other is opened when a model is loaded; make one with "
        f"`wsiseg models convert {closed} {closed.stem}.safetensors`, and set {VARIABLE} to it or its folder"
    )


def _candidates(source: str) -> Iterator[Path]:
    for named in os.environ.get(VARIABLE, "").split(os.pathsep):
        path = Path(named)
        if named and path.is_file():
            yield path
        elif named and path.is_dir():
            yield from (found for found in sorted(path.iterdir()) if found.is_file() and found.suffix in _ENDINGS)
    yield from _cached(source)


def _cached(source: str) -> list[Path]:
    """Files of weights that the hub's cache has of a repository; fetches nothing."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    from wsiseg.models.weights.encoder_sources import HUB, WEIGHT_FILES  # noqa: PLC0415
    from wsiseg.models.weights.foundation import foundation_of  # noqa: PLC0415

    if not source.startswith(HUB):
        return []
    entry = foundation_of(source)
    names = [*WEIGHT_FILES, *([entry.file] if entry is not None and entry.file else [])]
    identity, _, revision = source.removeprefix(HUB).partition("@")
    try:
        found = [try_to_load_from_cache(identity, name, revision=revision or None) for name in names]
    except ValueError:  # a name that no repository can have
        return []
    return [Path(path) for path in found if isinstance(path, str)]


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


@cache
def _hash(path: Path, stamp: tuple[int, int]) -> str:
    """The hash of a safetensors file's tensors, computed once while the file stays as it is; "" where it is none."""
    from wsiseg.models.weights.encoder_weights import MAX_ENCODER_BYTES  # noqa: PLC0415
    from wsiseg.models.weights.tensor_files import read_tensors, tensors_sha256  # noqa: PLC0415

    try:
        return tensors_sha256(read_tensors(path, MAX_ENCODER_BYTES))
    except OptionError:  # another file of that folder, which is damaged or too large
        return ""
