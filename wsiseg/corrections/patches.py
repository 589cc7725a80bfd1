"""Patches of a slide with what is known of them, put into a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

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
    painter, written = Painter(changes, plan.grid, len(plan.classes)), Written()
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
                _write_patch(slide, part, plan, box, here, writer, written)
        progress(number)
    return written


def _write_patch(
    slide: SlideReader,
    evidence: Evidence,
    plan: PatchPlan,
    box: Box,
    dots: set[int],
    writer: DatasetWriter,
    written: Written,
) -> None:
    inside = box.intersect(Box.from_size(plan.grid.size))
    touched = (
        bool(dots) or (evidence.known != UNKNOWN).any() or evidence.none.any() or (evidence.absent != UNKNOWN).any()
    )
    if inside.is_empty or not touched:
        return
    outside_px = box.size.area - inside.size.area
    labels = patch_labels(evidence, plan.classes.names, outside_px, dots, coarse=plan.coarse)
    known = 0 if plan.coarse else int((evidence.known != UNKNOWN).sum())
    if not labels and known < LEAST_KNOWN * box.size.area:
        return
    region = slide.read(plan.grid, box)
    if region.damaged is not None and region.damaged.any():
        written.damaged += 1
        return
    x, y = box.x * plan.grid.step_x, box.y * plan.grid.step_y
    name = f"{PurePath(plan.provenance.slide).stem}_x{x:.0f}_y{y:.0f}_{plan.suffix}"
    row = PatchRow(labels, plan.group, plan.split, replace(plan.provenance, x=x, y=y, size_px=plan.patch_px), name)
    file = writer.add(np.ascontiguousarray(region.pixels), row, evidence.known if known else None)
    written.files.append(file)
    written.masked += bool(known)
    for name, value in labels.items():
        table = written.present if value else written.absent
        table[name] = table.get(name, 0) + 1
