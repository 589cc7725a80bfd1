"""The steps of a run that its journal books, each with its form in the file: plain JSON with the kind under "step"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar

from wsiseg.system.json_values import JsonObject
from wsiseg.tissue_map.areas import Areas


class Step(Protocol):
    """Something that is done and on the disk, or, for a commit, about to be done."""

    KIND: ClassVar[str]

    def to_json(self) -> JsonObject:
        """Plain JSON values."""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""


AnyStep = TypeVar("AnyStep", bound=Step)


class Books(Protocol):
    """Something that books steps: the journal, or the way to the process that keeps it."""

    def book(self, step: Step) -> None:
        """Book a step that is on the disk."""

    def booked(self, kind: type[AnyStep]) -> list[AnyStep]:
        """The steps of one kind that were booked before."""


@dataclass(frozen=True)
class _Plain:
    """A step whose fields are plain JSON values."""

    KIND: ClassVar[str]

    def to_json(self) -> JsonObject:
        """See `Step`."""
        return {"step": self.KIND, **asdict(self)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """See `Step`."""
        return cls(**{name: value for name, value in fields.items() if name != "step"})


@dataclass(frozen=True)
class PieceCounts:
    """What the gate did to the patches that a piece owns; see `wsiseg.prediction.result.Counts`."""

    gated: int
    decided: int
    shut: list[int]


@dataclass(frozen=True)
class PieceStep:
    """A piece is written.

    Attributes:
        index: of the piece.
        bytes: of its shards.
        areas: what it holds.
        counts: of its own patches.
        damage: tiles of the slide's file that were found damaged since the step before, [level, column, row].
        opened: what the gate left open in its own patches; see `wsiseg.prediction.gate_places.packed`.
    """

    KIND: ClassVar[str] = "piece"
    index: int
    bytes: list[int]
    areas: Areas
    counts: PieceCounts
    damage: list[list[int]]
    opened: str

    def to_json(self) -> JsonObject:
        """See `Step`."""
        return {
            "step": self.KIND,
            "index": self.index,
            "bytes": self.bytes,
            "areas": self.areas.to_json(),
            "counts": asdict(self.counts),
            "damage": self.damage,
            "opened": self.opened,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """See `Step`."""
        areas, counts = Areas.from_json(fields["areas"]), PieceCounts(**fields["counts"])
        return cls(fields["index"], fields["bytes"], areas, counts, fields["damage"], fields["opened"])


@dataclass(frozen=True)
class GateStep(_Plain):
    """The classifier was asked about all patches that a piece owns; `index` is the piece's."""

    KIND: ClassVar[str] = "gate"
    index: int


@dataclass(frozen=True)
class MachineStep(_Plain):
    """The run went on with another processor or number of threads; see `wsiseg.prediction.machine`."""

    KIND: ClassVar[str] = "machine"
    threads: int
    processor: str


@dataclass(frozen=True)
class LevelStep(_Plain):
    """A level of the pyramid is written; `files` are their number and bytes."""

    KIND: ClassVar[str] = "level"
    level: int
    files: list[int]


@dataclass(frozen=True)
class CommitStep(_Plain):
    """The map is whole and about to get its name; see `MapJob.commit`."""

    KIND: ClassVar[str] = "commit"
