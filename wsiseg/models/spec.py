"""What a model bundle says about itself: `model.json`, read and checked without loading a network.

A bundle is a folder with `model.json` and one `.safetensors` file for each of its two networks. It comes from
outside and is treated as hostile: sizes are bounded, no file may lie outside the folder, hashes are checked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    Strict,
    ValidationError,
    model_serializer,
    model_validator,
)

from wsiseg.choices import GateMode, GateRule
from wsiseg.classes import ClassTable
from wsiseg.errors import BundleError, OptionError
from wsiseg.geometry import MPP_MAX, MPP_MIN
from wsiseg.models.folder import (
    MAX_SPEC_BYTES,
    MAX_WEIGHT_BYTES,
    SPEC_FILE,
    file_inside,
    file_sha256,
    find_bundle,
    read_fields,
)
from wsiseg.models.gate_kinds import MODES, check_gate_floor
from wsiseg.models.tile_shape import (
    MAX_TILE_PX,
    check_gate_mode,
    check_margin,
    check_sides,
    check_tile,
    overlap_px,
    tiling,
)
from wsiseg.system.json_values import JsonObject
from wsiseg.tiling.grid import Tiling

FORMAT_VERSION = 2
"""The newest format of `model.json` that this program reads. It writes 1 where that says all: 2 has `encoder` and
`gate_floor`."""

THRESHOLDS: dict[GateMode, str] = {"patches": "gate", "windows": "gate", "shared": "shared_gate"}
"""The field of `BundleSpec` that has the thresholds of each gate mode."""
WHITE_WORDS = frozenset(
    (
        *("adi", "adipocyte", "adipocytes", "adipose", "fat", "fatty", "muc", "mucin", "mucus"),
        *("air", "back", "background", "empty", "glass", "lumen", "lumina", "white"),
    )
)
"""Words in class names of models that were taught what is white in a slide."""

_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.safetensors$"
_SHA256 = r"^[0-9a-f]{64}$"


def _classes(value: object) -> ClassTable:
    if isinstance(value, ClassTable):
        return value
    if not isinstance(value, list | tuple):
        raise OptionError("classes must be a list of index, name and color")
    return ClassTable.from_json(value)


Classes = Annotated[ClassTable, PlainValidator(_classes), PlainSerializer(ClassTable.to_json)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Channel = Annotated[float, Field(allow_inf_nan=False)]
Deviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Listed = Strict(strict=False)
"""Of a tuple: it may come as a list, as JSON has it; its items are as strict as all else."""


class _Part(BaseModel):
    # Strict: a number is no text and no truth value, and a count is no 96.0.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), strict=True)


class EncoderSpec(_Part):
    """An encoder whose weights are not in the network's own file.

    Attributes:
        held: "classifier" where it is the classifier's encoder; "outside" where its licence does not let a bundle hold
            it, and it is looked for when the model is loaded (`wsiseg.models.weights.outside`).
        source: where it can be had, as "hf-hub:OWNER/NAME", or the name of the folder or file that it came from.
        sha256: of its tensors (`wsiseg.models.weights.tensor_files.tensors_sha256`), whatever file holds them.
        licence: of it.
    """

    held: Literal["classifier", "outside"]
    source: str = Field(default="", max_length=300)
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    licence: str = Field(default="", max_length=300)


class NetworkSpec(_Part):
    """One network of a bundle.

    Attributes:
        architecture: a key of `wsiseg.models.networks.architectures.ARCHITECTURES`.
        arguments: keyword arguments of its builder, without the number of classes.
        file: name of the weight file inside the bundle.
        sha256: its hash, in lower-case hexadecimal digits.
        encoder: of a lite network whose file lacks the encoder; else None.
        mean: per channel (red, green, blue), subtracted from pixels in [0, 1].
        std: per channel, what the difference is divided by.
    """

    architecture: str
    arguments: dict[str, JsonValue] = {}
    file: str = Field(pattern=_FILE_NAME)
    sha256: str = Field(pattern=_SHA256)
    encoder: EncoderSpec | None = None
    mean: Annotated[tuple[Channel, Channel, Channel], Listed]
    std: Annotated[tuple[Deviation, Deviation, Deviation], Listed]

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, handler: SerializerFunctionWrapHandler) -> JsonObject:
        fields: JsonObject = handler(self)
        if self.encoder is None:
            del fields["encoder"]
        return fields


class Networks(_Part):
    """The two networks: stage 1, which gates, and stage 2, which segments."""

    classifier: NetworkSpec
    segmenter: NetworkSpec


class Metric(_Part):
    """One measured figure.

    Attributes:
        name: what was measured, as "balanced accuracy" or "recall, Tumour".
        value: the figure.
        data: what it was measured on.
        low: lower end of its 95 % interval, where one was computed.
        high: upper end likewise.
    """

    name: str
    value: float = Field(allow_inf_nan=False)
    data: str
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)


class BundleSpec(_Part):
    """Everything that prediction needs to know of a model, and where the model came from.

    Attributes:
        format_version: of `model.json`.
        name: of the model.
        classes: the tissue classes, in the order of the networks' channels.
        mpp: microns per pixel of the patches that the networks see.
        patch_size_px: side of those patches.
        overlap: share of a patch that its neighbour covers as well, 0 up to (not with) 1.
        gate: for each class, the probability that it must exceed to be allowed in a patch. In place of the list,
            `gate_threshold` gives one value for all classes.
        gate_context: standard deviation, in sides of a patch, of the Gaussian by which the classifier's probabilities
            are averaged over the patches around each before the gate; 0 for none. See `wsiseg.models.context`.
        gate_floor: share of the most probable class's probability; a class that reaches it is allowed whatever its
            threshold. None for no such rule. See `wsiseg.models.gate.allowed_classes`.
        gate_rule: what becomes of a class that may not occur; "exclude" takes it out of the patch,
            "multiply_logits" multiplies its logits by 0, as the published program does.
        gate_mode: what the gate sees. "patches": each patch by itself, as the classifier learned it. "windows": large
            tiles, over which the classifier's activation maps are averaged in windows of a patch's size. "shared":
            likewise, of a head on the segmenter's own encoder; the classifier is not asked. See
            `wsiseg.models.large_tiles`.
        shared_gate: thresholds as in `gate`, of the shared head; None where the segmenter has none.
        tile_px: side of the tiles of "windows" and "shared": a patch's and a whole number of strides.
        tile_margin_px: half of what neighbouring tiles share.
        knows_white: whether the model was taught white, as glass, fat or mucus, and so is to name it itself; None
            goes by the names of its classes. See `sees_white`.
        networks: architecture, weights and normalisation of the classifier and the segmenter.
        licence: of the weights.
        training_data: what the model was trained on.
        citation: how that data wants to be cited.
        metrics: measured figures, each with its data.
        tool_version: the version of wsiseg that wrote the bundle.
        training: the whole training configuration.
        created: date and time, ISO 8601.
    """

    format_version: int = 1
    name: str = Field(min_length=1, max_length=200)
    classes: Classes
    mpp: float = Field(ge=MPP_MIN, le=MPP_MAX, allow_inf_nan=False)
    patch_size_px: int = Field(ge=16, le=4096)
    overlap: float = Field(default=0.25, ge=0, lt=1, allow_inf_nan=False)
    gate: Annotated[tuple[Share, ...], Listed]
    gate_rule: GateRule = "exclude"
    gate_context: float = Field(default=0.0, ge=0, le=20, allow_inf_nan=False)
    gate_floor: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    gate_mode: GateMode = "patches"
    shared_gate: Annotated[tuple[Share, ...], Listed] | None = None
    tile_px: int | None = Field(default=None, ge=16, le=MAX_TILE_PX)
    tile_margin_px: int = Field(default=0, ge=0, le=MAX_TILE_PX)
    knows_white: bool | None = None
    networks: Networks
    licence: str
    training_data: str
    citation: str = ""
    metrics: Annotated[tuple[Metric, ...], Listed] = ()
    tool_version: str
    training: dict[str, JsonValue] = {}
    created: str

    @model_validator(mode="before")
    @classmethod
    def _spread_gate_threshold(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "gate_threshold" not in data:
            return data
        if "gate" in data:
            raise ValueError("give gate or gate_threshold, not both")
        rest = {key: value for key, value in data.items() if key != "gate_threshold"}
        classes = data.get("classes")
        count = len(classes) if isinstance(classes, list | tuple | ClassTable) else 1
        return {**rest, "gate": (data["gate_threshold"],) * count}

    @model_validator(mode="after")
    def _check_gate(self) -> Self:
        if len(self.gate) != len(self.classes):
            raise ValueError(f"gate needs one threshold for each of the {len(self.classes)} classes")
        if self.networks.classifier.file == self.networks.segmenter.file:
            raise ValueError("the two networks need a weight file each")
        if self.shared_gate is not None and len(self.shared_gate) != len(self.classes):
            raise ValueError(f"shared_gate needs one threshold for each of the {len(self.classes)} classes")
        return self

    @model_validator(mode="after")
    def _check_tiles(self) -> Self:
        check_gate_mode(self.gate_mode, self.gate_context, self.gate_rule)
        check_gate_floor(self.gate_floor, self.gate_rule)
        check_sides(self.gate_mode, self.networks.classifier.arguments, self.networks.segmenter.arguments)
        if self.tile_px is not None:
            check_tile(self.tile_px, self.patch_size_px, self.stride_px)
            check_margin(self.tile_px, self.tile_margin_px)
        elif MODES[self.gate_mode].large_tiles:
            raise ValueError(f"gate_mode {self.gate_mode} needs tile_px, the side of its tiles")
        if MODES[self.gate_mode].shared_head and self.shared_gate is None:
            raise ValueError(f"gate_mode {self.gate_mode} needs shared_gate, the thresholds of the shared head")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, handler: SerializerFunctionWrapHandler) -> JsonObject:
        """A bundle without tiles or floor is written as it was before there were any, so that its hash stays."""
        fields: JsonObject = handler(self)
        for name in ("gate_floor", "gate_mode", "shared_gate", "tile_px", "tile_margin_px", "knows_white"):
            if name in fields and getattr(self, name) == type(self).model_fields[name].default:
                del fields[name]
        return fields

    @property
    def sees_white(self) -> bool:
        """Whether white tissue is the model's to name: as it says, or since a class is called after what is white."""
        if self.knows_white is not None:
            return self.knows_white
        return any(word in WHITE_WORDS for name in self.classes.names for word in re.split(r"[^a-z]+", name.lower()))

    @property
    def stride_px(self) -> int:
        """Pixels from patch to patch, as `wsiseg.tiling.grid.TileGrid.from_share` has them."""
        return self.patch_size_px - overlap_px(self.patch_size_px, self.overlap)

    def tiling(self, mode: GateMode | None = None, overlap: float | None = None) -> Tiling:
        """Size and overlap of what is read and segmented at once: patches, or in other gate modes tiles.

        Args:
            mode: of the gate; None takes the model's.
            overlap: share of a patch's side; None takes the model's. Tiles that do not fit it give way to others.
        """
        share = self.overlap if overlap is None else overlap
        check_sides(mode or self.gate_mode, self.networks.classifier.arguments, self.networks.segmenter.arguments)
        return tiling(mode or self.gate_mode, self.patch_size_px, share, self.tile_px, self.tile_margin_px)

    def to_json(self) -> str:
        """The text of `model.json`."""
        return self.model_dump_json(indent=2) + "\n"


