"""What `--encoder` may name: an encoder of timm, a pathology encoder, a hub's OWNER/NAME, or a folder of a snapshot."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from wsiseg.errors import OptionError
from wsiseg.models.networks.timm_encoders import checked_arguments, is_dynamic, known
from wsiseg.models.weights.foundation import IMAGENET, Channels, foundation_of
from wsiseg.system.json_values import JsonObject

HUB = "hf-hub:"
CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
_CONFIG_BYTES = 2**20
_HUB_NAME = re.compile(r"^[\w.-]{1,96}/[\w.-]{1,96}(@[\w.-]{1,96})?$")
_TRANSFORMERS = ("vit", "dinov2", "dinov2_with_registers", "hibou")
_IGNORED = ("in_chans", "num_classes", "global_pool", "name", "fc_norm")


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """An encoder and where its weights are.

    Attributes:
        architecture: a name of timm's.
        arguments: of timm's builder; None for timm's own.
        normalisation: mean and standard deviation of pixels in [0, 1].
        weights: "imagenet" for timm's own, "hf-hub:OWNER/NAME", or a folder.
        published: OWNER/NAME of a pathology encoder of the table; "" for others.
    """

    architecture: str
    arguments: dict[str, JsonValue] | None
    normalisation: tuple[Channels, Channels]
    weights: str
    published: str = ""


def find_encoder(name: str) -> EncoderSource:
    """What a name stands for; of a hub's, config.json is fetched, or taken from the hub's cache.

    Raises:
        OptionError: where there is no such encoder, or its configuration cannot be had or used.
    """
    if (entry := foundation_of(name)) is not None:
        weights = name if name.startswith(HUB) else f"{HUB}{entry.hub}"
        return EncoderSource(entry.architecture, dict(entry.arguments), entry.normalisation, weights, entry.hub)
    if name.startswith(HUB):
        return _configured(hub_file(name, [CONFIG_FILE]).parent, name)
    folder = Path(name)
    if ("/" in name or "\\" in name or name.startswith(".")) or (folder.is_dir() and (folder / CONFIG_FILE).is_file()):
        if not folder.is_dir():
            raise OptionError(f"there is no folder {name!r:.120}; an encoder of the hub is hf-hub:OWNER/NAME")
        return _configured(folder, str(folder.resolve()))
    return EncoderSource(known(name), None, _own_normalisation(name), "imagenet")


def _own_normalisation(encoder: str) -> tuple[Channels, Channels]:
    import timm  # noqa: PLC0415

    config = timm.get_pretrained_cfg(encoder)
    if config is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return _channels(config.mean), _channels(config.std)


def _channels(values: Sequence[Any]) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _configured(folder: Path, weights: str) -> EncoderSource:
    """From the config.json of a snapshot, timm's or transformers'."""
    path = folder / CONFIG_FILE
    fields = _read(path)
    try:
        if "architecture" in fields:
            return _of_timm(fields, weights)
        if fields.get("model_type") in _TRANSFORMERS:
            return _of_transformers(fields, folder, weights)
    except (ValueError, TypeError, KeyError) as error:
        raise OptionError(f"{path} describes an encoder that cannot be built here: {error!s:.160}") from error
    kind = fields.get("model_type", "no known kind")
    raise OptionError(
        f"{path} describes {kind!s:.60}: expected an encoder of timm, or of transformers ({', '.join(_TRANSFORMERS)})"
    )


def _read(path: Path) -> JsonObject:
    try:
        if path.stat().st_size > _CONFIG_BYTES:
            raise OptionError(f"{path} has more than {_CONFIG_BYTES} bytes, that is no configuration of an encoder")
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}), expected a snapshot of a hub's model") from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{path} is not JSON ({error!s:.100})") from error
    if not isinstance(fields, dict):
        raise OptionError(f"{path} must hold one JSON object")
    return fields


def _of_timm(fields: JsonObject, weights: str) -> EncoderSource:
    architecture = known(str(fields["architecture"]))
    given = {key: value for key, value in (fields.get("model_args") or {}).items() if key not in _IGNORED}
    config = fields.get("pretrained_cfg") or fields
    if isinstance(config.get("input_size"), list) and config.get("fixed_input_size"):
        given.setdefault("img_size", config["input_size"][-1])
    if is_dynamic(architecture):
        given["dynamic_img_size"] = True
    arguments = checked_arguments(given)
    mean, std = config.get("mean"), config.get("std")
    own = _own_normalisation(architecture)
    normalisation = own if mean is None or std is None else (_channels(mean), _channels(std))
    return EncoderSource(architecture, arguments, normalisation, weights)


def _of_transformers(fields: JsonObject, folder: Path, weights: str) -> EncoderSource:
    registers = int(fields.get("num_register_tokens", 0))
    gated = bool(fields.get("use_swiglu_ffn", False))
    ratio = float(fields.get("mlp_ratio", 0) or fields["intermediate_size"] / fields["hidden_size"])
    if gated:  # as many numbers as a plain layer of that ratio, in three matrices, rounded up to eights
        hidden = (int(int(fields["hidden_size"] * ratio) * 2 / 3) + 7) // 8 * 8
        ratio = 2 * hidden / fields["hidden_size"]
    arguments: JsonObject = {
        "img_size": int(fields["image_size"]),
        "patch_size": int(fields["patch_size"]),
        "embed_dim": int(fields["hidden_size"]),
        "depth": int(fields["num_hidden_layers"]),
        "num_heads": int(fields["num_attention_heads"]),
        "mlp_ratio": ratio,
        "dynamic_img_size": True,
    }
    if fields["model_type"] != "vit":
        arguments["init_values"] = 1e-5
    if registers:
        arguments |= {"reg_tokens": registers, "no_embed_class": True}
    if gated:
        arguments |= {"mlp_layer": "swiglu_packed", "act_layer": "silu"}
    seen = folder / "preprocessor_config.json"
    shown = _read(seen) if seen.is_file() else {}
    normalisation = IMAGENET
    if "image_mean" in shown and "image_std" in shown:
        normalisation = (_channels(shown["image_mean"]), _channels(shown["image_std"]))
    return EncoderSource("vit_base_patch16_224", checked_arguments(arguments), normalisation, weights)


def hub_file(source: str, names: Sequence[str]) -> Path:
    """The first of some files that a hub's repository has, from its cache or fetched into it.

    Raises:
        OptionError: where it cannot be had.
    """
    identity, _, revision = source.removeprefix(HUB).partition("@")
    if not _HUB_NAME.match(source.removeprefix(HUB)):
        raise OptionError(f"expected hf-hub:OWNER/NAME, got {source!r:.120}")
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    for client in ("huggingface_hub", "httpx", "urllib3"):  # their retries would fill the screen
        logging.getLogger(client).setLevel(logging.CRITICAL)
    reason = ""
    for name in names:
        try:
            return Path(hf_hub_download(identity, name, revision=revision or None))
        except Exception as error:
            reason = reason or " ".join(str(error).split())
    raise OptionError(
        f"{names[0]} of {source} could not be had ({reason:.120}); if its owner asks for that, accept the terms and "
        "set HF_TOKEN; or download it elsewhere and give the folder"
    )


def weight_file(source: str) -> Path:
    """The file of weights that a source means: a file, one in a folder, or one of the hub.

    Args:
        source: as `EncoderSource.weights`, but not "imagenet"; or a file.

    Raises:
        OptionError: where there is none.
    """
    if source.startswith(HUB):
        entry = foundation_of(source)
        own = [] if entry is None or entry.file is None else [entry.file]
        return hub_file(source, [*own, *WEIGHT_FILES])
    path = Path(source)
    if path.is_dir():
        for name in WEIGHT_FILES:
            if (path / name).is_file():
                return path / name
        raise OptionError(f"{path} has no weights: expected one of {', '.join(WEIGHT_FILES)}")
    if not path.is_file():
        raise OptionError(f"there is no file of weights {str(path)!r:.120}")
    return path
