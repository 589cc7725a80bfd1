"""The encoder of the lite networks: its arguments for the patches that it will see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import OptionError
from wsiseg.models.networks.fit_encoder import fitted
from wsiseg.models.networks.lite import DEFAULT_ENCODER
from wsiseg.models.spec import EncoderSpec
from wsiseg.models.tile_shape import check_sides
from wsiseg.models.weights.checkpoints import read_state
from wsiseg.models.weights.encoder_sources import HUB, weight_file
from wsiseg.models.weights.encoder_weights import MAX_ENCODER_BYTES
from wsiseg.models.weights.foundation import foundation_of
from wsiseg.models.weights.licences import NOT_STATED, may_be_shared, source_licence, timm_source
from wsiseg.models.weights.tensor_files import tensors_sha256
from wsiseg.system.json_values import JsonObject
from wsiseg.training.config import NetworkConfig, TrainingConfig
from wsiseg.training.encoder_training import FROZEN
from wsiseg.training.initial import is_whole_network

LITE = ("lite_classifier", "lite_segmenter")
"""Architectures on any encoder of timm."""


@dataclass(frozen=True, slots=True)
class Published:
    """Where the weights of an encoder came from, and whether they may be handed on.

    Attributes:
        source: "hf-hub:OWNER/NAME", or the name of a folder or file.
        weights: what `weight_file` takes; "" where they are those of a model that a training goes on from.
        licence: as it is stated; "not stated" where it is not.
    """

    source: str
    weights: str
    licence: str


def not_to_share(config: TrainingConfig, kind: str) -> Published | None:
    """The weights that the encoder of a network begins with, where their licence does not let a bundle hold them.

    A licence that is not known counts as one that does not. Files without a page beside them are taken for the user's
    own.

    Args:
        config: of the training.
        kind: "classifier" or "segmenter".
    """
    # Where the segmenter gets the classifier's encoder, its own weights are not used.
    lent = config.shared_encoder or (config.start_from_classifier and not _unlike(config))
    network: NetworkConfig = config.classifier if lent else getattr(config, kind)
    encoder, source = encoder_of(network), network.initial_weights
    entry = foundation_of(network.published) if network.published else None
    if entry is not None:
        weights = "" if source == "none" else source
        return None if entry.may_be_shared else Published(f"{HUB}{entry.hub}", weights, entry.licence)
    if encoder is None or source == "none":
        return None
    licence = source_licence(encoder, source)
    if source == "imagenet":
        source = timm_source(encoder)
    if not source or not licence or may_be_shared(licence):
        return None
    return Published(source if source.startswith(HUB) else Path(source).resolve().name, source, licence)


def held_elsewhere(config: TrainingConfig, kind: str) -> JsonObject:
    """The field `encoder` of a network of the bundle, where its weight file is to lack the encoder; else nothing.

    Args:
        config: of the training.
        kind: "classifier" or "segmenter".
    """
    found = not_to_share(config, kind)
    if found is not None and found.weights and config.encoder_training == FROZEN and not config.hold_weights:
        state = read_state(weight_file(found.weights), MAX_ENCODER_BYTES)
        if not is_whole_network(state):
            facts = {"source": found.source, "sha256": tensors_sha256(state), "licence": found.licence}
            return {"encoder": {"held": "outside", **facts}}
    return {"encoder": {"held": "classifier"}} if config.shared_encoder and kind == "segmenter" else {}


def licence_notes(config: TrainingConfig, before: Sequence[EncoderSpec | None] = ()) -> list[str]:
    """What a person must know of a bundle whose encoder has a licence that does not let it be handed on.

    Args:
        config: of the training.
        before: encoders that a model which it goes on from does not hold.
    """
    notes = []
    kinds = [not_to_share(config, kind) for kind in ("classifier", "segmenter")]
    kinds += [Published(one.source, "", one.licence) for one in before if one is not None and one.held == "outside"]
    for found in dict.fromkeys(one for one in kinds if one is not None):
        name = found.source.removeprefix(HUB)
        terms = (
            f"whose licence is {NOT_STATED}: it may forbid handing them on"
            if found.licence == NOT_STATED
            else f"whose licence ({found.licence}) forbids or limits handing them on"
        )
        if config.encoder_training != FROZEN:
            notes.append(
                f"this model holds weights made from {name}, {terms}; with --encoder-training frozen a bundle names "
                "them instead"
            )
        elif config.hold_weights:
            notes.append(f"this model holds the weights of {name}, {terms}")
        else:
            notes.append(
                f"this model names the weights of {name}, {terms}; whoever loads it needs them as safetensors. "
                "--hold-weights puts them into the model"
            )
    return notes


def encoder_of(network: NetworkConfig) -> str | None:
    """Name of the timm encoder of a network; None where it has none."""
    return str(network.arguments.get("encoder", DEFAULT_ENCODER)) if network.architecture in LITE else None


def fitted_encoders(config: TrainingConfig, patch_px: int) -> TrainingConfig:
    """The configuration with what the encoders must know of the patches' side.

    Args:
        config: of a training that begins.
        patch_px: side of the patches.

    Raises:
        OptionError: for an encoder that timm does not have, or that cannot be used with such patches; or where one is
            to be shared, and the two networks have not the same.
        BundleError: where the gate asks for large tiles, and an encoder takes no more than a patch.
    """
    for kind, network in (("classifier", config.classifier), ("segmenter", config.segmenter)):
        name = encoder_of(network)
        if name is None or "encoder_arguments" in network.arguments:
            continue  # none of ours, or it says itself how it is built
        arguments = {**network.arguments, **fitted(name, patch_px)}
        config = config.changed(**{kind: {"arguments": arguments}})
    if config.shared_encoder and (encoder_of(config.classifier) is None or _unlike(config)):
        raise OptionError("shared_encoder is for two lite networks with the same encoder: give both the same, or none")
    check_sides(config.gate.mode, config.classifier.arguments, config.segmenter.arguments)
    return config


def _unlike(config: TrainingConfig) -> bool:
    """Whether the two networks have different encoders."""
    one, other = (
        (encoder_of(part), part.arguments.get("encoder_arguments")) for part in (config.classifier, config.segmenter)
    )
    return one != other
