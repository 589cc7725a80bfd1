"""What `correct` would make of a file, region by region; nothing is cut and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import shapely
import shapely.geometry

from wsiseg.corrections.changes import Correction
from wsiseg.corrections.evidence import UNKNOWN, changed_blocks
from wsiseg.corrections.names import NONE_OF_THEM
from wsiseg.corrections.patches import BLOCK_PATCHES, LEAST_KNOWN, KnownPatch, PatchPlan, Written, known_patches
from wsiseg.corrections.record import label_counts, moved_areas
from wsiseg.corrections.run import CorrectOptions, conflict_notes, patch_size, read_corrections
from wsiseg.datasets.area_labels import PRESENT_SHARE
from wsiseg.datasets.provenance import Provenance
from wsiseg.errors import OptionError
from wsiseg.geojson.drawn import drawn_feature
from wsiseg.geometry import Grid, Size
from wsiseg.slides.base import SlideReader
from wsiseg.system.json_values import JsonObject
from wsiseg.tissue_map.reader import TissueMap


def preview(
    tissue_map: TissueMap,
    corrected: Path,
    slide: SlideReader,
    options: CorrectOptions | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> JsonObject:
    """What a person's corrections of a map come to.

    The numbers are those of `correct`, except that a patch which the slide cannot be read in is found only when it is
    cut.

    Args:
        tissue_map: open for reading.
        corrected: GeoJSON that the person exported.
        slide: that the map was made from; no pixel of it is read.
        options: see `CorrectOptions`.
        progress: called after each block with its number.

    Returns:
        As the record of `correct`, with `regions`, and for each class the `mask_um2` that masks know of it.

    Raises:
        WsisegError: where `correct` would refuse the file.
    """
    options = options or CorrectOptions()
    read = read_corrections(tissue_map, corrected, slide, options)
    grid, names = tissue_map.grid, tissue_map.classes.names
    plan = PatchPlan(grid, read.patch_px, tissue_map.classes, options.group, Provenance(), "")
    blocks = changed_blocks(read.changes, grid, BLOCK_PATCHES * read.patch_px)
    written, tally = Written(), _Tally(read.changes.corrections, names, grid)
    for patch in known_patches(read.changes, plan, blocks, written, progress):
        written.count(patch)
        tally.add(patch)
    labels: JsonObject = dict(label_counts(written, names, tally.patches))
    for channel, name in enumerate(names):
        labels[name]["mask_um2"] = float(tally.mask_px[channel]) * grid.mpp.pixel_area_um2
    return {
        "changes": dict(read.changes.counts),
        "moved": moved_areas(tissue_map, written),
        "patches": tally.patches,
        "patch_px": read.patch_px,
        "masks": written.masked,
        "labels": labels,
        "partial": read.partial,
        "regions": tally.regions(),
        "notes": [*read.file.notes, *read.changes.notes, *conflict_notes(written)],
    }


def patches_of_drawn(points: Sequence[Sequence[float]], tissue_map: TissueMap, slide: Size) -> tuple[int, int] | None:
    """Patches that an area drawn by hand makes, and those of them that get its label.

    By area, where `correct` counts the pixels whose centres lie in it, so that on the border of 1 % or 5 % of a patch
    it may be one more or less.

    Args:
        points: (x, y) in level-0 pixels along the border.
        tissue_map: open for reading.
        slide: level 0.

    Returns:
        None where the map does not say how large its model's patches are.

    Raises:
        OptionError: the points enclose nothing of the slide.
    """
    area = shapely.geometry.shape(drawn_feature(points, None, slide)["geometry"])
    try:
        patch_px, _ = patch_size(tissue_map, None)
    except OptionError:
        return None
    grid = tissue_map.grid
    own = shapely.transform(area, lambda xy: xy / [grid.step_x * patch_px, grid.step_y * patch_px])
    left, top, right, bottom = own.bounds
    x, y = np.meshgrid(np.arange(np.floor(left), np.ceil(right)), np.arange(np.floor(top), np.ceil(bottom)))
    patches = shapely.box(x.ravel(), y.ravel(), x.ravel() + 1, y.ravel() + 1)
    shapely.prepare(own)
    shares = shapely.contains_properly(own, patches).astype(np.float64)
    cut = shapely.intersects(own, patches) & (shares == 0)
    shares[cut] = shapely.area(shapely.intersection(own, patches[cut]))
    return int((shares >= LEAST_KNOWN).sum()), int((shares >= PRESENT_SHARE).sum())


class _Tally:
    """Patches by correction.

    Args:
        corrections: what was done.
        names: of the classes.
        grid: of the map.
    """

    def __init__(self, corrections: Sequence[Correction], names: Sequence[str], grid: Grid) -> None:
        self._corrections, self._names, self._grid = corrections, names, grid
        scale = np.array([1 / grid.step_x, 1 / grid.step_y])
        self._tree = shapely.STRtree([shapely.transform(one.place, lambda xy: xy * scale) for one in corrections])
        self._counts = np.zeros((len(corrections), 3), np.int64)  # patches, labels, masks
        self.patches = 0
        self.mask_px = np.zeros(UNKNOWN + 1, np.int64)

    def add(self, patch: KnownPatch) -> None:
        """Count a patch with all corrections that touch it."""
        self.patches += 1
        if patch.mask is not None:
            self.mask_px += np.bincount(patch.mask.ravel(), minlength=UNKNOWN + 1)
        box = patch.box
        around = shapely.box(box.x, box.y, box.right, box.bottom)
        for index in self._tree.query(around, predicate="intersects"):
            one = self._corrections[index]
            self._counts[index] += (1, self._is_labelled(one, patch), self._is_masked(one, patch))

    def _is_labelled(self, one: Correction, patch: KnownPatch) -> bool:
        """Whether a patch's label says what the correction does."""
        if one.kind == "reviewed areas":
            return bool(patch.labels)
        if one.after > 0:
            return patch.labels.get(self._names[one.after - 1]) == 1
        gone = [self._names[one.before - 1]] if one.before > 0 and one.after != NONE_OF_THEM else self._names
        return any(patch.labels.get(name) == 0 for name in gone)

    def _is_masked(self, one: Correction, patch: KnownPatch) -> bool:
        if patch.mask is None or one.kind == "class points":
            return False
        if one.kind == "reviewed areas":
            return True
        return one.after > 0 and bool((patch.mask == one.after - 1).any())

    def regions(self) -> list[JsonObject]:
        """A row for each correction, in the file's order, those that are not in it last."""
        um2 = self._grid.mpp.pixel_area_um2 / (self._grid.step_x * self._grid.step_y)
        rows: list[JsonObject] = []
        for one, (patches, labels, masks) in zip(self._corrections, self._counts.tolist(), strict=True):
            rows.append({
                "feature": one.number or None,
                "kind": _KINDS.get(one.kind, one.kind),
                "from": self._names[one.before - 1] if one.before > 0 else None,
                "to": self._names[one.after - 1] if one.after > 0 else None,
                "area_um2": one.place.area * um2,
                "patches": patches,
                "labels": labels,
                "masks": masks,
                "strength": _strength(labels, masks),
            })  # fmt: skip
        return sorted(rows, key=lambda row: (row["feature"] is None, row["feature"] or 0))


_KINDS = {"reviewed areas": "reviewed", "class points": "points"}
"""Of one, where its name in the counts is a plural."""


def _strength(labels: int, masks: int) -> str:
    """What training learns from a correction."""
    if labels and masks:
        return "labels and masks"
    if labels or masks:
        return "labels" if labels else f"masks, under {PRESENT_SHARE:.0%} of each patch"
    return "nothing: too little of any patch"
