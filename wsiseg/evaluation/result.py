"""What an evaluation found, for programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.evaluation.figures import OVERALL, PER_CLASS, Figure
from wsiseg.evaluation.gate import GateReport
from wsiseg.evaluation.truth import TruthKind
from wsiseg.system.json_values import JsonObject

FORMAT = 1
"""Of the JSON; raised when a key changes its meaning or goes."""

FLIPS = "flips"
TITLES = {
    "no_gate": "no gate",
    "predicted_gate": "predicted gate",
    "oracle_gate": "oracle gate (true labels)",
    FLIPS: "predicted gate, flips averaged",
}
"""The columns, in their order."""


@dataclass(frozen=True, eq=False)
class Column:
    """One way of predicting.

    Attributes:
        key: as in `TITLES`.
        confusion: (K, K) pixels or cells, rows true, columns predicted.
        overall: figures of all classes.
        per_class: figures of each class, by its name.
    """

    key: str
    confusion: npt.NDArray[np.int64]
    overall: dict[str, Figure]
    per_class: dict[str, dict[str, Figure]]

    @property
    def title(self) -> str:
        """For people."""
        return TITLES[self.key]

    def to_json(self) -> JsonObject:
        """Plain JSON."""
        return {
            "title": self.title,
            "confusion": self.confusion.tolist(),
            "figures": {name: figure.to_json() for name, figure in self.overall.items()},
            "classes": {n: {f: figure.to_json() for f, figure in row.items()} for n, row in self.per_class.items()},
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found.

    Attributes:
        kind: of truth: "pixels", "cells", or "labels" (then there is nothing but the gate's report).
        classes: names, in the order of the confusion matrices.
        columns: by key, in the order of `TITLES`.
        gate: the gate's own figures.
        chosen_thresholds: of each class, where they were asked for.
        data: name, split, mpp, and counts of the images and groups.
        model: name and hash.
        settings: what it was run with.
    """

    kind: TruthKind
    classes: tuple[str, ...]
    columns: dict[str, Column]
    gate: GateReport
    chosen_thresholds: tuple[float, ...] | None
    data: JsonObject
    model: JsonObject
    settings: JsonObject

    def to_json(self) -> JsonObject:
        """Plain JSON, null where a figure is undefined."""
        chosen = self.chosen_thresholds
        return {
            "format": FORMAT,
            "model": self.model,
            "data": self.data,
            "truth": self.kind,
            "classes": list(self.classes),
            "settings": self.settings,
            "columns": {key: column.to_json() for key, column in self.columns.items()},
            "gate": self.gate.to_json(),
            "chosen_thresholds": None if chosen is None else list(chosen),
        }


def column_of(
    key: str,
    confusion: npt.NDArray[np.int64],
    figures: dict[str, list[Figure]],
    kind: TruthKind,
    names: tuple[str, ...],
) -> Column:
    """A column from the figures that belong to this kind of truth."""
    overall = {name: figures[name][0] for name in OVERALL[kind]}
    per_class = {name: {f: figures[f][k] for f in PER_CLASS[kind]} for k, name in enumerate(names)}
    return Column(key, confusion, overall, per_class)
