"""A model whose answer is known: it tells red, green and blue pixels apart.

A real model in every respect (a `TissueModel` of a classifier and a segmenter), so that a map can be compared with
what was painted, pixel by pixel.
"""

from typing import Any

import torch
from torch import Tensor, nn

from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.spec import parse_spec
from wsiseg.models.tissue_model import TissueModel

NAMES = ("Red", "Green", "Blue")
COLORS = {1: (230, 40, 40), 2: (40, 230, 40), 3: (40, 40, 230)}
"""What a painter uses for each class, all of it tissue: saturated, and not white."""


class ColorClassifier(Classifier):
    """The probability of a class follows from the share of pixels of its colour: one in a hundred is one half."""

    depths = ("pixels", "pixels", "pixels")

    def __init__(self) -> None:
        super().__init__()
        self.fc8 = nn.Conv2d(3, 3, 1, bias=False)
        self.feature_dropout = nn.Identity()

    def features(self, images: Tensor) -> dict[str, Tensor]:
        other = images.sum(dim=1, keepdim=True) - images
        return {"pixels": (images - other / 2 > 0.3).float()}

    def head(self, deepest: Tensor, *_: Any, **__: Any) -> Tensor:
        return (deepest.mean(dim=(2, 3)) - 0.01) * 1000


class ColorSegmenter(nn.Module):
    """Logits that are larger the more a pixel has of a class's colour."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 4


def color_model(*, mpp: float = 1.0, patch_px: int = 64, overlap: float = 0.25, gate: float = 0.5) -> TissueModel:
    """The model, with any patch size, overlap and threshold."""
    network = {"architecture": "lite_classifier", "mean": [0, 0, 0], "std": [1, 1, 1], "sha256": "0" * 64}
    spec = parse_spec(
        {
            "format_version": 1,
            "name": "colours",
            "classes": [{"index": i, "name": name, "color": COLORS[i]} for i, name in enumerate(NAMES, start=1)],
            "mpp": mpp,
            "patch_size_px": patch_px,
            "overlap": overlap,
            "gate_threshold": gate,
            "networks": {
                "classifier": {**network, "file": "classifier.safetensors"},
                "segmenter": {**network, "file": "segmenter.safetensors"},
            },
            "licence": "Apache-2.0",
            "training_data": "none",
            "tool_version": "0",
            "created": "2026-01-01T00:00:00+00:00",
        },
        "test",
    )
    classifier = ColorClassifier()
    torch.nn.init.eye_(classifier.fc8.weight.data[:, :, 0, 0])
    return TissueModel(spec, "f" * 64, classifier, ColorSegmenter())
