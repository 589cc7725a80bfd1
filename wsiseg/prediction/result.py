"""What a run found and did: areas, counts, provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wsiseg.classes import ClassTable
from wsiseg.geometry import Grid, Size
from wsiseg.slides.base import SlideReader
from wsiseg.system.json_values import JsonObject
from wsiseg.system.printable import readable
from wsiseg.tissue_map.areas import Areas, ClassArea
from wsiseg.tissue_map.distance import Far
from wsiseg.tissue_map.edge import SlideEdge

if TYPE_CHECKING:
    from wsiseg.export.drawn_polygons import DrawnPolygons
    from wsiseg.tissue.white import WhiteRule


@dataclass(slots=True)
class Counts:
    """What was done with the patches, each counted once.

    Attributes:
        tiles: patches of the whole grid.
        read: those with tissue, which were read.
        gated: those where the gate shut at least one class.
        decided: those where it left a single class, so that the segmenter was not asked.
        shut: for each class, the patches where the gate shut it.
    """

    tiles: int
    read: int
    gated: int = 0
    decided: int = 0
    shut: list[int] = field(default_factory=list)

    @property
    def skipped(self) -> int:
        """Patches without tissue."""
        return self.tiles - self.read

    def add(self, allowed: npt.NDArray[np.bool_], *, segmented: bool = False) -> None:
        """Count patches by the classes that the gate left each, (N, K) bool; `segmented` where all of them were."""
        self.gated += int((~allowed).any(axis=1).sum())
        if not segmented and allowed.shape[1] > 1:
            self.decided += int((allowed.sum(axis=1) == 1).sum())
        self.add_shut((~allowed).sum(axis=0).tolist())

    def add_shut(self, shut: list[int]) -> None:
        """Add to the patches where each class was shut."""
        self.shut = [before + int(n) for before, n in zip(self.shut, shut, strict=True)]


@dataclass(frozen=True, slots=True)
class Damage:
    """Parts of the slide's file that could not be decoded: their class is 0.

    Attributes:
        tiles: number of damaged tiles of the file.
        area_mm2: their area.
    """

    tiles: int = 0
    area_mm2: float = 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """The result of a run.

    Attributes:
        map_path: the tissue map; in a bucket its address.
        geojson_path: the polygons, likewise; None where none were asked for.
        areas: class by class.
        tissue_mm2: area of the tissue: that of all classes, white and unread together.
        unread_mm2: area of tissue that was not classified, since the slide is damaged there.
        counts: what was done with the patches.
        damage: what of the slide could not be decoded.
        seconds: of each phase and in total.
        enlarged: how many times the slide was enlarged to reach the model's mpp; 1 where it was fine enough.
        vectors: what `export_geojson` returned; None without polygons.
        resumed: share of the patches that an earlier run of the same command had done.
        waited_s: seconds in which the networks waited for the slide's pixels.
        model_notes: what the model said of its computing, one sentence each.
        slide_notes: what the reader said of the slide, one sentence each.
        white_mm2: area of tissue that is white and got no class; None where nobody looked.
        white: the rule for it; None where all tissue got a class.
        far: how much looks unlike the model's training data; None where that is not known.
    """

    map_path: Path | str
    geojson_path: Path | str | None
    areas: list[ClassArea]
    tissue_mm2: float
    unread_mm2: float
    counts: Counts
    damage: Damage
    seconds: Mapping[str, float]
    enlarged: float = 1.0
    vectors: DrawnPolygons | None = None
    resumed: float = 0.0
    waited_s: float = 0.0
    model_notes: Sequence[str] = ()
    slide_notes: Sequence[str] = ()
    white_mm2: float | None = None
    white: WhiteRule | None = None
    far: Far | None = None

    @property
    def notes(self) -> list[str]:
        """What a reader of the result should know, one sentence each."""
        found = [*self.model_notes, *self.slide_notes]
        if self.enlarged > 1:
            found.append(
                f"the slide is coarser than what the model learned from and was enlarged {self.enlarged:.3g} times; "
                "trust the map the less, the more that is"
            )
        if self.resumed:
            found.append(f"went on with an earlier run, which had done {self.resumed:.0%} of the patches")
        if self.far is not None and self.far.warning is not None:
            found.append(self.far.warning)
        if self.tissue_mm2 == 0:
            found.append("no tissue was found; if there is some, give --tissue none or a mask of your own")
        return found if self.vectors is None else [*found, *self.vectors.notes]

    def at(self, shown: Callable[[Path], Path | str]) -> Prediction:
        """The same, with the places of map and polygons as `shown` has them."""
        polygons = None if self.geojson_path is None else shown(Path(self.geojson_path))
        return replace(self, map_path=shown(Path(self.map_path)), geojson_path=polygons)

    def to_json(self) -> JsonObject:
        """Plain JSON values but for the paths, with counts that follow from others, and notes."""
        plain = asdict(replace(self, vectors=None, white=None, far=None))
        plain["counts"]["skipped"] = self.counts.skipped
        plain["vectors"] = {} if self.vectors is None else self.vectors.to_json()
        plain["white"] = None if self.white is None else self.white.to_json()
        plain["far"] = None if self.far is None else self.far.to_json()
        return {**plain, "notes": self.notes}


@dataclass(frozen=True, slots=True)
class Found:
    """What a map holds, as its metadata and the run's result say it.

    Attributes:
        areas: class by class; map pixels over the slide's edge count in part.
        tissue_mm2: area of the tissue: that of all classes, white and unread together.
        white_mm2: area of tissue that is white; None where nobody looked.
        unread_mm2: area of tissue that was not classified, since the slide is damaged there.
        counts: what was done with the patches.
        damage: what of the slide could not be decoded.
    """

    areas: list[ClassArea]
    tissue_mm2: float
    white_mm2: float | None
    unread_mm2: float
    counts: Counts
    damage: Damage

    @classmethod
    def from_areas(
        cls, areas: Areas, classes: ClassTable, grid: Grid, counts: Counts, damage: Damage, slide: Size, *, white: bool
    ) -> Found:
        """What the areas of a map upon a slide of that size come to; without `white`, nobody looked for any."""
        pixel, weights = grid.mpp.pixel_area_um2, SlideEdge.from_grid(grid, slide).weights

        def mm2(per_weight: npt.NDArray[np.int64]) -> float:
            return float(np.dot(weights, per_weight) * pixel / 1e6)

        return cls(
            areas.of_classes(classes, pixel, weights),
            mm2(areas.tissue),
            mm2(areas.white) if white else None,
            mm2(areas.unread),
            counts,
            damage,
        )

    def to_json(self) -> JsonObject:
        """As a map's metadata records it, plain JSON."""
        names = [area.name for area in self.areas]
        return {
            "areas": [asdict(area) for area in self.areas],
            "tissue_mm2": self.tissue_mm2,
            **({} if self.white_mm2 is None else {"white_mm2": self.white_mm2}),
            "unread_mm2": self.unread_mm2,
            "tiles": {
                **asdict(self.counts),
                "skipped": self.counts.skipped,
                "shut": dict(zip(names, self.counts.shut, strict=True)),
            },
            "damage": asdict(self.damage),
        }


def slide_provenance(slide: SlideReader) -> JsonObject:
    """Which slide a map was made from, plain JSON; no path, which may name a patient or a machine."""
    bounds = slide.bounds
    return {
        "name": slide.name,
        "width": slide.size.width,
        "height": slide.size.height,
        "quick_hash": slide.quick_hash(),
        "version": slide.version,
        "vendor": slide.vendor,
        "reader": slide.reader,
        "mpp": asdict(slide.mpp),
        "mpp_source": slide.mpp_source,
        "objective": slide.objective,
        "bounds": None if bounds is None else asdict(bounds),
    }


def tissue_provenance(method: str) -> dict[str, str]:
    """How tissue was found: the method, or the name and hash of a file; no path."""
    path = Path(method)
    if not path.is_file():
        return {"tissue": method}
    return {"tissue": readable(path.name), "tissue_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
