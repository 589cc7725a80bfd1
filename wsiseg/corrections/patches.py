"""Patches of a slide with what is known of them, put into a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import UInt8Array
from wsiseg.classes import ClassTable
from wsiseg.corrections.changes import Changes
from wsiseg.corrections.evidence import UNKNOWN, Evidence, Painter
from wsiseg.corrections.labels import crop, patch_labels
from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.write import DatasetWriter, PatchRow
from wsiseg.geometry import Box, Grid
from wsiseg.slides.base import SlideReader

BLOCK_PATCHES = 16
"""Patches along a block that is painted at once."""

LEAST_KNOWN = 0.01
"""Share of known pixels from which on a patch without any label is worth its file."""


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """Where patches lie and what they are called.

    Attributes:
        grid: of the map.
        patch_px: their side in map pixels; the first begins at the map's corner, and none overlap.
        classes: of the model.
        group: slide or patient.
        provenance: what holds for all of them.
        suffix: of their files' names.
        split: that they belong to; empty for no choice.
        coarse: areas say that a class occurs, not that nothing else does: they make no masks and no absences.
    """

    grid: Grid
    patch_px: int
    classes: ClassTable
    group: str
    provenance: Provenance
    suffix: str
    split: str = ""
    coarse: bool = False


@dataclass(slots=True)
class Written:
    """What was written.

    Attributes:
        files: of the patches, below the data set's folder.
        present: patches by class that is known to be there.
        absent: patches by class that is known not to be.
        masked: patches with a mask.
        damaged: patches left out, since the slide cannot be read there.
        moved: pixels by class before and after, see `Evidence`.
        conflicts: pixels that two corrections give different classes.
    """

    files: list[str] = field(default_factory=list)
    present: dict[str, int] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)
    masked: int = 0
    damaged: int = 0
    moved: npt.NDArray[np.int64] | None = None
    conflicts: int = 0

    def count(self, patch: KnownPatch) -> None:
        """Count a patch's labels, and its mask."""
        self.masked += patch.mask is not None
        for name, value in patch.labels.items():
            table = self.present if value else self.absent
            table[name] = table.get(name, 0) + 1


@dataclass(frozen=True, slots=True)
class KnownPatch:
    """A patch of which something is known.

    Attributes:
        box: in map pixels; it may reach beyond the map.
        labels: 1 or 0 by class; a class that is not in it is unknown.
        mask: (P, P) uint8, class channel, 255 where it is unknown; None where no pixel is known.
    """

    box: Box
    labels: dict[str, int]
    mask: UInt8Array | None


def known_patches(
    changes: Changes,
    plan: PatchPlan,
    blocks: Iterable[Box],
    written: Written,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[KnownPatch]:
    """All patches of which something is known, block by block. No slide is read.

    Args:
        changes: what was corrected or drawn.
        plan: where patches lie.
        blocks: squares of map pixels to look at, their sides multiples of a patch's.
        written: what moved and conflicts are added to.
        progress: called after each block with its number, from 1.
    """
    painter = Painter(changes, plan.grid, len(plan.classes))
    places = np.floor(changes.points / [plan.grid.step_x * plan.patch_px, plan.grid.step_y * plan.patch_px])
    dots: dict[tuple[int, int], set[int]] = {}
    for (column, row), index in zip(places.astype(int).tolist(), changes.point_classes, strict=True):
        dots.setdefault((column, row), set()).add(index - 1)
    for number, block in enumerate(blocks, start=1):
        evidence = painter.paint(block)
        written.moved = evidence.moved if written.moved is None else written.moved + evidence.moved
        written.conflicts += evidence.conflicts
        for y in range(0, block.height, plan.patch_px):
            for x in range(0, block.width, plan.patch_px):
                box = Box(block.x + x, block.y + y, plan.patch_px, plan.patch_px)
                part = crop(evidence, slice(y, y + plan.patch_px), slice(x, x + plan.patch_px))
                here = dots.get((box.x // plan.patch_px, box.y // plan.patch_px), set())
                found = _known(part, plan, box, here)
                if found is not None:
                    yield found
        progress(number)


def write_patches(
    slide: SlideReader,
    changes: Changes,
    plan: PatchPlan,
    blocks: Iterable[Box],
    writer: DatasetWriter,
    progress: Callable[[int], None] = lambda _: None,
) -> Written:
    """Cut every patch of which something is known, with its label and mask.

    Args:
        slide: open for reading.
        changes: what was corrected or drawn.
        plan: where patches lie.
        blocks: squares of map pixels to look at, their sides multiples of a patch's.
        writer: takes the patches.
        progress: called after each block with its number, from 1.
    """
    written = Written()
    for patch in known_patches(changes, plan, blocks, written, progress):
        region = slide.read(plan.grid, patch.box)
        if region.damaged is not None and region.damaged.any():
            written.damaged += 1
            continue
        x, y = patch.box.x * plan.grid.step_x, patch.box.y * plan.grid.step_y
        name = f"{PurePath(plan.provenance.slide).stem}_x{x:.0f}_y{y:.0f}_{plan.suffix}"
        about = replace(plan.provenance, x=x, y=y, size_px=plan.patch_px)
        row = PatchRow(patch.labels, plan.group, plan.split, about, name)
        written.files.append(writer.add(np.ascontiguousarray(region.pixels), row, patch.mask))
        written.count(patch)
    return written


def _known(evidence: Evidence, plan: PatchPlan, box: Box, dots: set[int]) -> KnownPatch | None:
    """What is known of a patch; None where that is nothing, or too little for a file."""
    inside = box.intersect(Box.from_size(plan.grid.size))
    touched = (
        bool(dots) or (evidence.known != UNKNOWN).any() or evidence.none.any() or (evidence.absent != UNKNOWN).any()
    )
    if inside.is_empty or not touched:
        return None
    outside_px = box.size.area - inside.size.area
    labels = patch_labels(evidence, plan.classes.names, outside_px, dots, coarse=plan.coarse)
    known = 0 if plan.coarse else int((evidence.known != UNKNOWN).sum())
    if not labels and known < LEAST_KNOWN * box.size.area:
        return None
    return KnownPatch(box, labels, evidence.known if known else None)
