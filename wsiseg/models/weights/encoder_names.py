"""Weights of vision transformers under the names of other programs, brought to timm's.

Of `transformers` (ViT, DINOv2, DINOv2 with registers; Phikon, Hibou and Midnight are stored so), and of the encoder
inside a model of image and text (CONCH's trunk). All others timm knows itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_PREFIXES = ("trunk.", "visual.trunk.", "backbone.", "teacher.backbone.", "model.")
_WORDS = (
    ("attention.output.dense", "attn.proj"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("mlp.weights_in", "mlp.fc1"),
    ("mlp.weights_out", "mlp.fc2"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
)
_LAYER = re.compile(r"^encoder\.layer\.(\d+)\.(.+)$")
_QKV = re.compile(r"^attention\.attention\.(query|key|value)\.(weight|bias)$")


def with_timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under timm's names; as it is, where it has them already or names that are not known."""
    if not _has_blocks(state):
        for prefix in _PREFIXES:
            inner = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            if _has_blocks(inner):
                state = inner
                break
    for prefix in ("vit.", "dinov2.", "dinov2_with_registers.", "hibou.", ""):
        inner = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
        if "embeddings.patch_embeddings.projection.weight" in inner:
            return _from_transformers(inner)
    return dict(state)


def _has_blocks(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(("blocks.", "patch_embed.")) for name in state)


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer = _LAYER.match(name)
        if layer is None:
            if name.startswith("layernorm."):
                found[name.replace("layernorm", "norm")] = tensor
            continue
        number, rest = layer.groups()
        if qkv := _QKV.match(rest):
            parts.setdefault((number, qkv[2]), {})[qkv[1]] = tensor
            continue
        for theirs, ours in _WORDS:
            if rest.startswith(theirs):
                rest = ours + rest.removeprefix(theirs)
                break
        found[f"blocks.{number}.{rest}"] = tensor
    for (number, kind), each in parts.items():
        if len(each) == 3:
            found[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat([each[part] for part in ("query", "key", "value")])
    return {**found, **_embeddings(state)}


def _embeddings(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    projection = "embeddings.patch_embeddings.projection"
    found = {
        f"patch_embed.proj.{kind}": state[f"{projection}.{kind}"]
        for kind in ("weight", "bias")
        if f"{projection}.{kind}" in state
    }
    token, places = state.get("embeddings.cls_token"), state.get("embeddings.position_embeddings")
    registers = state.get("embeddings.register_tokens")
    if token is None or places is None:
        return found
    if registers is None:
        return {**found, "cls_token": token, "pos_embed": places}
    # timm's networks with registers have positions for cells alone: the token's own is added to it for good.
    return {**found, "reg_token": registers, "cls_token": token + places[:, :1], "pos_embed": places[:, 1:]}
