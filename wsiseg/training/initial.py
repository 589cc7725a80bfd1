"""What networks begin with: ImageNet, nothing, or a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from wsiseg.errors import OptionError
from wsiseg.models.lite import LiteClassifier, LiteSegmenter, load_imagenet_weights
from wsiseg.training.config import NetworkConfig

_CLASS_LAYERS = ("fc8.", "decoder.last_conv.8.", "network.segmentation_head.")
"""Layers whose size is the number of classes: a checkpoint of other classes lends everything but these."""


def initialise(network: nn.Module, config: NetworkConfig) -> None:
    """Give a network its initial weights.

    Raises:
        WsisegError: where they cannot be had.
    """
    source = config.initial_weights
    if source == "none":
        return
    if source == "imagenet" and isinstance(network, LiteClassifier | LiteSegmenter):
        load_imagenet_weights(network, str(config.arguments.get("encoder", "tf_efficientnet_lite0")))
        return
    if source == "imagenet":
        raise OptionError(
            f"{config.architecture} needs a file of initial weights (a published checkpoint): "
            "state it with --init, or --init none to begin at random"
        )
    load_checkpoint(network, Path(source))


def load_checkpoint(network: nn.Module, path: Path) -> None:
    """Fill a network from a torch checkpoint: a state dict, or a mapping that holds one as `state_dict`.

    Layers that depend on the number of classes stay as they are where the checkpoint has other classes.

    Raises:
        OptionError: where the file is missing, no checkpoint of plain tensors, or of another network.
    """
    if not path.is_file():
        raise OptionError(f"there is no file of initial weights {str(path)!r:.120}")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise OptionError(f"{path} is no torch checkpoint of plain tensors") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise OptionError(f"{path} holds no state dict")
    state = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    target = network.state_dict()
    chosen: dict[str, Tensor] = {}
    for name, tensor in target.items():
        fits = name in state and state[name].shape == tensor.shape
        if fits:
            chosen[name] = state[name]
        elif not name.startswith(_CLASS_LAYERS) and not name.endswith("num_batches_tracked"):
            found = tuple(state[name].shape) if name in state else "nothing"
            raise OptionError(f"{path} is of another network: {name} should be {tuple(tensor.shape)}, it has {found}")
    network.load_state_dict(chosen, strict=False)


def share_encoder(classifier: nn.Module, segmenter: nn.Module) -> None:
    """Begin the segmenter with the encoder of the trained classifier, where both have the same one."""
    if not (isinstance(classifier, LiteClassifier) and isinstance(segmenter, LiteSegmenter)):
        return
    state = classifier.encoder.state_dict()
    target = segmenter.encoder.state_dict()
    if all(name in state and state[name].shape == tensor.shape for name, tensor in target.items()):
        segmenter.encoder.load_state_dict({name: state[name] for name in target})
