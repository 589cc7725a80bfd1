"""What networks begin with: ImageNet, nothing, or a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from wsiseg.errors import OptionError
from wsiseg.models.networks.deeplab import DeepLabV3Plus
from wsiseg.models.networks.lite import DEFAULT_ENCODER, LiteClassifier, LiteSegmenter, load_imagenet_weights
from wsiseg.models.weights.checkpoints import CLASS_LAYERS, fitting, read_state
from wsiseg.models.weights.encoder_sources import weight_file
from wsiseg.models.weights.encoder_weights import MAX_ENCODER_BYTES, fill_encoder
from wsiseg.models.weights.pretrained import TIMM_PREFIX, hub_weights
from wsiseg.training.config import NetworkConfig

_BACKBONE = "backbone."
_HEADS = ("aspp.", "decoder.")
_OF_LITE = ("fc8.", "network.segmentation_head.")


def initialise(network: nn.Module, config: NetworkConfig) -> None:
    """Give a network its initial weights.

    Raises:
        WsisegError: where they cannot be had.
    """
    source = config.initial_weights
    if source == "none":
        return
    foreign = source == "torchvision" or source.startswith(TIMM_PREFIX)
    if isinstance(network, LiteClassifier | LiteSegmenter) and not foreign:
        _initialise_lite(network, str(config.arguments.get("encoder", DEFAULT_ENCODER)), source)
    elif isinstance(network, DeepLabV3Plus) and source in ("imagenet", "torchvision"):
        load_weights(network, hub_weights("torchvision"), Path("torchvision's ResNet-101"))
    elif isinstance(network, DeepLabV3Plus) and source.startswith(TIMM_PREFIX):
        load_weights(network, hub_weights(source), Path(source))
    elif source == "imagenet":
        raise OptionError(
            f"{config.architecture} needs a file of initial weights (MXNet's .params, or a published checkpoint): "
            "state it with --init-stage1, or --init-stage1 none to begin at random"
        )
    elif foreign:
        raise OptionError(f"{source!r:.80} is for the published segmenter, {config.architecture} needs another source")
    else:
        load_checkpoint(network, Path(source))


def _initialise_lite(network: LiteClassifier | LiteSegmenter, encoder: str, source: str) -> None:
    """Fill a lite network from a checkpoint of such a one, or its encoder from weights of the encoder alone."""
    if source == "imagenet":
        load_imagenet_weights(network, encoder)
        return
    path = weight_file(source)
    state = read_state(path, MAX_ENCODER_BYTES)
    if is_whole_network(state):
        load_weights(network, state, path)
    else:
        fill_encoder(network, encoder, state, path)


def is_whole_network(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of a lite network, not of an encoder alone."""
    return any(name.startswith(_OF_LITE) for name in state)


def load_checkpoint(network: nn.Module, path: Path) -> None:
    """Fill a network from a file; see `wsiseg.models.weights.checkpoints.read_state` and `load_weights`.

    Raises:
        OptionError: where the file is missing, holds no plain tensors, or is of another network.
    """
    load_weights(network, read_state(path), path)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network from a state dict.

    Layers that depend on the number of classes stay as they are where the file has other classes. A ResNet-101 by
    itself (its tensors have the same names in torchvision, in timm and behind `backbone.` here) fills the backbone of
    the published segmenter and leaves the rest.

    Raises:
        OptionError: where the weights, said to be those of `path`, are of another network.
    """
    optional: tuple[str, ...] = CLASS_LAYERS
    alone = not any(name.startswith(_BACKBONE) for name in state)
    if isinstance(network, DeepLabV3Plus) and alone and "layer1.0.conv1.weight" in state:
        state = {_BACKBONE + name: tensor for name, tensor in state.items()}
        optional = (*CLASS_LAYERS, *_HEADS)
    network.load_state_dict(fitting(state, network.state_dict(), path, optional), strict=False)


def share_encoder(classifier: nn.Module, segmenter: nn.Module) -> None:
    """Begin the segmenter with the encoder of the trained classifier, where both have the same one."""
    if not (isinstance(classifier, LiteClassifier) and isinstance(segmenter, LiteSegmenter)):
        return
    state = classifier.extractor.state_dict()
    target = segmenter.extractor.state_dict()
    if all(name in state and state[name].shape == tensor.shape for name, tensor in target.items()):
        segmenter.extractor.load_state_dict({name: state[name] for name in target})
