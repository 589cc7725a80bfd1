"""What of a configuration may change when a training is resumed: nothing but more epochs."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from wsiseg.errors import OptionError
from wsiseg.system.json_values import JsonObject
from wsiseg.training.config import TrainingConfig

STAGES = ("stage1", "stage2")
_OPTIONS = {
    "preset": "--preset",
    "seed": "--seed",
    "val_share": "--val-share",
    "precision": "--precision",
    "gate.mode": "--gate",
    "classifier.initial_weights": "--init-stage1",
    "segmenter.initial_weights": "--init-stage2",
    "classifier.arguments.encoder": "--encoder",
    "segmenter.arguments.encoder": "--encoder",
    "stage1.epochs": "--epochs1",
    "stage2.epochs": "--epochs2",
    "stage1.batch_size": "--batch-size",
    "stage2.batch_size": "--batch-size",
    "refit": "--refit",
    "encoder_training": "--encoder-training",
    "shared_encoder": "--shared-encoder",
    "hold_weights": "--hold-weights",
    "feature_cache": "--feature-cache",
}
"""Options of the command line by the setting that they change."""


def check_same(root: Path, before: JsonObject, now: JsonObject) -> None:
    """Refuse a resumed training with other settings, but for more epochs.

    Args:
        root: the training's folder.
        before: the configuration that it began with.
        now: the one asked for.

    Raises:
        OptionError: with the first setting that differs, its option, and both values.
    """
    old, new = _flat(before), _flat(now)
    for name in (*new, *(key for key in old if key not in new)):
        was, wanted = old.get(name), new.get(name)
        if was == wanted or (name not in old and (not wanted or wanted == _default(name))):  # of a newer version
            continue
        option = f" ({_OPTIONS[name]})" if name in _OPTIONS else ""
        begun = f"{root} was begun with {name} {_text(was)}{option}, now it is {_text(wanted)}"
        if name not in {f"{stage}.epochs" for stage in STAGES}:
            raise OptionError(f"{begun}; give the same, or --overwrite")
        if not (isinstance(was, int) and isinstance(wanted, int) and wanted >= was):
            raise OptionError(f"{begun}; epochs can be extended, not cut: give at least as many, or --overwrite")


def lengthened(before: JsonObject, now: JsonObject) -> list[str]:
    """The stages ("stage1", "stage2") that are to have more epochs than before."""
    return [stage for stage in STAGES if now[stage]["epochs"] > before[stage]["epochs"]]


def _flat(values: JsonObject, prefix: str = "") -> JsonObject:
    """Nested settings by their full name, `stage1.epochs`."""
    found: JsonObject = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _default(name: str) -> object:
    """The value that a setting has where nothing is said, by its full name; None where it has none."""
    part: object = TrainingConfig
    for key in name.split("."):
        field = part.model_fields.get(key) if isinstance(part, type) and issubclass(part, BaseModel) else None
        if field is None:
            return None
        part = field.annotation
    return field.default if field is not None and not field.is_required() else None


def _text(value: object) -> str:
    return "not set" if value is None else str(value)
