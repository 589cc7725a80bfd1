"""What became of many slides: of each, and of all together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from wsiseg.export.drawn_polygons import DrawnPolygons
from wsiseg.prediction.failure import Failure
from wsiseg.prediction.result import Prediction
from wsiseg.system.addresses import without_secrets
from wsiseg.system.json_values import JsonObject
from wsiseg.system.printable import printable

Status = Literal["done", "kept", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class KeptMap:
    """A map that was there already, made from the same slide in the same way.

    Attributes:
        tissue_mm2: area of its tissue.
        damaged_tiles: of the slide's file, as the map records them.
        damaged_mm2: their area.
        drawn: what `export_geojson` returned, where its polygons were missing and were drawn from it.
        notes: what a reader should know of it, one sentence each.
    """

    tissue_mm2: float
    damaged_tiles: int
    damaged_mm2: float
    drawn: DrawnPolygons | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """Plain JSON values."""
        drawn = None if self.drawn is None else self.drawn.to_json()
        return {**asdict(replace(self, drawn=None)), "drawn": drawn}


@dataclass(frozen=True, slots=True)
class SlideResult:
    """The outcome of one of many slides: done, kept, skipped or failed.

    Attributes:
        slide: its path or address.
        map_path: of its map, in a bucket its address; None of what was skipped.
        prediction: None where its map was there already, it failed, or it was skipped.
        error: why it failed, one line; None where it did not.
        kept: of a map that was there already.
        skipped: why it is no slide, in words; None where it is one.
        defect: the exception of a failure that is a defect of this program.
        failure: of which kind a failure is.
    """

    slide: str
    map_path: Path | str | None
    prediction: Prediction | None = None
    error: str | None = None
    kept: KeptMap | None = None
    skipped: str | None = None
    defect: BaseException | None = None
    failure: Failure | None = None

    @property
    def status(self) -> Status:
        """Whether it is "done" now, "kept" as it was, "failed" or "skipped"."""
        if self.error is not None:
            return "failed"
        if self.skipped is not None:
            return "skipped"
        return "kept" if self.prediction is None else "done"

    @property
    def tissue_mm2(self) -> float | None:
        """Area of the tissue, None where there is no map."""
        found = self.prediction or self.kept
        return None if found is None else found.tissue_mm2

    @property
    def damage(self) -> tuple[int, float]:
        """Damaged tiles of the slide's file, and their area in mm2."""
        if self.prediction is not None:
            return self.prediction.damage.tiles, self.prediction.damage.area_mm2
        return (0, 0.0) if self.kept is None else (self.kept.damaged_tiles, self.kept.damaged_mm2)

    @property
    def notes(self) -> list[str]:
        """What a reader of the map should know, one sentence each; damage as well."""
        found = self.prediction or self.kept
        notes = [] if found is None else list(found.notes)
        tiles, area = self.damage
        if tiles:
            notes.append(
                f"damaged: {tiles} tiles of the slide's file, {area:.3f} mm², could not be decoded; their class is 0"
            )
        return notes


@dataclass
class BatchSummary:
    """Slides by what became of them: names, and what is to be said of each; a slide may be in several lists.

    Attributes:
        done: got their map now.
        kept: had their map already.
        without_tissue: of both, those whose map holds no tissue.
        with_damage: of both, those whose file is damaged, and how much.
        failed: and why.
        skipped: what is no slide, and why.
        transient: how many failures may pass: a server that did not answer, a slide that another run is doing.
    """

    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    without_tissue: list[str] = field(default_factory=list)
    with_damage: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    transient: int = 0

    @classmethod
    def from_results(cls, results: Iterable[SlideResult]) -> BatchSummary:
        """The summary of results."""
        summary = cls()
        for result in results:
            summary.add(result)
        return summary

    def add(self, result: SlideResult) -> None:
        """Take the result of one more slide."""
        slide = without_secrets(result.slide)
        if result.status == "failed":
            self.failed.append((slide, result.error or ""))
            self.transient += result.failure is not None and result.failure.transient
        elif result.status == "skipped":
            self.skipped.append((slide, result.skipped or ""))
        else:
            (self.done if result.status == "done" else self.kept).append(slide)
            tiles, area = result.damage
            if result.tissue_mm2 == 0:
                self.without_tissue.append(slide)
            if tiles:
                self.with_damage.append((slide, f"{tiles} tiles, {area:.3f} mm²"))

    @property
    def slides(self) -> int:
        """Number of slides; what was skipped is none."""
        return len(self.done) + len(self.kept) + len(self.failed)

    def to_json(self) -> JsonObject:
        """Counts, and the names of each kind, plain JSON."""
        pairs = {"failed": "error", "skipped": "reason", "with_damage": "damage"}
        names = ("done", "kept", "without_tissue", "with_damage", "failed", "skipped")
        lists = {name: getattr(self, name) for name in names}
        return {
            "slides": self.slides,
            "counts": {name: len(found) for name, found in lists.items()},
            **{
                name: [{"slide": slide, pairs[name]: said} for slide, said in found] if name in pairs else found
                for name, found in lists.items()
            },
        }

    def lines(self) -> list[str]:
        """For people: the counts, then all that is not simply done, kind by kind."""
        counts = [f"{len(self.done)} done", f"{len(self.kept)} had their map already", f"{len(self.failed)} failed"]
        of_maps = [f"{len(self.without_tissue)} without tissue", f"{len(self.with_damage)} with damage"]
        lines = [f"{self.slides} slides: {', '.join(counts)}; {', '.join(of_maps)}; {len(self.skipped)} names skipped"]
        lines += _listed("without tissue", [(slide, "") for slide in self.without_tissue])
        lines += _listed("with damage", self.with_damage)
        lines += _listed("failed", self.failed)
        return lines + _listed("skipped", self.skipped)


def _listed(kind: str, slides: Sequence[tuple[str, str]]) -> list[str]:
    return (
        [f"{kind}:", *(f"  {printable(f'{slide}: {said}' if said else slide)}" for slide, said in slides)]
        if slides
        else []
    )
