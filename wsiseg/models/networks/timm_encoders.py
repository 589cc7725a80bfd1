"""Encoders of timm that cannot be dilated: their feature maps as they are, of several scales or of one.

DenseNet, VGG and HRNet have no dilated form, and transformers none either. A plain vision transformer has maps of one
scale: those behind a half, three quarters and the whole of its blocks stand for the scales of others. Nothing here
loads weights.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.errors import OptionError
from wsiseg.models.networks.unfilled import unfilled
from wsiseg.system.json_values import JsonObject

_LOG = logging.getLogger(__name__)

FEWEST_MAPS, MOST_MAPS = 3, 4
_FINEST_STRIDE = 4
_LARGEST = 65536
_MOST_BLOCKS = 256

_NUMBERS = frozenset(
    ("img_size", "patch_size", "depth", "num_heads", "embed_dim", "mlp_ratio", "init_values", "reg_tokens")
)
_SWITCHES = frozenset(
    (
        *("dynamic_img_size", "no_embed_class", "class_token", "qkv_bias", "qk_norm", "pre_norm"),
        *("strict_img_size", "dynamic_mask", "use_rel_pos", "use_abs_pos", "ref_feat_shape"),
    )
)
_LAYERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "mlp_layer": {"swiglu_packed": "SwiGLUPacked", "swiglu": "SwiGLU", "glu": "GluMlp", "mlp": "Mlp"},
        "act_layer": {"silu": "", "gelu": "", "relu": "", "quick_gelu": "", "gelu_tanh": ""},
        "pos_embed": {"learn": "", "none": ""},
        "global_pool": {"": "", "token": "", "avg": ""},
    }
)
"""Arguments that are words, and the class of timm's layers that a word stands for; "" where timm takes the word."""


def known(encoder: str) -> str:
    """The name of an encoder that timm has; raises `OptionError` for others, and for what timm would download."""
    import timm  # noqa: PLC0415  (it takes seconds to import)

    if not timm.is_model(encoder):
        raise OptionError(f"timm {timm.__version__} knows no encoder {encoder!r:.60}")
    return encoder


def checked_arguments(arguments: object) -> JsonObject:
    """Keyword arguments of timm's builder from a bundle or a hub's config.json: what shapes layers, and nothing else.

    Raises:
        ValueError: an argument that is not known, or out of its range.
    """
    if not isinstance(arguments, Mapping):
        raise ValueError(f"encoder_arguments must be a table, got {arguments!r:.60}")  # noqa: TRY004
    for key, value in arguments.items():
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if key in _NUMBERS and numeric and 0 <= value <= (_MOST_BLOCKS if key == "depth" else _LARGEST):
            continue
        if (key in _SWITCHES and isinstance(value, bool)) or (key in _LAYERS and value in _LAYERS[key]):
            continue
        raise ValueError(f"encoder_arguments: {key!s:.40} = {value!r:.60} is no argument of an encoder")
    return dict(arguments)


def features(encoder: str, arguments: Mapping[str, Any], maps: int = MOST_MAPS, **more: Any) -> Any:
    """Timm's feature extractor with `maps` maps, fewer where the encoder has not as many, NCHW, with random weights.

    Args:
        encoder: a name of timm's.
        arguments: of its builder, checked here.
        maps: 3 or 4, the deepest ones.
        more: of timm's `create_model`, unchecked.

    Raises:
        ValueError: it gives no three feature maps.
    """
    import timm  # noqa: PLC0415

    given = {**_with_layers(checked_arguments(arguments)), **more}
    indices = _indices(known(encoder), given, maps)
    made: Any = timm.create_model(encoder, **{"pretrained": False, **given}, features_only=True, out_indices=indices)
    if str(getattr(made, "output_fmt", "NCHW")).rpartition(".")[2] != "NCHW":  # its own maps are channels last
        made = timm.create_model(
            encoder, **{"pretrained": False, **given}, features_only=True, out_indices=indices, feature_cls="getter"
        )
    return made


def _with_layers(arguments: Mapping[str, Any]) -> JsonObject:
    import timm.layers  # noqa: PLC0415

    return {
        key: getattr(timm.layers, _LAYERS[key][value]) if _LAYERS.get(key, {}).get(value) else value
        for key, value in arguments.items()
    }


