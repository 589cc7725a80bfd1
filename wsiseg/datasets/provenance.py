"""Where a labelled patch comes from: its slide and place, who labelled it, when, and what was shown to that person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from wsiseg.datasets.spreadsheet import number_of
from wsiseg.errors import DatasetError

STATUSES = ("labelled", "unsure", "excluded")
"""A row without status counts as labelled; the others are kept in the table and left out of training."""

CORRECTED = "corrected"
"""Source of patches that a person corrected on a map, `wsiseg correct`."""

_NUMBERS = ("x", "y", "size_px", "mpp", "round", "seconds")


@dataclass(frozen=True, slots=True)
class Provenance:
    """The columns of `labels.csv` that say where a row comes from; empty or None where it does not say.

    Attributes:
        slide: name of the slide, no path of somebody's machine.
        x: left edge of the patch, in level-0 pixels of the slide's bounds.
        y: upper edge.
        size_px: side of the patch in pixels at `mpp`.
        mpp: microns per pixel.
        status: "labelled", "unsure", "excluded", or empty.
        labeller: the person.
        round: of labelling, from 0.
        source: how the patch was chosen: "random", "uncertain", "repeat", "corrected", "annotated", …
        seconds: that the person took.
        shown_prediction: "1" where the person saw a prediction, "0" where not.
        time: ISO 8601, UTC.
        model_hash: of the model whose prediction was shown, corrected, or used to choose the patch.
    """

    slide: str = ""
    x: float | None = None
    y: float | None = None
    size_px: int | None = None
    mpp: float | None = None
    status: str = ""
    labeller: str = ""
    round: int | None = None
    source: str = ""
    seconds: float | None = None
    shown_prediction: str = ""
    time: str = ""
    model_hash: str = ""

    @classmethod
    def from_row(cls, row: Mapping[str, str | None]) -> Provenance:
        """From a row of a table.

        Raises:
            DatasetError: a number that is none, or an unknown status; the message names the column.
        """
        values: dict[str, str | float | int | None] = {}
        for name in COLUMNS:
            text = (row.get(name) or "").strip()
            values[name] = _number(name, text) if name in _NUMBERS else text
        values["status"] = str(values["status"]).casefold()
        if values["status"] not in ("", *STATUSES):
            raise DatasetError(f"status must be {', '.join(STATUSES)} or empty, got {values['status']!r:.40}")
        return cls(**values)  # type: ignore[arg-type]

    def to_row(self) -> dict[str, str]:
        """The columns as text."""
        found = {name: getattr(self, name) for name in COLUMNS}
        return {
            name: "" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)
            for name, value in found.items()
        }

    @property
    def teaches(self) -> bool:
        """Whether a training learns from the row."""
        return self.status in ("", "labelled")

    @property
    def stated(self) -> bool:
        """Whether the row says itself what is known, so that an empty label is an unknown one."""
        return bool(self.status)


COLUMNS = tuple(field.name for field in fields(Provenance))
"""In the order in which they are written."""


def _number(name: str, text: str) -> float | int | None:
    if not text:
        return None
    found = number_of(text)
    value = float("nan") if found is None else found
    whole = name in ("round", "size_px")
    if not abs(value) < 1e12 or (whole and value != int(value)):  # not a number, or infinite
        raise DatasetError(f"{name} must be a {'whole ' if whole else ''}number, got {text!r:.40}")
    return int(value) if whole else value
