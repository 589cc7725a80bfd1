"""Which class of a data set is which of the model's, and what becomes of those that only one of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wsiseg.classes import ClassTable
from wsiseg.errors import DatasetError

Others = Literal["count", "leave-out"]
OTHERS: tuple[Others, ...] = ("count", "leave-out")
"""Of classes that the model does not know: each pixel counts as an error, or does not count."""


@dataclass(frozen=True, slots=True)
class ClassMatch:
    """The classes of an evaluation.

    Attributes:
        names: of the confusion matrices: the model's, then those of the data set that it does not know, U in all.
        known: K, how many of them are the model's.
        compared: channels of the classes that both have, of which there are figures.
        channels: channel of each class of the data set; U for one that is left out.
        notes: what a person should know of it.
    """

    names: tuple[str, ...]
    known: int
    compared: tuple[int, ...]
    channels: Mapping[str, int]
    notes: tuple[str, ...] = ()


def match_classes(
    data: Sequence[str], model: ClassTable, merged: Mapping[str, str] | None = None, others: Others = "count"
) -> ClassMatch:
    """Match classes by name, in any order.

    Args:
        data: class names of the data set.
        model: the model's classes.
        merged: class of the data set -> class of the model, or empty where it is left out.
        others: what becomes of classes that the model does not know.

    Raises:
        DatasetError: the two have no class in common, or `merged` names one that is not there.
    """
    merged = merged or {}
    for name, target in merged.items():
        if name not in data:
            raise DatasetError(f"--map {name}={target}: the data set has no class {name!r:.60}, only {', '.join(data)}")
        if target and target not in model.names:
            raise DatasetError(
                f"--map {name}={target}: the model has no class {target!r:.60}, only {', '.join(model.names)}"
            )
    targets = {name: merged.get(name, name) for name in data}
    unknown = [name for name, target in targets.items() if target and target not in model.names]
    foreign = unknown if others == "count" else []
    names = (*model.names, *foreign)
    channels = {name: names.index(target) if target in names else len(names) for name, target in targets.items()}
    compared = tuple(sorted({channel for channel in channels.values() if channel < len(model)}))
    if not compared:
        raise DatasetError(
            f"the data set has {', '.join(data)}, the model {', '.join(model.names)}: no class in common; say which is "
            "which with --map CLASS=CLASS"
        )
    return ClassMatch(names, len(model), compared, channels, _notes(unknown, model, compared, others))


def _notes(unknown: Sequence[str], model: ClassTable, compared: Sequence[int], others: Others) -> tuple[str, ...]:
    notes = []
    if unknown:
        what = "counts as an error (--others leave-out leaves it out)" if others == "count" else "does not count"
        notes.append(f"the model does not know {', '.join(unknown)}: what is truly that {what}")
    if lacking := [name for channel, name in enumerate(model.names) if channel not in compared]:
        notes.append(f"the data set has no {', '.join(lacking)}: what the model calls so counts as an error")
    return tuple(notes)