def parse_spec(fields: JsonObject, source: str) -> BundleSpec:
    """A spec from the content of a `model.json`; `source` is named in the `BundleError` that bad content raises."""
    version = fields.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(f"{source}: format_version must be a whole number from 1, got {version!r:.40}")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{source} is of format {version}, this wsiseg reads up to {FORMAT_VERSION}: "
            "the bundle was made by a newer wsiseg, update this one"
        )
    try:
        return BundleSpec.model_validate(fields)
    except (ValidationError, OptionError) as error:
        raise BundleError(f"{source}: {_one_line(error)}") from error


def _one_line(error: ValidationError | OptionError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    shown = "" if isinstance(first["input"], dict) else f", got {first['input']!r:.60}"
    return f"{place + ': ' if place else ''}{first['msg']}{shown}{more}"


def read_spec(name_or_path: str | Path) -> BundleSpec:
    """The `model.json` of a shipped model's name or of a bundle's folder, checked; needs no torch and reads no weights.

    Raises:
        BundleError: where there is no such bundle, or its `model.json` is missing, damaged or newer.
    """
    path, fields = read_fields(name_or_path)
    return parse_spec(fields, str(path))


def bundle_hash(name_or_path: str | Path) -> str:
    """One SHA-256 for the whole model: that of `model.json`, which holds those of the weight files."""
    return file_sha256(file_inside(find_bundle(name_or_path), SPEC_FILE, MAX_SPEC_BYTES))


def checked_weights(folder: Path, network: NetworkSpec) -> Path:
    """The weight file of a network, its hash checked.

    Raises:
        BundleError: where the file is missing, outside the folder, too large, or not the one that was written.
    """
    path = file_inside(folder, network.file, MAX_WEIGHT_BYTES)
    found = file_sha256(path)
    if found != network.sha256:
        raise BundleError(
            f"{path} was altered or is incomplete (SHA-256 {found[:12]}…, {SPEC_FILE} says {network.sha256[:12]}…): "
            "copy or download the bundle again"
        )
    return path
