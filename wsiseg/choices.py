"""What may be chosen: each list of names, and each default that the command line shows, once.

Imports nothing, so that `wsiseg --help` stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal, TypeVar, get_args

from wsiseg.errors import OptionError

GateRule = Literal["exclude", "multiply_logits"]
GATE_RULES: tuple[GateRule, ...] = get_args(GateRule)

GateMode = Literal["patches", "windows", "shared"]
GATE_MODES: tuple[GateMode, ...] = get_args(GateMode)

Probabilities = Literal["full", "coarse", "none"]
PROBABILITIES: tuple[Probabilities, ...] = get_args(Probabilities)
"""How much of the probabilities a map keeps; see `wsiseg.tissue_map.probability_levels`."""

TISSUE_METHODS = ("otsu", "none")
"""Ways to find tissue; a file of one's own is another."""

RUNTIMES = ("auto", "torch", "compiled", "openvino")
PRECISIONS = ("float32", "bfloat16", "auto")
"""Arithmetic of networks that predict."""

EVALUATION_PRECISIONS = ("float32", "bfloat16")

READER_LIBRARIES: Mapping[str, str] = {
    "openslide": "openslide",
    "tiff": "tifffile",
    "image": "PIL",
    "tiffslide": "tiffslide",
    "dicom": "pydicom",
}
"""Readers by name, and the module that each imports. `wsiseg.slides` has a function for each that opens a slide."""

READERS = tuple(READER_LIBRARIES)

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

StageName = Literal["1", "masks", "2", "all"]
STAGES: tuple[StageName, ...] = get_args(StageName)

LoggerName = Literal["csv", "tensorboard", "both", "none"]
LOGGERS: tuple[LoggerName, ...] = get_args(LoggerName)

TrainingPrecision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
TRAINING_PRECISIONS: tuple[TrainingPrecision, ...] = get_args(TrainingPrecision)

EncoderTraining = Literal["full", "frozen", "lora"]
ENCODER_TRAININGS: tuple[EncoderTraining, ...] = get_args(EncoderTraining)
"""What is learned of a pretrained encoder."""

Background = Literal["bright", "none"]
BACKGROUNDS: tuple[Background, ...] = get_args(Background)
"""Background of pseudo masks."""

Preset = Literal["lite", "published"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

DEFAULT_RETRY_S = 60.0
"""Seconds for which a server is asked again, counted from the first failure of a request."""

DEFAULT_READ_TIMEOUT_S = 300.0
"""Seconds after which a read of a slide that does not come back ends a run."""

Name = TypeVar("Name", bound=str)


AUTO = "auto"
"""Leaves a choice to the program."""


def left_open(choice: str | None) -> bool:
    """Whether a choice of a device, a runtime or a precision is the program's."""
    return choice == AUTO


def half(precision: str) -> bool:
    """Whether a precision is bfloat16."""
    return precision == "bfloat16"


def check_choice(kind: str, value: object, choices: tuple[Name, ...]) -> None:
    """Refuse what is not among the choices.

    Args:
        kind: what is chosen, with its article: "a gate rule".
        value: what was given.
        choices: all that may be given.

    Raises:
        OptionError: for anything else; it names the closest choice.
    """
    if value in choices:
        return
    close = get_close_matches(str(value), choices, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise OptionError(f"expected {kind} among {', '.join(choices)}, got {value!r:.60}{hint}")
