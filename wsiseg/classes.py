"""The class table: which tissue types a model tells apart, in which order and colours."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from wsiseg.errors import OptionError
from wsiseg.system.json_values import JsonObject, is_whole

MAX_CLASSES = 254
"""The class map is uint8, 0 is "not tissue or not read", and 255 stays free."""

MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class TissueClass:
    """One tissue type.

    Attributes:
        index: its value in the class map, from 1; its channel among the probabilities is index - 1.
        name: for people.
        color: red, green and blue, 0 to 255.
    """

    index: int
    name: str
    color: tuple[int, int, int]

    def __post_init__(self) -> None:
        if not is_whole(self.index) or not 1 <= self.index <= MAX_CLASSES:
            raise OptionError(f"a class index must be a whole number 1 to {MAX_CLASSES}, got {self.index!r:.60}")
        if not isinstance(self.name, str):
            raise OptionError(f"the name of class {self.index} must be text, got {self.name!r:.60}")
        if not self.name.strip():
            raise OptionError(f"class {self.index} needs a name")
        # They go into tables, pictures and messages, and into files in UTF-8, which has no halves of letters.
        if len(self.name) > MAX_NAME or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in self.name):
            raise OptionError(f"a class name must be plain text of up to {MAX_NAME} letters, got {self.name!r:.60}")
        if any(not is_whole(v) or not 0 <= v <= 255 for v in self.color):
            raise OptionError(
                f"the colour of {self.name!r} must be three whole numbers 0 to 255, got {self.color!s:.100}"
            )

    @property
    def hex_color(self) -> str:
        """The colour as six hexadecimal digits, as OMERO's channels have it."""
        return "{:02X}{:02X}{:02X}".format(*self.color)


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The classes of a model, in order; value 0 of a class map is `BACKGROUND`."""

    classes: tuple[TissueClass, ...]

    BACKGROUND = "Background"

    def __post_init__(self) -> None:
        if not self.classes:
            raise OptionError("a class table needs at least one class")
        if [c.index for c in self.classes] != list(range(1, len(self.classes) + 1)):
            raise OptionError(f"class indices must run 1, 2, …, got {[c.index for c in self.classes]!s:.200}")
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise OptionError(f"class names must differ, got {names!s:.200}")

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[TissueClass]:
        return iter(self.classes)

    def __getitem__(self, index: int) -> TissueClass:
        """The class with value `index` (from 1) in the class map."""
        if not 1 <= index <= len(self.classes):
            raise KeyError(index)
        return self.classes[index - 1]

    @property
    def names(self) -> tuple[str, ...]:
        """The names in order."""
        return tuple(c.name for c in self.classes)

    @classmethod
    def from_names(cls, names: Sequence[str], colors: Sequence[Sequence[int]] | None = None) -> ClassTable:
        """A table from names and, optionally, colours; default colours are told apart by colour-blind readers too."""
        chosen = colors if colors is not None else [PALETTE[i % len(PALETTE)] for i in range(len(names))]
        if len(chosen) != len(names):
            raise OptionError(f"{len(names)} class names need as many colours, got {len(chosen)}")
        return cls(
            tuple(
                TissueClass(i, name, _color(c, i))
                for i, (name, c) in enumerate(zip(names, chosen, strict=True), start=1)
            )
        )

    def to_json(self) -> list[JsonObject]:
        """The table as stored in bundles and maps: `[{"index": 1, "name": "Tumour", "color": [200, 0, 0]}, …]`."""
        return [{"index": c.index, "name": c.name, "color": list(c.color)} for c in self.classes]

    @classmethod
    def from_json(cls, rows: object) -> ClassTable:
        """The table from what `to_json` returned; raises an `OptionError` that names anything else."""
        if not isinstance(rows, list | tuple):
            raise OptionError(f"classes must be a list of index, name and color, got {rows!r:.100}")
        return cls(tuple(_class_from(row, place) for place, row in enumerate(rows, start=1)))


def _class_from(row: object, place: int) -> TissueClass:
    """One class from what stands at a place, from 1, of a table from outside."""
    if not isinstance(row, Mapping) or not {"index", "name", "color"} <= row.keys():
        raise OptionError(f"a class needs index, name and color, got {row!r:.100}")
    return TissueClass(row["index"], row["name"], _color(row["color"], place))


def _color(value: object, place: int) -> tuple[int, int, int]:
    """The colour of the class at a place; its numbers are checked by `TissueClass`."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise OptionError(f"the colour of class {place} must be three whole numbers 0 to 255, got {value!r:.60}")
    return value[0], value[1], value[2]


PALETTE: tuple[tuple[int, int, int], ...] = (
    (213, 45, 45),
    (240, 170, 40),
    (40, 90, 200),
    (20, 150, 110),
    (150, 80, 180),
    (90, 190, 235),
    (120, 90, 60),
    (235, 120, 180),
)
"""Default class colours, after Okabe and Ito, warmer so that tumour is red on pink tissue."""


WHITE_VALUE = 255
"""Value of the class map where tissue was looked at and is white (glass, lumen, fat): no class, and not unread."""
