"""Model bundles: networks as prediction uses them, loaded from a folder and written to one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wsiseg.classes import ClassTable
from wsiseg.errors import BundleError, OutputError
from wsiseg.models.calibration import load as load_calibration
from wsiseg.models.distance import load as load_distance
from wsiseg.models.folder import (
    CALIBRATION_FILE,
    CARD_FILE,
    EVALUATION_FILE,
    SPEC_FILE,
    file_sha256,
    find_bundle,
    list_bundles,
)
from wsiseg.models.gate_kinds import MODES
from wsiseg.models.networks.architectures import build_network
from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.networks.segmenter import check_shared_gate
from wsiseg.models.spec import BundleSpec, NetworkSpec, bundle_hash, checked_weights, parse_spec, read_spec
from wsiseg.models.tissue_model import TissueModel, checked_device
from wsiseg.models.weights.outside import encoder_names, fill_lacking
from wsiseg.system.files import put_folder, refuse_address
from wsiseg.system.json_values import JsonObject

__all__ = ["find_bundle", "list_bundles", "load_model", "read_spec", "save_bundle"]

_STORED_TYPES = {"F32", "F16", "BF16", "I64"}


def load_model(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    runtime: str = "auto",
    precision: str = "float32",
    *,
    exact: bool | None = None,
    batch_size: int | None = None,
) -> TissueModel:
    """The model of a shipped name, or in a bundle's folder, ready to predict on `device`.

    Args:
        name_or_path: a shipped model's name, or a bundle's folder.
        device: "cpu", "cuda", "cuda:1", …
        runtime: what computes the networks, "auto", "torch", "compiled" or "openvino".
        precision: "float32", "bfloat16" or "auto".
        exact: see `TissueModel.prepare`.
        batch_size: likewise.

    Raises:
        BundleError: where the bundle is missing, incomplete, altered, newer than this program, or where its
            weights do not fit its networks.
        DeviceError: where the device does not exist, or the runtime does not.
        OptionError: for an unknown runtime or precision.
    """
    target = checked_device(device)
    folder = find_bundle(name_or_path)
    spec = read_spec(folder)
    classifier = _load_network(folder, "classifier", spec.networks.classifier, len(spec.classes))
    segmenter = _load_network(folder, "segmenter", spec.networks.segmenter, len(spec.classes), classifier)
    if MODES[spec.gate_mode].shared_head:
        check_shared_gate(segmenter, spec.name)
    distance = load_distance(folder, spec.networks.classifier.sha256)
    calibration = load_calibration(folder, spec.networks)
    network = cast(Classifier, classifier)
    model = TissueModel(spec, bundle_hash(folder), network, segmenter, distance, calibration).to(target)
    return model.prepare(runtime, precision, exact=exact, batch_size=batch_size)


def _load_network(
    folder: Path, kind: str, network: NetworkSpec, num_classes: int, lender: nn.Module | None = None
) -> nn.Module:
    """A network with its weights; `lender` is the classifier, whose encoder a segmenter may have.

    It is first built on the meta device, without memory, and compared with the file's header: so a bundle that
    asks for an absurd network is refused before anything is allocated, and no time goes into initial weights.
    """
    module = build_network(kind, network.architecture, num_classes, network.arguments, empty=True)
    if kind == "classifier" and not isinstance(module, Classifier):
        raise BundleError(f"{network.architecture} is no classifier")
    path = checked_weights(folder, network)
    try:
        with safe_open(path, framework="pt") as file:
            _check_shapes(path, file, module, encoder_names(module) if network.encoder is not None else set())
            # Weights may be stored in 16 bits; networks compute in 32.
            state = {name: _widened(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is not a whole safetensors file ({error!s:.100})") from error
    if network.encoder is not None:
        module = build_network(kind, network.architecture, num_classes, network.arguments)
        module.load_state_dict(state, strict=False)
        fill_lacking(module, network, lender)
        return module
    module.load_state_dict(state, assign=True)
    if any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()]):
        # A buffer that is not part of the weights still has no memory: only the builder knows its values.
        module = build_network(kind, network.architecture, num_classes, network.arguments)
        module.load_state_dict(state)
    return module


def _widened(tensor: Tensor) -> Tensor:
    """A copy: the tensor is a view of the file, which may change while a run goes on, or shrink and end the process."""
    return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()


def _check_shapes(path: Path, file: Any, module: nn.Module, lacking: set[str]) -> None:
    """Refuse a weight file whose tensors are not exactly those of the network, without the `lacking` ones."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if name not in lacking}
    names = set(file.keys())
    for problem, odd in (("lacks", set(wanted) - names), ("has an unknown", names - set(wanted))):
        if odd:
            more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
            raise BundleError(f"{path} {problem} tensor {min(odd)!r:.100}{more}: it belongs to another network")
    for name, shape in wanted.items():
        part = file.get_slice(name)
        if tuple(part.get_shape()) != shape:
            raise BundleError(f"{path}: tensor {name!r} must be of shape {shape}, got {tuple(part.get_shape())}")
        if part.get_dtype() not in _STORED_TYPES:
            raise BundleError(f"{path}: tensor {name!r} is of type {part.get_dtype()}, expected float or int64")


