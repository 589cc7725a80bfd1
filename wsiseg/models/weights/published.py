"""Bundles from published checkpoints: the networks of the paper's program, as `wsiseg predict` wants them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from wsiseg.classes import ClassTable
from wsiseg.models.bundle import check_fields, check_output, save_bundle
from wsiseg.models.networks.architectures import build_network
from wsiseg.models.spec import BundleSpec, file_sha256
from wsiseg.models.weights.checkpoints import read_state, whole
from wsiseg.system.json_values import JsonObject

PATCH_SIZE_PX, OVERLAP, GATE_THRESHOLD = 224, 0.5, 0.1
"""Patches and gate of the published program, and the overlap of this one."""

CITATION = (
    "Han et al., Multi-Layer Pseudo-Supervision for Histopathology Tissue Semantic Segmentation using Patch-level "
    "Classification Labels, Medical Image Analysis 80:102487 (2022)"
)
LICENCE = "not stated: that of the published checkpoints"

_ARCHITECTURES = {"classifier": "resnet38", "segmenter": "deeplabv3plus_resnet101"}
_UNCHANGED = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
"""The published networks see pixels in [0, 1], nothing else."""


def import_bundle(
    stage1: Path,
    stage2: Path,
    classes: ClassTable,
    mpp: float,
    out: Path,
    *,
    patch_size_px: int = PATCH_SIZE_PX,
    overlap: float | None = None,
    faithful: bool = False,
    name: str | None = None,
    licence: str = LICENCE,
    citation: str = CITATION,
    training_data: str = "not stated",
    overwrite: bool = False,
) -> BundleSpec:
    """Make a bundle of a published classifier and a published segmenter.

    Args:
        stage1: weights of ResNet-38, a torch checkpoint or safetensors; see
            `wsiseg.models.weights.checkpoints.read_state`.
        stage2: weights of DeepLabV3+ on ResNet-101 likewise.
        classes: in the order of the networks' channels.
        mpp: microns per pixel of the patches that they were trained on.
        out: the bundle's folder.
        patch_size_px: side of those patches.
        overlap: share of a patch that its neighbour covers as well at prediction; 0.5 by default, or 0 if `faithful`.
        faithful: gate as the published program does; see `BundleSpec.gate_rule`.
        name: of the model, the folder's by default.
        licence: of the weights.
        citation: how they want to be cited.
        training_data: what they were trained on.
        overwrite: replace a bundle.

    Raises:
        OptionError: where a file is missing, holds anything but tensors, or is of another network or other classes.
        OutputError: where `out` cannot be written.
        BundleError: where a value is out of its range.
    """
    out = check_output(out, overwrite)
    fields: JsonObject = {
        "name": name or out.name,
        "classes": classes,
        "mpp": mpp,
        "patch_size_px": patch_size_px,
        "overlap": overlap if overlap is not None else 0.0 if faithful else OVERLAP,
        "gate": [GATE_THRESHOLD] * len(classes),
        "gate_rule": "multiply_logits" if faithful else "exclude",
        "networks": {
            kind: {"architecture": architecture, "arguments": {}, **_UNCHANGED}
            for kind, architecture in _ARCHITECTURES.items()
        },
        "licence": licence,
        "training_data": training_data,
        "citation": citation,
    }
    check_fields(fields)
    files = {"classifier": stage1, "segmenter": stage2}
    networks = {kind: _network(kind, path, len(classes)) for kind, path in files.items()}
    fields["training"] = {
        "imported": {kind: {"file": path.name, "sha256": file_sha256(path)} for kind, path in files.items()},
        "faithful": faithful,
    }
    return save_bundle(out, fields, networks["classifier"], networks["segmenter"], overwrite=overwrite)


def _network(kind: str, path: Path, num_classes: int) -> nn.Module:
    """A published network with the weights of a file; built without memory of its own, which the file's becomes."""
    state = read_state(path)
    with torch.device("meta"):
        network = build_network(kind, _ARCHITECTURES[kind], num_classes, {})
    network.load_state_dict(whole(state, network.state_dict(), path), assign=True)
    return network
