"""What a model says of candidates, as choosing, showing and sorting take it; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wsiseg.arrays import Float32Array


@dataclass(frozen=True, slots=True)
class Advice:
    """A model's opinions of the candidates.

    Attributes:
        model_hash: of the model.
        names: of the model's classes.
        says: patch -> class name -> whether it occurs.
        probabilities: patch -> of each class (K,), in the order of the model's classes.
        features: patch -> (D,).
    """

    model_hash: str
    names: tuple[str, ...]
    says: Mapping[str, Mapping[str, bool]]
    probabilities: Mapping[str, Float32Array]
    features: Mapping[str, Float32Array]
