"""The contact sheet of a data set: patches of each class and of each combination of classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from PIL import Image

from wsiseg.datasets.check import DatasetCheck
from wsiseg.datasets.contact_sheet import Cell, Row, draw_sheet, with_mask
from wsiseg.datasets.images import read_image
from wsiseg.datasets.patch import Patch
from wsiseg.errors import DatasetError

COLUMNS, COMBINATIONS = 8, 24


def dataset_sheet(check: DatasetCheck) -> Image.Image:
    """A row for each class, then for each combination of classes, the most frequent first.

    Patches with a mask stand beside themselves under their mask's colours. Files that cannot be read are left out.
    """
    patches = [patch for found in check.splits.values() for patch in found if patch.label]
    by_names: dict[tuple[str, ...], list[Patch]] = defaultdict(list)
    for patch in patches:
        by_names[check.names_of(patch.label)].append(patch)
    rows = []
    for channel, name in enumerate(check.classes.names if check.classes else ()):
        having = [p for p in patches if p.has(channel)]
        rows.append(_row(f"{name}: {len(having)} of {len(patches)} patches", having, check))
    frequent = sorted(by_names.items(), key=lambda item: -len(item[1]))[:COMBINATIONS]
    rows += [_row(f"{_joined(names)}: {len(found)}", found, check) for names, found in frequent]
    sizes = {size for _, size in check.sizes()}
    side = f", {min(sizes)[0]} px" if sizes else ""
    mpp = f" at {check.mpp:g} um/px" if check.mpp else ""
    title = f"{check.root.resolve().name}: {len(patches)} patches{side}{mpp}"
    return draw_sheet(rows, check.classes, title)


def _joined(names: Sequence[str]) -> str:
    if not names:
        return "No class"
    return f"{names[0]} alone" if len(names) == 1 else " + ".join(names)


def _row(heading: str, patches: Sequence[Patch], check: DatasetCheck) -> Row:
    cells: list[Cell] = []
    masked = any(patch.mask is not None for patch in patches)
    for patch in _spread(patches, COLUMNS // 2 if masked else COLUMNS):
        try:
            found = _cells(patch, check)
        except DatasetError:
            continue
        if len(cells) + len(found) <= COLUMNS:
            cells += found
    return Row(heading, cells)


def _spread(patches: Sequence[Patch], count: int) -> list[Patch]:
    """About `count` patches, evenly from first to last, so that they come from several groups."""
    step = max(1.0, len(patches) / count)
    return [patches[int(i * step)] for i in range(min(count, len(patches)))]


def _cells(patch: Patch, check: DatasetCheck) -> list[Cell]:
    pixels, title = read_image(patch.path), patch.path.stem
    if patch.mask is None or check.classes is None:
        return [Cell(pixels, title)]
    truth = patch.read_truth(len(check.classes))
    if truth.shape != pixels.shape[:2]:
        raise DatasetError(f"{patch.mask} is not of its image's size, make it again")
    return [Cell(pixels, title), Cell(with_mask(pixels, truth, check.classes), "mask")]
