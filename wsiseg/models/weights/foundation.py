"""The published pathology encoders by name: how each is built, what it was shown, and what its licence allows.

Configurations are those that their authors publish beside the weights. No weights are here: most are given on request.
docs/encoders.md is made of this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import JsonValue

Channels = tuple[float, float, float]

IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BIOPTIMUS: tuple[Channels, Channels] = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_HIBOU: tuple[Channels, Channels] = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
_HALVES: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

_NO_DERIVATIVES = "CC-BY-NC-ND-4.0"
_GATED: dict[str, JsonValue] = {"mlp_layer": "swiglu_packed", "act_layer": "silu"}
_SIDE: dict[str, JsonValue] = {"img_size": 224, "dynamic_img_size": True}


@dataclass(frozen=True, slots=True)
class Foundation:
    """One published encoder.

    Attributes:
        hub: OWNER/NAME on the Hugging Face hub.
        architecture: a name of timm's.
        arguments: of timm's builder.
        input_px: side of the patches that it was trained on.
        normalisation: mean and standard deviation of pixels in [0, 1].
        licence: of the weights, as the hub's page states it.
        may_be_shared: whether a bundle may hold the weights.
        file: of the weights on the hub, where it is not called as usual.
    """

    hub: str
    architecture: str
    arguments: Mapping[str, JsonValue]
    input_px: int
    normalisation: tuple[Channels, Channels]
    licence: str
    may_be_shared: bool
    file: str | None = None


def _dinov2(kind: str, patch_px: int, **more: JsonValue) -> tuple[str, dict[str, JsonValue]]:
    return kind, {**_SIDE, "patch_size": patch_px, "init_values": 1e-5, **more}


def _entry(
    hub: str,
    built: tuple[str, dict[str, JsonValue]],
    normalisation: tuple[Channels, Channels],
    licence: str,
    may_be_shared: bool,
    file: str | None = None,
) -> Foundation:
    architecture, arguments = built
    side = arguments["img_size"]
    assert isinstance(side, int)
    return Foundation(hub, architecture, arguments, side, normalisation, licence, may_be_shared, file)


_GIANT_REGISTERS, _HUGE, _LARGE = "vit_giant_patch14_reg4_dinov2", "vit_huge_patch14_224", "vit_large_patch16_224"
_OWKIN = "Owkin non-commercial licence"

FOUNDATION: Mapping[str, Foundation] = MappingProxyType(
    {
        "uni": _entry("MahmoodLab/UNI", _dinov2(_LARGE, 16), IMAGENET, _NO_DERIVATIVES, False),
        "uni2-h": _entry(
            "MahmoodLab/UNI2-h",
            _dinov2(
                "vit_giant_patch14_224", 14, depth=24, num_heads=24, embed_dim=1536, mlp_ratio=5.33334,
                no_embed_class=True, reg_tokens=8, **_GATED,
            ),
            IMAGENET, _NO_DERIVATIVES, False,
        ),
        "virchow": _entry(
            "paige-ai/Virchow", _dinov2(_HUGE, 14, mlp_ratio=5.3375, **_GATED), IMAGENET, "Apache-2.0", True
        ),
        "virchow2": _entry(
            "paige-ai/Virchow2", _dinov2(_HUGE, 14, mlp_ratio=5.3375, reg_tokens=4, **_GATED), IMAGENET,
            _NO_DERIVATIVES, False,
        ),
        "gigapath": _entry(
            "prov-gigapath/prov-gigapath",
            _dinov2("vit_giant_patch14_dinov2", 16, embed_dim=1536, depth=40, num_heads=24, mlp_ratio=5.33334),
            IMAGENET, "Apache-2.0", True,
        ),
        "h-optimus-0": _entry(
            "bioptimus/H-optimus-0", _dinov2(_GIANT_REGISTERS, 14), _BIOPTIMUS, "Apache-2.0", True
        ),
        "h-optimus-1": _entry(
            "bioptimus/H-optimus-1", _dinov2(_GIANT_REGISTERS, 14), _BIOPTIMUS, _NO_DERIVATIVES, False
        ),
        "h0-mini": _entry(
            "bioptimus/H0-mini", _dinov2("vit_base_patch14_reg4_dinov2", 14, mlp_ratio=5.33334, **_GATED), _BIOPTIMUS,
            _NO_DERIVATIVES, False,
        ),
        "phikon": _entry(
            "owkin/phikon", ("vit_base_patch16_224", {**_SIDE, "patch_size": 16}), IMAGENET, _OWKIN, False
        ),
        "phikon-v2": _entry("owkin/phikon-v2", _dinov2(_LARGE, 16), IMAGENET, _OWKIN, False),
        "conch-v1.5": _entry(
            "MahmoodLab/TITAN",
            (_LARGE, {"img_size": 448, "dynamic_img_size": True, "patch_size": 16, "init_values": 1.0}),
            IMAGENET, _NO_DERIVATIVES, False, "conch_v1_5_pytorch_model.bin",
        ),
        "hibou-b": _entry(
            "histai/hibou-b", _dinov2("vit_base_patch14_reg4_dinov2", 14), _HIBOU, "Apache-2.0", True
        ),
        "hibou-l": _entry(
            "histai/hibou-L", _dinov2("vit_large_patch14_reg4_dinov2", 14), _HIBOU, "Apache-2.0", True
        ),
        "midnight-12k": _entry(
            "kaiko-ai/midnight", _dinov2("vit_giant_patch14_dinov2", 14), _HALVES, "MIT", True
        ),
    }
)  # fmt: skip
"""By the name that `--encoder` takes."""


def foundation_of(name: str) -> Foundation | None:
    """The entry of a name, or of a hub's OWNER/NAME with or without `hf-hub:`; None where there is none."""
    if name.lower() in FOUNDATION:
        return FOUNDATION[name.lower()]
    hub = name.removeprefix("hf-hub:").partition("@")[0].lower()
    return next((entry for entry in FOUNDATION.values() if entry.hub.lower() == hub), None)
