"""What networks begin with: ImageNet, nothing, or a file of weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from wsiseg.errors import OptionError
from wsiseg.models.lite import LiteClassifier, LiteSegmenter, load_imagenet_weights
from wsiseg.training.config import NetworkConfig


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
            f"{config.architecture} needs a file of initial weights (MXNet parameters or a published checkpoint): "
            "state it with --init, or --init none to begin at random"
        )
    if not Path(source).is_file():
        raise OptionError(f"there is no file of initial weights {source!r:.120}")
    raise OptionError(f"{source}: weights of {config.architecture} cannot be read from a file yet")


def share_encoder(classifier: nn.Module, segmenter: nn.Module) -> None:
    """Begin the segmenter with the encoder of the trained classifier, where both have the same one."""
    if not (isinstance(classifier, LiteClassifier) and isinstance(segmenter, LiteSegmenter)):
        return
    state = classifier.encoder.state_dict()
    target = segmenter.encoder.state_dict()
    if all(name in state and state[name].shape == tensor.shape for name, tensor in target.items()):
        segmenter.encoder.load_state_dict({name: state[name] for name in target})
