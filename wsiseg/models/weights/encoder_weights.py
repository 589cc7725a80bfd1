"""Weights of an encoder alone, from a file of timm, torchvision or transformers, into a lite network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsiseg.errors import OptionError
from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter
from wsiseg.models.networks.timm_encoders import TimmEncoder, features, known
from wsiseg.models.weights.encoder_names import with_timm_names
from wsiseg.system.json_values import JsonObject

MAX_ENCODER_BYTES = 16 * 2**30
"""Of a file of weights: the largest published pathology encoders have 1.1 to 2 thousand million numbers."""

_GETTER = "model."
_COUNTER = "num_batches_tracked"
_FOUND_AT_LEAST = 0.5


def fill_encoder(
    network: LiteClassifier | LiteSegmenter, encoder: str, state: Mapping[str, Tensor], path: Path
) -> None:
    """Fill the encoder of a network from a state dict; decoder and head stay as they are.

    Names, sizes of position embeddings and classes' layers may differ from the network's in all ways that timm
    converts: torchvision's, the original programs' of many transformers, other sizes of images.

    Args:
        network: with the encoder.
        encoder: its name in timm.
        state: of a file, as `wsiseg.models.weights.checkpoints.read_state` gives it.
        path: the file, for messages.

    Raises:
        OptionError: where the weights are of another encoder.
    """
    state = with_timm_names(state)
    target = network.extractor.state_dict()
    chosen = _by_name(state, target)
    if chosen is None:
        chosen = _by_timm(state, target, network, encoder, path)
    network.extractor.load_state_dict(chosen, strict=False)


def _by_name(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The network's tensors, where the file has all of them under their names and of their shapes; else None."""
    chosen: dict[str, Tensor] = {}
    for name, tensor in target.items():
        own = name if name in state else name.removeprefix(_GETTER)
        if own in state and state[own].shape == tensor.shape:
            chosen[name] = state[own]
        elif not name.endswith(_COUNTER):
            return None
    return chosen


def _by_timm(
    state: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    network: LiteClassifier | LiteSegmenter,
    encoder: str,
    path: Path,
) -> dict[str, Tensor]:
    """As timm converts them for this encoder."""
    import timm  # noqa: PLC0415

    logging.getLogger("timm").setLevel(logging.CRITICAL)  # it tells of layers that an encoder is not to have
    overlay = {"state_dict": _without_classes(state, encoder), "classifier": None, "num_classes": 0}
    given: JsonObject = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    undilated = next((module for module in network.modules() if isinstance(module, TimmEncoder)), None)
    try:
        made: Any = (
            timm.create_model(known(encoder), features_only=True, **given)
            if undilated is None
            else features(encoder, undilated.arguments, len(undilated.channels), **given)
        )
    except Exception as error:  # timm converts each encoder's weights in its own way
        reason = " ".join(str(error).split())
        raise OptionError(f"{path} holds no weights of {encoder} ({reason:.160})") from error
    found: Mapping[str, Tensor] = made.state_dict()
    taken = {
        name: found[name] for name, tensor in target.items() if name in found and found[name].shape == tensor.shape
    }
    if len(taken) < len(target) or _share_of(state, taken) < _FOUND_AT_LEAST:
        raise OptionError(f"{path} holds no weights of {encoder}, or only some: most of its tensors are missing")
    return taken


def _without_classes(state: Mapping[str, Tensor], encoder: str) -> dict[str, Tensor]:
    """The tensors without those of the layer that names ImageNet's classes."""
    import timm  # noqa: PLC0415

    config = timm.get_pretrained_cfg(encoder)
    named = () if config is None or config.classifier is None else config.classifier
    layers = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
    return {name: tensor for name, tensor in state.items() if not name.startswith(("head_dist.", *layers))}


def _share_of(state: Mapping[str, Tensor], taken: Mapping[str, Tensor]) -> float:
    """Share of an encoder's matrices and kernels whose values the file has, under whatever name and shape."""
    there = {_print(tensor) for tensor in state.values() if tensor.ndim > 1}
    large = [tensor for tensor in taken.values() if tensor.ndim > 1]
    return sum(_print(tensor) in there for tensor in large) / max(1, len(large))


def _print(tensor: Tensor) -> tuple[int, float, float]:
    """What tells tensors apart whatever their shapes: how many values, and two sums of some of them."""
    some = tensor.detach().reshape(-1)[:4096].double()
    return tensor.numel(), float(some.sum()), float(torch.linalg.vector_norm(some))
