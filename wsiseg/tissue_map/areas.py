"""The areas of a map, class by class: counted while it is made, and written as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Int64Array
from wsiseg.classes import WHITE_VALUE, ClassTable
from wsiseg.system.files import write_csv
from wsiseg.system.json_values import JsonObject

PARTS = 4
"""A map's pixels are counted in four parts: inside, in the last column, in the last row, in both; see `SlideEdge`."""

AREA_COLUMNS = (
    *("slide", "class", "area_mm2", "share", "mean_probability", "polygons_mm2"),
    *("tissue_mm2", "white_mm2", "unread_mm2"),
)
"""Of the table of areas, always all of them, so that tables of several maps fit together."""


@dataclass(frozen=True, slots=True)
class ClassArea:
    """How much of one class there is.

    Attributes:
        name: of the class.
        area_mm2: its area.
        share: its part of all that got a class (white and unread tissue apart), 0 to 1.
        mean_probability: of the class, over the pixels where it won; 0 where it nowhere did.
    """

    name: str
    area_mm2: float
    share: float
    mean_probability: float


@dataclass(slots=True)
class Areas:
    """Sums over a map as it is written: whole numbers, so that their order does not matter.

    Pixels over the slide's edge count by their share that lies on it, so each part of the map has its own sums.

    Attributes:
        pixels: map pixels of each class, (PARTS, K + 1) int64; 0 is none.
        probability: summed probability of the winning class in 255ths, (PARTS, K + 1) int64.
        tissue: map pixels of tissue, (PARTS,) int64.
        white: map pixels of tissue that are white, (PARTS,) int64.
        unread: map pixels of tissue where the slide is damaged, (PARTS,) int64.
    """

    pixels: Int64Array
    probability: Int64Array
    tissue: Int64Array
    white: Int64Array
    unread: Int64Array

    @classmethod
    def empty(cls, classes: int) -> Areas:
        """Sums of no pixels, for K classes."""
        shapes = ((PARTS, classes + 1), (PARTS, classes + 1), (PARTS,), (PARTS,), (PARTS,))
        return cls(*(np.zeros(shape, np.int64) for shape in shapes))

    @classmethod
    def from_classes(
        cls,
        classes: npt.NDArray[np.uint8],
        values: npt.NDArray[np.uint8],
        tissue: npt.NDArray[np.bool_],
        parts: Sequence[tuple[slice, slice]],
    ) -> Areas:
        """Count a piece of the map.

        Args:
            classes: (height, width) uint8, 0 outside the tissue and where nothing was read, `WHITE_VALUE` on white.
            values: (K, height, width) uint8 probabilities.
            tissue: (height, width) bool.
            parts: (rows, columns) of the parts; see `SlideEdge.parts`.
        """
        found = cls.empty(len(values))
        for part, place in enumerate(parts):
            some = classes[place]
            if some.size == 0:
                continue
            for index, channel in enumerate(values, start=1):
                mine = channel[place][some == index]
                found.pixels[part, index] = mine.size
                found.probability[part, index] = mine.sum(dtype=np.int64)
            found.white[part] = np.count_nonzero(some == WHITE_VALUE)
            classified = found.pixels[part, 1:].sum()
            found.pixels[part, 0] = some.size - classified - found.white[part]
            found.tissue[part] = np.count_nonzero(tissue[place])
            found.unread[part] = found.tissue[part] - classified - found.white[part]
        return found

    def add(self, other: Areas) -> None:
        """Add another piece's sums."""
        for name in self.__slots__:
            getattr(self, name).__iadd__(getattr(other, name))

    def to_json(self) -> JsonObject:
        """Plain JSON values."""
        return {name: getattr(self, name).tolist() for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Areas:
        """The inverse of `to_json`."""
        return cls(**{name: np.array(value[name], np.int64) for name in cls.__slots__})

    def of_classes(self, classes: ClassTable, pixel_area_um2: float, weights: Sequence[float]) -> list[ClassArea]:
        """The areas, class by class; `weights` are those of `SlideEdge`."""
        shares = np.asarray(weights)
        pixels, probability = shares @ self.pixels, shares @ self.probability
        total = float(pixels[1:].sum())
        return [
            ClassArea(
                c.name,
                float(pixels[c.index] * pixel_area_um2 / 1e6),
                float(pixels[c.index] / total) if total else 0.0,
                float(probability[c.index] / 255 / pixels[c.index]) if pixels[c.index] else 0.0,
            )
            for c in classes
        ]


def write_areas_csv(path: Path, metadata: Mapping[str, Any], polygons_mm2: Mapping[int, float] | None = None) -> None:
    """The areas of a map as a table of one row a class, in mm2, with the slide's name.

    What belongs to the whole map stands in columns of its own, the same in each row: a sum over `area_mm2` is the area
    of all classes. What the map does not say is left empty.

    Args:
        path: the file.
        metadata: of the map.
        polygons_mm2: area of each class's polygons, by class index; None where none were made.
    """
    whole = [f"{metadata[key]:.6f}" if key in metadata else "" for key in ("tissue_mm2", "white_mm2", "unread_mm2")]
    rows = []
    for index, row in enumerate(metadata["areas"], start=1):
        figures = [f"{row[key]:.6f}" for key in ("area_mm2", "share", "mean_probability")]
        drawn = f"{polygons_mm2.get(index, 0.0):.6f}" if polygons_mm2 is not None else ""
        rows.append([metadata["slide"]["name"], row["name"], *figures, drawn, *whole])
    write_csv(path, AREA_COLUMNS, rows)