def _indices(encoder: str, given: Mapping[str, Any], maps: int) -> tuple[int, ...]:
    """Numbers of the maps to take: the deepest of each scale, or of one scale those at quarters of its depth."""
    shapes = {key: value for key, value in given.items() if not key.startswith("pretrained")}
    made = _tried(encoder, features_only=True, out_indices=(-1,), **shapes)
    if made is None:
        taken = f", or does not take {shapes!r:.120}" if shapes else ""
        raise ValueError(f"{encoder} of timm gives no feature maps{taken}")
    strides = [int(info["reduction"]) for info in made.feature_info.info]
    if len(set(strides)) == 1:
        found = sorted({max(0, round(len(strides) * (part + 1) / MOST_MAPS) - 1) for part in range(MOST_MAPS)})
    else:
        last = {stride: index for index, stride in enumerate(strides)}
        found = [index for stride, index in last.items() if stride >= _FINEST_STRIDE]
    if len(found) < FEWEST_MAPS:
        raise ValueError(f"{encoder} gives {len(found)} feature maps of use, {FEWEST_MAPS} are needed")
    return tuple(found[-maps:])


@cache
def can_be_dilated(encoder: str) -> bool:
    """Whether timm has the encoder at output stride 16, and so the networks that there have always been."""
    made = _tried(known(encoder), features_only=True, output_stride=16, out_indices=(-3, -2, -1))
    return made is not None and bool(made.feature_info.reduction()[-1] == 16)


def _tried(encoder: str, **arguments: Any) -> Any:
    """The encoder with these arguments, best without memory; None where it does not take them."""
    import timm  # noqa: PLC0415

    for place in (unfilled, nullcontext):  # some cannot be built without numbers
        try:
            with place():
                return timm.create_model(encoder, pretrained=False, **arguments)
        except (TypeError, AssertionError, ValueError, AttributeError):  # how encoders refuse arguments
            return None
        except Exception as error:  # each is other people's code
            _LOG.debug("%s with %s: %s", encoder, arguments, error)
    return None


class TimmEncoder(nn.Module):
    """An encoder of timm without dilation, for images of any size, or of one.

    Args:
        encoder: a name of timm's.
        maps: how many feature maps to return, the deepest ones.
        arguments: of timm's builder; None asks for position embeddings of any size where there are some.
        multiple_px: sides are filled up to a multiple of this; None takes the largest stride.
        fixed_px: the only side that the encoder takes, to which smaller images are filled up; None for any.

    Attributes:
        arguments: of timm's builder, as they were used.
        model: timm's feature extractor.
        channels: of each map.
        strides: likewise.

    Raises:
        ValueError: for what is no encoder, or has no three maps.
    """

    def __init__(
        self,
        encoder: str,
        maps: int,
        arguments: Mapping[str, Any] | None = None,
        multiple_px: int | None = None,
        fixed_px: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("multiple_px", multiple_px), ("fixed_px", fixed_px)):
            if value is not None and (not isinstance(value, int) or not 1 <= value <= 8192):
                raise ValueError(f"{name} must be 1 to 8192, got {value!r:.60}")
        if arguments is None:
            arguments = {"dynamic_img_size": True} if is_dynamic(encoder) else {}
        self.arguments = dict(arguments)
        self.model: nn.Module = features(encoder, arguments, maps)
        info: Any = self.model.feature_info
        self.channels: list[int] = info.channels()
        self.strides: list[int] = info.reduction()
        self.multiple_px = multiple_px or max(self.strides)
        self.fixed_px = fixed_px

    def filled_up(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) whose sides the encoder can take: what is added on the right and below repeats the edge.

        Raises:
            OptionError: where the encoder takes one size alone, and this is larger.
        """
        height, width = images.shape[-2:]
        if self.fixed_px is not None:
            if max(height, width) > self.fixed_px:
                raise OptionError(f"this encoder takes images up to {self.fixed_px} px a side, got {width} x {height}")
            right, below = self.fixed_px - width, self.fixed_px - height
        else:
            right, below = -width % self.multiple_px, -height % self.multiple_px
        return F.pad(images, (0, right, 0, below), mode="replicate") if right or below else images

    def settle(self, height: int, width: int) -> None:
        """Resample position embeddings now, for images of this size: exporters do not resample as torch does."""
        inner = getattr(self.model, "model", None)
        if inner is None or getattr(inner, "pos_embed", None) is None:
            return
        if self.arguments.get("dynamic_img_size"):
            filled = self.filled_up(torch.zeros(1, 3, height, width)).shape[-2:]
            inner.set_input_size((int(filled[0]), int(filled[1])))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps (N, C, h, w), shallow to deep, of images that `filled_up` has seen."""
        maps: list[Tensor] = self.model(images)
        return list(maps)


@cache
def is_dynamic(encoder: str) -> bool:
    """Whether timm can resample the encoder's position embeddings, or windows, for any size."""
    return _tried(known(encoder), dynamic_img_size=True) is not None
