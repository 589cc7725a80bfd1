"""Networks of a training: with their initial weights, as finished steps left them, and written down."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from wsiseg.models.networks.architectures import build_network
from wsiseg.models.networks.classifier import Classifier
from wsiseg.system.files import whole_file
from wsiseg.training.initial import initialise
from wsiseg.training.processes import is_first
from wsiseg.training.run_folder import Run


def initial_network(run: Run, kind: Literal["classifier", "segmenter"], seed: int) -> nn.Module:
    """A network with its initial weights, or those of the model to go on from; what is random comes from `seed`."""
    torch.manual_seed(seed)
    network = plain_network(run, kind)
    if run.origin is not None:
        network.load_state_dict(run.origin.state(kind))
    else:
        initialise(network, getattr(run.config, kind))
    return network


def plain_network(run: Run, kind: Literal["classifier", "segmenter"]) -> nn.Module:
    """A network of the configuration, with whatever weights its builder gives it."""
    part = getattr(run.config, kind)
    network = build_network(kind, part.architecture, len(run.data.classes), part.arguments)
    return network.to(memory_format=torch.channels_last)


def trained_classifier(run: Run) -> Classifier:
    """The classifier of the finished stage 1, on the run's device, in evaluation mode."""
    network = cast(Classifier, plain_network(run, "classifier"))
    network.load_state_dict(load_file(run.folder.classifier))
    return network.to(run.device).eval()


def save_weights(network: nn.Module, path: Path) -> None:
    """Write weights, in the first process: a file that is there is whole."""
    if not is_first():
        return
    state: dict[str, Tensor] = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(save(state))  # so that a full disk is an OSError, with its reason
