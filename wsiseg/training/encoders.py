"""The encoder of the lite networks: its arguments for the patches that it will see."""

from __future__ import annotations

from wsiseg.errors import OptionError
from wsiseg.models.folder import file_sha256
from wsiseg.models.networks.fit_encoder import fitted
from wsiseg.models.networks.lite import DEFAULT_ENCODER
from wsiseg.models.tile_shape import check_sides
from wsiseg.models.weights.encoder_sources import HUB, weight_file
from wsiseg.models.weights.foundation import foundation_of
from wsiseg.system.json_values import JsonObject
from wsiseg.training.config import NetworkConfig, TrainingConfig
from wsiseg.training.encoder_training import FROZEN

LITE = ("lite_classifier", "lite_segmenter")
"""Architectures on any encoder of timm."""


def held_elsewhere(config: TrainingConfig, kind: str, sha256: str = "") -> JsonObject:
    """The field `encoder` of a network of the bundle, where its weight file is to lack the encoder; else nothing.

    Args:
        config: of the training.
        kind: "classifier" or "segmenter".
        sha256: of the encoder's file, where its weights are frozen and not to be shared.
    """
    if sha256:
        network = getattr(config, kind)
        entry = foundation_of(network.published)
        source = f"{HUB}{network.published}"
        licence = "" if entry is None else entry.licence
        return {"encoder": {"held": "outside", "source": source, "sha256": sha256, "licence": licence}}
    return {"encoder": {"held": "classifier"}} if config.shared_encoder and kind == "segmenter" else {}


def outside_sha256(config: TrainingConfig, kind: str) -> str:
    """Hash of the file of a frozen encoder whose licence forbids sharing; "" for others."""
    network = getattr(config, kind)
    entry = foundation_of(network.published) if network.published else None
    if entry is None or entry.may_be_shared or config.encoder_training != FROZEN:
        return ""
    return file_sha256(weight_file(network.initial_weights)) if network.initial_weights != "none" else ""


def licence_notes(config: TrainingConfig) -> list[str]:
    """What a person must know before handing on a bundle whose encoder was learned further."""
    notes = []
    for name in sorted({config.classifier.published, config.segmenter.published} - {""}):
        entry = foundation_of(name)
        if entry is not None and not entry.may_be_shared and config.encoder_training != FROZEN:
            notes.append(
                f"this model holds weights made from {name}, whose licence ({entry.licence}) forbids handing them on; "
                "with --encoder-training frozen a bundle names them instead"
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
