"""The areas of a map as a table: rows for programs, text for a terminal, HTML for a notebook, pandas where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from wsiseg.errors import OptionError
from wsiseg.system.extras import require_extra
from wsiseg.system.printable import printable
from wsiseg.tissue_map.areas import ClassArea
from wsiseg.tissue_map.checks import require_areas

if TYPE_CHECKING:
    import pandas

COLUMNS = ("class", "mm²", "% of tissue", "mean probability")


@dataclass(frozen=True, slots=True)
class AreaTable(Sequence[ClassArea]):
    """A map's areas: a sequence of `ClassArea`, in the order of the class table.

    Attributes:
        rows: one a class.
        tissue_mm2: area of the tissue.
        unread_mm2: area of tissue where the slide is damaged.
        white_mm2: area of tissue that is white and so has no class; None where white was not looked for.
    """

    rows: tuple[ClassArea, ...]
    tissue_mm2: float
    unread_mm2: float
    white_mm2: float | None = None

    @classmethod
    def from_metadata(cls, path: Path, metadata: Mapping[str, Any]) -> AreaTable:
        """From a map's metadata.

        Raises:
            MapError: the map says nothing of its areas.
        """
        require_areas(path, metadata)
        rows = tuple(
            ClassArea(row["name"], float(row["area_mm2"]), float(row["share"]), float(row["mean_probability"]))
            for row in metadata["areas"]
        )
        white = white_mm2(metadata)
        return cls(rows, float(metadata["tissue_mm2"]), float(metadata["unread_mm2"]), white)

    @overload
    def __getitem__(self, index: int) -> ClassArea: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ClassArea]: ...
    @overload
    def __getitem__(self, index: str) -> ClassArea: ...
    def __getitem__(self, index: int | slice | str) -> ClassArea | Sequence[ClassArea]:
        """A row by its place, from 0, or by the name of its class."""
        if not isinstance(index, str):
            return self.rows[index]
        for row in self.rows:
            if row.name == index:
                return row
        names = ", ".join(printable(row.name, 40) for row in self.rows)
        raise OptionError(f"there is no class {printable(index, 40)!r}; the classes are {names}")

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ClassArea]:
        return iter(self.rows)

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame: class, area_mm2, share, mean_probability; the whole map's areas are in its `attrs`.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        require_extra("python", "a data frame", "pandas")
        import pandas as pd  # noqa: PLC0415  (an extra)

        frame = pd.DataFrame([asdict(row) for row in self.rows], columns=list(ClassArea.__slots__))
        frame = frame.rename(columns={"name": "class"})
        frame.attrs.update(tissue_mm2=self.tissue_mm2, unread_mm2=self.unread_mm2, white_mm2=self.white_mm2)
        return frame

    def percent(self, area_mm2: float) -> str:
        """An area as a share of the tissue, as `predict` prints it; empty if there is no tissue."""
        return f"{100 * area_mm2 / self.tissue_mm2:.1f}" if self.tissue_mm2 > 0 else ""

    def lines(self) -> list[tuple[str, str, str, str]]:
        """What is shown of each class, and of the rest, in the order of `COLUMNS`."""
        found = [
            (
                printable(row.name, 60),
                f"{row.area_mm2:.4f}",
                self.percent(row.area_mm2),
                f"{row.mean_probability:.2f}" if row.area_mm2 else "",
            )
            for row in self.rows
        ]
        rest = (("white", self.white_mm2), ("unread", self.unread_mm2), ("tissue", self.tissue_mm2))
        # Damage is rare, and tissue is the sum.
        return found + [
            (name, f"{area:.4f}", self.percent(area or 0.0), "") for name, area in rest if area or name == "tissue"
        ]

    def __repr__(self) -> str:
        rows = [COLUMNS, *self.lines()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self.lines())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def white_mm2(metadata: Mapping[str, Any]) -> float | None:
    """Area of white tissue, None where the map says nothing of it."""
    value = metadata.get("white_mm2")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
