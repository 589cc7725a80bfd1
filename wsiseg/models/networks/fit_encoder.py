"""Which sides an encoder of timm takes, found by trying, and written into its arguments before it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import JsonValue

from wsiseg.errors import OptionError
from wsiseg.geometry import ceil_div
from wsiseg.models.networks.lite import DEFAULT_ENCODER
from wsiseg.models.networks.timm_encoders import FEWEST_MAPS, TimmEncoder, can_be_dilated, is_dynamic, known

Arguments = dict[str, JsonValue]


def fitted(encoder: str, patch_px: int) -> Arguments:
    """Arguments that the lite networks need for this encoder and patches of this side; none where any side will do.

    Encoders whose windows or position embeddings follow from a side are built for the patch's. Where such a one takes
    multiples of it as well, larger images are filled up to these; else it takes no larger images.

    Args:
        encoder: a name of timm's.
        patch_px: side of the patches.

    Raises:
        OptionError: where timm has no such encoder, or it cannot be used, and why.
    """
    if encoder == DEFAULT_ENCODER or can_be_dilated(known(encoder)) or is_dynamic(encoder):
        return {}
    first, stride = _tried(encoder, {}, patch_px)
    if first is None:
        return {}
    side = ceil_div(patch_px, stride) * stride
    reason, _ = _tried(encoder, {"encoder_arguments": {"img_size": side}, "multiple_px": side}, side, 2 * side)
    if reason is None:
        return {"encoder_arguments": {"img_size": side}, "multiple_px": side}
    for size, arguments in ((side, {"img_size": side}), (_own_side(encoder), {})):
        found: Arguments = {"encoder_arguments": dict(arguments), "fixed_px": size}
        if size >= patch_px and _tried(encoder, found, patch_px, patch_px)[0] is None:
            return found
    raise OptionError(f"{encoder} of timm cannot be used with patches of {patch_px} px: {first}")


def _tried(encoder: str, arguments: Mapping[str, Any], side: int, other: int | None = None) -> tuple[str | None, int]:
    """Why the encoder cannot be built, or shown a square and a larger picture, in one line; None where it can.

    Also its largest stride, or 32.
    """
    stride = 32
    try:
        network = TimmEncoder(
            encoder,
            FEWEST_MAPS,
            arguments.get("encoder_arguments"),
            arguments.get("multiple_px"),
            arguments.get("fixed_px"),
        ).eval()
        stride = max(network.strides)
        longer = side + stride if other is None else other
        with torch.inference_mode():
            for height, width in ((side, side), (side, longer)):
                network(network.filled_up(torch.zeros(1, 3, height, width)))
    except Exception as error:
        return " ".join(str(error).split())[:160] or type(error).__name__, stride
    return None, stride


def _own_side(encoder: str) -> int:
    """The side that timm built the encoder for."""
    import timm  # noqa: PLC0415

    config = timm.get_pretrained_cfg(encoder)
    return 224 if config is None else int(config.input_size[-1])