def save_bundle(
    folder: str | Path,
    fields: Mapping[str, Any],
    classifier: nn.Module,
    segmenter: nn.Module,
    *,
    overwrite: bool = False,
    half: bool = False,
) -> BundleSpec:
    """Write a bundle: to a temporary folder beside `folder`, then renamed, so that a bundle is always whole.

    Args:
        folder: the bundle's folder; its parent is created.
        fields: those of `BundleSpec`, as plain JSON (`classes` may be a `ClassTable`). In `networks`, `file` and
            `sha256` are filled in here, and a network with `encoder` is stored without its encoder; `name` defaults to
            the folder's, `tool_version` and `created` to now.
        classifier: stage 1; its state dict is what is stored.
        segmenter: stage 2 likewise.
        overwrite: replace a folder that is a bundle already; files in it that are no weights are kept.
        half: store weights of two dimensions and more (convolutions) in 16 bits; half the size.

    Returns:
        What was written to `model.json`.

    Raises:
        OutputError: where `folder` exists and is not to be, or must not be, overwritten, or cannot be written.
        BundleError: where the fields make no bundle.
    """
    folder = check_output(folder, overwrite)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")
    try:
        temporary.mkdir(parents=True)
        for kind, module in (("classifier", classifier), ("segmenter", segmenter)):
            weights = temporary / f"{kind}.safetensors"
            held_elsewhere = dict(fields.get("networks", {})).get(kind, {}).get("encoder")
            lacking = encoder_names(module) if held_elsewhere else set()
            # In memory first, so that a full disk is an OSError, with its reason.
            weights.write_bytes(save(_storable(module, half, lacking)))
        spec = parse_spec(_complete(fields, folder.name, temporary), str(folder / SPEC_FILE))
        (temporary / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")
        _keep_others(folder, temporary)
        put_folder(temporary, folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return spec


def check_output(folder: str | Path, overwrite: bool) -> Path:
    """Where a bundle will be written, resolved.

    Raises:
        OptionError: it is an address.
        OutputError: where something is there that is not to be, or must not be, overwritten.
    """
    refuse_address(folder)
    folder = Path(folder).resolve()
    if folder.exists() and not (folder / SPEC_FILE).is_file():
        raise OutputError(f"{folder} exists and is no model bundle, choose another name")
    if folder.exists() and not overwrite:
        raise OutputError(f"{folder} exists, choose another name or allow overwriting")
    return folder


def check_fields(fields: Mapping[str, Any]) -> None:
    """Refuse the fields of `save_bundle` that would make no bundle, before there are weights.

    Raises:
        BundleError: where they do not.
    """
    networks = {
        kind: {**network, "file": f"{kind}.safetensors", "sha256": "0" * 64}
        for kind, network in dict(fields.get("networks", {})).items()
    }
    parse_spec({"format_version": 1, "tool_version": "", "created": "", **fields, "networks": networks}, "the bundle")


def _keep_others(folder: Path, temporary: Path) -> None:
    """Copy what is neither weights nor measured on them, such as a model card, from the bundle that is replaced."""
    for path in folder.iterdir() if folder.is_dir() else ():
        of_weights = path.suffix == ".safetensors" or path.name in (EVALUATION_FILE, CALIBRATION_FILE, CARD_FILE)
        if path.is_file() and not of_weights and not (temporary / path.name).exists():
            shutil.copy2(path, temporary / path.name)


def _storable(module: nn.Module, half: bool, lacking: set[str]) -> dict[str, Tensor]:
    """A state dict of tensors that own their memory, on the CPU, without the `lacking` ones."""
    return {
        name: tensor.detach()
        .to("cpu", torch.float16 if half and tensor.is_floating_point() and tensor.ndim >= 2 else tensor.dtype)
        .clone(memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
        if name not in lacking
    }


def _complete(fields: Mapping[str, Any], name: str, folder: Path) -> JsonObject:
    """The fields of `model.json`, with files and hashes of the networks in `folder`."""
    networks = {}
    for kind, network in dict(fields.get("networks", {})).items():
        file = f"{kind}.safetensors"
        if not (folder / file).is_file():
            raise BundleError(f"a bundle has the networks classifier and segmenter, got {kind!r:.60}")
        networks[kind] = {**network, "file": file, "sha256": file_sha256(folder / file)}
    given = dict(fields)
    if isinstance(given.get("classes"), ClassTable):
        given["classes"] = given["classes"].to_json()
    is_new = given.get("gate_floor") is not None or any(network.get("encoder") for network in networks.values())
    defaults = {
        "format_version": 2 if is_new else 1,
        "name": name,
        "tool_version": version("wsiseg"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # Through JSON, so that what is not JSON fails here and not in whoever reads the bundle.
    try:
        return cast(JsonObject, json.loads(json.dumps({**defaults, **given, "networks": networks}, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise BundleError(f"the fields of a bundle must be plain JSON: {error}") from error
