"""The settings of a training as one TOML file: written with every key documented, read with every key checked."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from wsiseg.choices import Background, GateMode
from wsiseg.errors import OptionError
from wsiseg.models.gate_kinds import MODES
from wsiseg.system.json_values import JsonObject
from wsiseg.training.config import PRESETS, PseudoMaskConfig, SupervisionConfig, TrainingConfig, lite_config
from wsiseg.training.faithful import faithful
from wsiseg.training.losses import SupervisionOptions
from wsiseg.training.pseudo_masks import PseudoMaskOptions

NOT_SET = "none"
"""The word in the file for a setting without a value, because TOML has none."""

OF_ENCODER = ("encoder", "encoder_arguments", "multiple_px", "fixed_px")
"""Arguments of the lite networks that belong to one encoder."""

_BYTES_MAX = 2**20
_WIDTH = 110
_DESCRIBED_BY: dict[type[BaseModel], type] = {
    PseudoMaskConfig: PseudoMaskOptions,
    SupervisionConfig: SupervisionOptions,
}
_ATTRIBUTE = re.compile(r"^ {8}(\w+): (.*(?:\n {12,}.*)*)", re.MULTILINE)


def effective_config(
    path: Path | None = None,
    preset: str | None = None,
    encoder: str | None = None,
    published_background: Background | None = None,
    gate_mode: GateMode | None = None,
) -> TrainingConfig:
    """The settings of a preset, changed by those of a file.

    Args:
        path: TOML file; None for none.
        preset: wins over the file's `preset`; "lite" where neither says.
        encoder: of the lite networks, with its normalisation and weights; wins over the file's. See
            `wsiseg.models.weights.encoder_sources.find_encoder`.
        published_background: makes the preset behave as the published program, with this background; see
            `wsiseg.training.faithful`. The file wins over it. None leaves the preset as it is.
        gate_mode: wins over the file's `gate.mode`. A mode that a gate's context does not go with switches the preset's
            off, but is refused beside one that the file asks for.

    Raises:
        OptionError: a file that cannot be read, an unknown key, a value out of its range.
    """
    values = read_settings(path) if path else {}
    if gate_mode is not None:
        values["gate"] = {**values.get("gate", {}), "mode": gate_mode}
    mode = MODES.get(values.get("gate", {}).get("mode"))  # another one is refused later, by name
    if mode is not None and mode.large_tiles:
        values["gate"].setdefault("context", 0.0)
    named = values.pop("preset", "lite")
    preset = preset or named
    if preset not in PRESETS:
        raise OptionError(f"preset must be {' or '.join(PRESETS)}, got {preset!r:.60}")
    if encoder is not None and preset != "lite":
        raise OptionError("--encoder belongs to --preset lite")
    if preset != "lite":
        return _behaving(PRESETS[preset](), published_background).changed(**values)
    part = values.get("classifier")
    arguments = part.get("arguments") if isinstance(part, dict) else None
    named_encoder = arguments.get("encoder") if isinstance(arguments, dict) else None
    chosen = encoder or named_encoder
    base = lite_config(chosen) if isinstance(chosen, str) else lite_config()
    base = _behaving(base, published_background)
    config = base.changed(**values)
    if encoder is None:
        return config
    for name in ("classifier", "segmenter"):
        network = getattr(base, name)
        kept = {key: value for key, value in getattr(config, name).arguments.items() if key not in OF_ENCODER}
        changed = {"mean": network.mean, "std": network.std, "published": network.published}
        if "initial_weights" not in values.get(name, {}):
            changed["initial_weights"] = network.initial_weights
        config = config.changed(**{name: {**changed, "arguments": {**kept, **network.arguments}}})
    return config


def _behaving(config: TrainingConfig, published_background: Background | None) -> TrainingConfig:
    return config if published_background is None else faithful(config, published_background)


def read_settings(path: Path) -> JsonObject:
    """Read a TOML file of settings: keys are checked, "none" becomes None; `TrainingConfig` checks the values.

    Raises:
        OptionError: a file that cannot be read, or an unknown key, with the nearest known one.
    """
    try:
        content = path.read_bytes()
        if len(content) > _BYTES_MAX:
            raise OptionError(f"{path} has {len(content)} bytes, expected settings of at most {_BYTES_MAX}")
        values = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}), give a TOML file of settings") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise OptionError(f"{path} is not TOML ({reason:.100}); `wsiseg train --print-config` shows one") from error
    return _checked(values, TrainingConfig, "", path)


def _checked(values: JsonObject, model: type[BaseModel], prefix: str, path: Path) -> JsonObject:
    checked: JsonObject = {}
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None:
            raise OptionError(f"{path}: unknown key {prefix}{key!s:.60}{_nearest(key, model)}")
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            if not isinstance(value, dict):
                raise OptionError(f"{path}: {prefix}{key} must be a table, [{prefix}{key}], got {value!r:.60}")
            checked[key] = _checked(value, part, f"{prefix}{key}.", path)
        else:
            optional = type(None) in getattr(part, "__args__", ())
            checked[key] = None if optional and value == NOT_SET else value
    return checked


def _nearest(key: str, model: type[BaseModel]) -> str:
    """A hint: the full name of the known key that an unknown one is nearest to."""
    known = {
        **{f"{table}.{name}": name for table, name in _nested_keys()},
        **{name: name for name in model.model_fields},
    }
    own = difflib.get_close_matches(key, list(model.model_fields), 1, 0.5)
    if own and key not in known.values():
        prefixes = [name for name, field in TrainingConfig.model_fields.items() if field.annotation is model]
        return f", did you mean {prefixes[0] + '.' if len(prefixes) == 1 else ''}{own[0]}?"
    near = [key] if key in known.values() else difflib.get_close_matches(key, sorted(set(known.values())), 1, 0.5)
    if near:
        return f", did you mean {next(full for full, name in known.items() if name == near[0])}?"
    return f", expected one of {', '.join(model.model_fields)}"


def _nested_keys() -> list[tuple[str, str]]:
    return [
        (table, name)
        for table, field in TrainingConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for name in field.annotation.model_fields
    ]


def format_settings(config: TrainingConfig) -> str:
    """A whole TOML file of settings, each key under its description; `effective_config` reads it back the same."""
    plain, tables = [], []
    described = descriptions(TrainingConfig)
    for name in TrainingConfig.model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            parts = [_comment(described[name]), f"[{name}]"]
            about = descriptions(type(value))
            parts += [
                f"{_comment(about[key])}\n{key} = {_toml(getattr(value, key))}" for key in type(value).model_fields
            ]
            tables.append("\n".join(parts))
        else:
            plain.append(f"{_comment(described[name])}\n{name} = {_toml(value)}")
    head = f'# Settings of `wsiseg train --config`. Keys left out are the preset\'s; "{NOT_SET}" switches one off.'
    return "\n\n".join([head, "\n".join(plain), *tables]) + "\n"


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The description of each field of a part, taken from its docstring's attributes."""
    found: dict[str, str] = {}
    for source in (model, _DESCRIBED_BY.get(model)):
        for match in _ATTRIBUTE.finditer(_docstring(source)) if source else ():
            if match[1] in model.model_fields:
                found[match[1]] = " ".join(match[2].split())
    return found


def _docstring(source: type) -> str:
    """The text as it is in the file: attributes indented by eight (Python 3.13 strips what is common)."""
    text = source.__doc__ or ""
    return text if "\n    Attributes:" in text else text.replace("\n", "\n    ")


def _comment(text: str) -> str:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + len(word) + 1 > _WIDTH:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return "\n".join([*lines, line])


def _toml(value: object) -> str:
    if value is None:
        return f'"{NOT_SET}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(str(key))} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    if isinstance(value, str):
        return _quoted(value)
    return json.dumps(cast(float, value))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
