"""What a run found and did: areas, counts, provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsiseg.classes import ClassTable
from wsiseg.geometry import Grid, Size
from wsiseg.slides.base import SlideReader
from wsiseg.system.printable import readable
from wsiseg.tissue_map.areas import Areas, ClassArea
from wsiseg.tissue_map.edge import SlideEdge


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
        map_path: the tissue map.
        geojson_path: the polygons, None where none were asked for.
        areas: class by class.
        tissue_mm2: area of the tissue: that of all classes, white and unread together.
        unread_mm2: area of tissue that was not classified, since the slide is damaged there.
        counts: what was done with the patches.
        damage: what of the slide could not be decoded.
        seconds: of each phase and in total.
        enlarged: how many times the slide was enlarged to reach the model's mpp; 1 where it was fine enough.
        vectors: what `export_geojson` returned; empty without polygons.
        resumed: share of the patches that an earlier run of the same command had done.
        waited_s: seconds in which the networks waited for the slide's pixels.
        model_notes: what the model said of its computing, one sentence each.
        slide_notes: what the reader said of the slide, one sentence each.
        white_mm2: area of tissue that is white and got no class; None where nobody looked.
        white: the rule for it, as `WhiteRule.to_json` has it; None where all tissue got a class.
    """

    map_path: Path
    geojson_path: Path | None
    areas: list[ClassArea]
    tissue_mm2: float
    unread_mm2: float
    counts: Counts
    damage: Damage
    seconds: Mapping[str, float]
    enlarged: float = 1.0
    vectors: Mapping[str, Any] = field(default_factory=dict)
    resumed: float = 0.0
    waited_s: float = 0.0
    model_notes: Sequence[str] = ()
    slide_notes: Sequence[str] = ()
    white_mm2: float | None = None
    white: Mapping[str, Any] | None = None

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
        if self.tissue_mm2 == 0:
            found.append("no tissue was found; if there is some, give --tissue none or a mask of your own")
        return [*found, *polygon_notes(self.vectors)]


WARN_VERTICES = 2_000_000
"""Exact polygons with more vertices are warned of: QuPath took 333 s and 3.1 GB for 7.5 million."""


def polygon_notes(vectors: Mapping[str, Any]) -> list[str]:
    """What to say of polygons as `export_geojson` returned them, one sentence each; nothing where there are none."""
    found = []
    if vectors.get("absorbed") or ("absorbed" in vectors and vectors["dropped"]):
        less = [row for row in vectors["classes"] if row["min_area_um2"] < vectors["min_area_um2"] * 0.99]
        apart = "".join(f", of {row['name']} under {row['min_area_um2']:.3g}" for row in less)
        found.append(
            f"polygons are simplified by {vectors['tolerance_um']:.3g} um; "
            f"{vectors['absorbed']} regions under {vectors['min_area_um2']:.0f} um²{apart} joined a neighbour "
            f"({vectors['absorbed_um2'] / 1e6:.4f} mm²), {vectors['dropped']} were dropped "
            f"({vectors['dropped_um2'] / 1e6:.4f} mm²)"
        )
    if vectors.get("moved_um", 0) >= LEAST_MOVE_UM:
        found.append(f"borders moved by up to {vectors['moved_um']:.2g} um, so that polygons keep each class's area")
    found += area_notes(vectors)
    from wsiseg.export.polygons import coarser_note  # noqa: PLC0415  (not needed before polygons are drawn)

    if coarser := coarser_note(vectors):
        found.append(coarser)
    if vectors.get("within_budget") is False:
        found.append(
            "the polygons are more than QuPath opens with ease; a larger --min-area or --tolerance makes them fewer"
        )
    if vectors.get("exact") and vectors["vertices"] > WARN_VERTICES:
        found.append(
            f"{vectors['vertices']:,} vertices are much for QuPath (7.5 million take it 333 s and 3.1 GB); leave out "
            "--exact for polygons that open in seconds"
        )
    return found


LEAST_MOVE_UM = 0.01
"""Less is not worth a sentence."""


def area_notes(vectors: Mapping[str, Any]) -> list[str]:
    """Areas that polygons do not keep: all changes where their making was asked for, else those beyond the limit."""
    asked = vectors.get("asked")
    changed = [row for row in vectors.get("classes", []) if row["map_um2"] > 0 and (asked or not row["within"])]
    if not changed:
        return []
    if asked:
        told = ", ".join(f"{row['name']} {row['change']:+.1%}" for row in changed)
        return [f"with the --min-area and --tolerance given, areas of polygons differ from the map's: {told}"]
    return [
        f"polygons show {row['change']:+.1%} of {row['name']}'s area ({row['polygons_um2'] / 1e6:.4f} mm², in the map "
        f"{row['map_um2'] / 1e6:.4f}): more than 2 %, which neither budget nor tolerance allowed to keep"
        for row in changed
    ]


def results(
    areas: Areas, classes: ClassTable, grid: Grid, counts: Counts, damage: Damage, slide_size: Size, *, white: bool
) -> dict[str, Any]:
    """What a map's metadata says of the result, plain JSON; map pixels over the slide's edge count in part.

    Without `white`, nobody looked for any, and nothing is said of it.
    """
    pixel, weights = grid.mpp.pixel_area_um2, SlideEdge.of(grid, slide_size).weights
    names = ("tissue", "white", "unread") if white else ("tissue", "unread")
    whole = {name: float(np.dot(weights, getattr(areas, name)) * pixel / 1e6) for name in names}
    return {
        "areas": [asdict(area) for area in areas.of_classes(classes, pixel, weights)],
        **{f"{name}_mm2": value for name, value in whole.items()},
        "tiles": {
            **asdict(counts),
            "skipped": counts.skipped,
            "shut": dict(zip(classes.names, counts.shut, strict=True)),
        },
        "damage": asdict(damage),
    }


def slide_provenance(slide: SlideReader) -> dict[str, Any]:
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
