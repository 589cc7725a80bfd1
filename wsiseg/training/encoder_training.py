"""How much of a pretrained encoder is learned: all of it, nothing, or matrices of low rank beside its own (LoRA).

LoRA is peft's (Hu et al., 2022): beside each linear layer and each ordinary convolution of the encoder stand two small
ones, whose product is added to it when training ends. A bundle then holds an encoder like any other.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn

from wsiseg.choices import EncoderTraining
from wsiseg.errors import OptionError
from wsiseg.models.networks.lite import LiteClassifier, LiteSegmenter

FULL: EncoderTraining = "full"
FROZEN: EncoderTraining = "frozen"
LORA: EncoderTraining = "lora"

_SMALLEST = 16
"""Channels below which a layer is smaller than what would stand beside it."""


def extractor_of(network: nn.Module) -> nn.Module | None:
    """The timm encoder inside a lite network; None for others."""
    return network.extractor if isinstance(network, LiteClassifier | LiteSegmenter) else None


def check_encoder_training(network: nn.Module, how: EncoderTraining, architecture: str) -> None:
    """Refuse what cannot be done with a network, or without a library.

    Raises:
        OptionError: then.
    """
    if how != FULL and extractor_of(network) is None:
        raise OptionError(f"--encoder-training {how} is for the lite networks, {architecture} is trained in full")
    if how == LORA and find_spec("peft") is None:
        raise OptionError("LoRA needs peft, which is not installed: pip install 'wsiseg[lora]', or use frozen or full")


def prepare_encoder(network: nn.Module, how: EncoderTraining, rank: int, seed: int = 0) -> None:
    """Leave of the encoder's weights those to be learned that are to be; before optimiser and averages are made.

    Args:
        network: with its initial weights.
        how: "full", "frozen" or "lora".
        rank: of LoRA's matrices.
        seed: of their first values, whatever was drawn before.
    """
    extractor = extractor_of(network)
    if how == FULL or extractor is None:
        return
    extractor.requires_grad_(False)
    if how == LORA:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  (it takes seconds to import)

        settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_adapted(extractor), bias="none")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(settings, extractor)


def _adapted(extractor: nn.Module) -> list[str]:
    """Names of the layers that get matrices beside them: linear ones, and convolutions that mix channels."""
    names = []
    for name, module in extractor.named_modules():
        if isinstance(module, nn.Linear):
            sides = (module.in_features, module.out_features)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            sides = (module.in_channels, module.out_channels)
        else:
            continue
        if min(sides) >= _SMALLEST:
            names.append(name)
    if not names:
        raise OptionError("this encoder has no layers for LoRA: use --encoder-training frozen or full")
    return names


def keep_still(network: nn.Module) -> None:
    """Keep an encoder that is not learned as a whole in evaluation mode: its batch normalisations stay as they are."""
    extractor = extractor_of(network)
    if extractor is not None and not all(parameter.requires_grad for parameter in extractor.parameters()):
        extractor.eval()


@torch.no_grad()
def merged(network: nn.Module) -> nn.Module:
    """The network itself, with LoRA's products added to the layers that they stood beside; others are unchanged."""
    extractor = extractor_of(network)
    if extractor is None or not any("lora_" in name for name, _ in extractor.named_parameters()):
        return network
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    for name, module in list(extractor.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            extractor.set_submodule(name, module.get_base_layer())
    return network


def layer_rates(names: list[str], decay: float) -> dict[str, float]:
    """What the learning rate of each parameter of an encoder is multiplied by: 1 for the deepest block, less before.

    Args:
        names: of the encoder's parameters, shallow to deep; a block is what a number in a name says.
        decay: from a block to the one before it.
    """
    blocks: dict[str, int] = {}
    of_name = {name: blocks.setdefault(_block(name), len(blocks)) for name in names}
    return {name: decay ** (len(blocks) - 1 - block) for name, block in of_name.items()}


def _block(name: str) -> str:
    """A parameter's name up to its second number, or its only one: "blocks.3" of "blocks.3.attn.qkv.weight"."""
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts[:-1]) if part.rpartition("_")[2].isdigit()]
    return ".".join(parts[: numbers[min(1, len(numbers) - 1)] + 1]) if numbers else "stem"
