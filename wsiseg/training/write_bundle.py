"""The bundle of a finished training: its networks, their gate, what they were made from, and how far that reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from safetensors.torch import load_file

from wsiseg.models.bundle import save_bundle
from wsiseg.models.distance import LEAST_PATCHES
from wsiseg.models.networks.segmenter import Segmenter
from wsiseg.models.spec import EncoderSpec
from wsiseg.system.json_values import JsonObject
from wsiseg.training.distance import add_distance
from wsiseg.training.encoder_training import FROZEN
from wsiseg.training.encoders import held_elsewhere, licence_notes
from wsiseg.training.refit import cross_validated
from wsiseg.training.run_folder import Run
from wsiseg.training.shared_gate import tile_fields
from wsiseg.training.weights import plain_network, trained_classifier


def _held_elsewhere(run: Run, kind: str) -> JsonObject:
    """The field `encoder` of a network; a frozen one lies where the model that a training went on from has it."""
    before = getattr(run.origin.spec.networks, kind).encoder if run.origin is not None else None
    if before is not None and run.config.encoder_training == FROZEN:
        return {"encoder": before.model_dump(mode="json")}
    return held_elsewhere(run.config, kind)


def _not_held_before(run: Run) -> list[EncoderSpec | None]:
    networks = run.origin.spec.networks if run.origin is not None else None
    return [] if networks is None else [networks.classifier.encoder, networks.segmenter.encoder]


def write_bundle(run: Run, out: Path, overwrite: bool, compared: JsonObject) -> None:
    """Write the bundle of a finished training, with how far its training data reach, and say where it is.

    Args:
        run: whose networks, pseudo masks and gate are there.
        out: folder of the bundle.
        overwrite: replace one that is there.
        compared: how the model compares with the one that it went on from; empty where there is none.
    """
    config, data = run.config, run.data
    segmenter = plain_network(run, "segmenter")
    segmenter.load_state_dict(load_file(run.folder.segmenter))
    tiles = tile_fields(config, data.patch_size_px)
    arguments = {"classifier": config.classifier.arguments, "segmenter": config.segmenter.arguments}
    if config.gate.is_shared:
        cast(Segmenter, segmenter).add_shared_gate(len(data.classes)).load_state_dict(load_file(run.folder.shared_gate))
        arguments["segmenter"] = {**arguments["segmenter"], "shared_gate": True}
        tiles["shared_gate"] = json.loads(run.folder.shared_gate_done.read_text(encoding="utf-8"))["gate"]
    elsewhere = {kind: _held_elsewhere(run, kind) for kind in arguments}
    fields: JsonObject = {
        "classes": data.classes,
        "mpp": data.mpp,
        "patch_size_px": data.patch_size_px,
        "overlap": config.overlap,
        "gate": json.loads(run.folder.masks_done.read_text(encoding="utf-8"))["gate"],
        "gate_rule": config.gate.rule,
        "gate_context": config.gate.context,
        "gate_floor": config.gate.floor,
        **tiles,
        "networks": {
            kind: {
                **{"architecture": part.architecture, "arguments": arguments[kind], "mean": part.mean, "std": part.std},
                **elsewhere[kind],
            }
            for kind, part in (("classifier", config.classifier), ("segmenter", config.segmenter))
        },
        "licence": data.about.get("licence", "not stated"),
        "training_data": data.about.get("description") or data.about.get("name") or data.root.resolve().name,
        "citation": data.about.get("citation", ""),
        "training": {
            **config.model_dump(mode="json"),
            "train_patches": len(data.train),
            "val_patches": len(data.val),
            "dataset_sha256": data.fingerprint,
            **({"continued": compared} if compared else {}),
            **({"cross_validation": cross_validated(run).to_json()} if config.refit else {}),
        },
    }
    save_bundle(
        out, fields, trained_classifier(run), segmenter, overwrite=overwrite or out.exists(), half=config.half_weights
    )
    if any(found.get("encoder", {}).get("held") == "outside" for found in elsewhere.values()):
        run.say(f"How far a patch is from the training data: add it with wsiseg models distance {out.name} PATCHES")
    elif add_distance(out, data, run.device) is None:
        run.say(
            f"How far a patch is from the training data will not be known: that takes {LEAST_PATCHES} patches of two "
            "groups or more"
        )
    for note in licence_notes(config, _not_held_before(run)):
        run.say(f"note: {note}")
    run.say(f"Model: {out} (steps of its training: {run.folder.root})")
