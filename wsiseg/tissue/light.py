"""The light of a slide's glass, and how far from pale tissue it stands: of a sample of the tissue at 1 um a pixel.

White is told by brightness (`wsiseg.tissue.white`). How bright it has to be depends on the slide. On most slides, glass
inside the tissue is a peak of its own, with few pixels just below it. On pale or oedematous tissue, and where a
scanner stretches contrast, there is no gap: mucin and loose stroma reach up to the glass. So the pixels of a sample of
the tissue are counted by brightness. The smallest count below the glass is taken for what tissue has at every step
above it, and all that is more is glass. The threshold is the lowest one at which `LEAST_APART` of what it calls white
is glass. It is the slide's own: it does not depend on the map's resolution, on the tissue that was asked for, or on the
pieces of a run.

The colour of the glass is that of the overview, outside the tissue. Where that is one constant colour, it was never
scanned: a program filled it in. Then the brightest pixels inside the tissue are taken instead, if they are about as
bright.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsiseg.geometry import Box
from wsiseg.slides.base import SlideReader
from wsiseg.slides.expected import expected
from wsiseg.system.control_group import usable_cpus
from wsiseg.system.threads import read_ahead
from wsiseg.tiling.grid import TileGrid
from wsiseg.tissue.find import stained_tissue
from wsiseg.tissue.mask import TissueMask
from wsiseg.tissue.stain import Colour, Glass, find_glass

LEAST_LIGHT, USUAL_LIGHT, MOST_LIGHT = 0.84, 0.88, 0.97
"""Shares of the glass's light that white may have to let pass: the lowest, the one where too little is white to tell,
and the highest. The published rule is 200 of about 240 in grey."""

LEAST_APART = 0.65
"""Share of glass among what is as bright as white."""

SAMPLE_MPP = 1.0
"""Microns a pixel of the sample, or the slide's own where that is coarser."""

SAMPLE_CELLS, CELL_PX = 64, 256
"""Squares that are looked at at most, and their side in pixels of the sample."""

LEAST_BRIGHT_PX, LEAST_BRIGHT_SHARE = 20_000, 0.05
"""Pixels of the sample, and their share of it, that are at least `USUAL_LIGHT` where their counts are to tell."""

_STEP, _FIRST, _LAST = 0.01, 0.70, 1.10
_PALE = (0.76, 0.96)
_ALIKE = 0.9


@dataclass(frozen=True, slots=True)
class Light:
    """The light of a slide's glass, and how much of it white lets pass.

    Attributes:
        glass: red, green and blue, 0 to 255.
        source: "outside" the tissue, "inside" it where the outside was filled in or shows no glass, or "assumed".
        share: 0 to 1, of the glass's light, that white has at least in each channel.
        apart: share of glass, 0 to 1, among the pixels of the sample that have it; None where too few are bright.
    """

    glass: Colour
    source: str
    share: float = USUAL_LIGHT
    apart: float | None = None


def light_of(slide: SlideReader, mask: TissueMask) -> Light:
    """The light of a slide.

    Args:
        slide: open for reading; up to `SAMPLE_CELLS` squares of it are read.
        mask: where stained tissue is in its overview; another kind of mask is left aside, and such a one made.
    """
    stained = mask if mask.glass is not None else stained_tissue(slide)
    assert stained.glass is not None
    return measured(sample(slide, stained), stained.glass)


def sample(slide: SlideReader, mask: TissueMask) -> npt.NDArray[np.uint8]:
    """Pixels of the tissue, (n, 3), out of squares that are spread evenly over it; none that are damaged."""
    grid = slide.grid(max(SAMPLE_MPP, min(slide.mpp.x, slide.mpp.y)))
    cells = TileGrid(grid.size, CELL_PX, 0)
    places = np.argwhere(mask.select(grid, cells))
    places = places[np.unique(np.linspace(0, len(places) - 1, SAMPLE_CELLS).round().astype(int))] if len(places) else []
    whole = Box.from_size(grid.size)

    boxes = [cells.box(int(row), int(column)).intersect(whole) for row, column in places]

    def read(box: Box) -> npt.NDArray[np.uint8]:
        region = slide.read(grid, box)
        wanted = mask.rows(grid, box)
        if region.damaged is not None:
            wanted &= ~region.damaged
        return np.asarray(region.pixels[wanted])

    workers = min(4, usable_cpus())
    coming = expected(slide, grid, boxes, lambda box: box)
    pixels = [found for _, found in read_ahead(coming, read, workers=workers, ahead=2 * workers)]
    slide.forget()
    return np.concatenate(pixels) if pixels else np.empty((0, 3), np.uint8)


def measured(pixels: npt.NDArray[np.uint8], glass: Glass) -> Light:
    """Measure the light from a sample of the tissue (n, 3).

    Args:
        pixels: of the tissue.
        glass: that of the overview.
    """
    level, source = glass.level, "outside" if glass.found else "assumed"
    if len(pixels) and (glass.filled or not glass.found):
        inside = find_glass(pixels[:, None])
        if inside.found and min(inside.level) >= _ALIKE * min(glass.level):
            level, source = inside.level, "inside"
    counts = _counts(pixels, level)
    usual = _index(USUAL_LIGHT)
    if counts[usual:].sum() < max(LEAST_BRIGHT_PX, LEAST_BRIGHT_SHARE * len(pixels)):
        return Light(level, source)
    around = np.pad(counts, 1, "edge")
    smooth = (around[:-2] + around[1:-1] + around[2:]) / 3
    pale = float(smooth[_index(_PALE[0]) : _index(_PALE[1])].min())
    apart = 0.0
    for step in range(_index(LEAST_LIGHT), _index(MOST_LIGHT) + 1):
        bright = float(counts[step:].sum())
        tissue = pale * (_index(1.0) - step)
        apart = max(0.0, 1 - tissue / bright) if bright else 0.0
        if apart >= LEAST_APART:
            return Light(level, source, round(_FIRST + step * _STEP, 2), apart)
    return Light(level, source, MOST_LIGHT, apart)


def _index(share: float) -> int:
    return round((share - _FIRST) / _STEP)


def _counts(pixels: npt.NDArray[np.uint8], level: Colour) -> npt.NDArray[np.float64]:
    """How many pixels let pass each hundredth of the glass's light, in their darkest channel, from `_FIRST` on."""
    counts = np.zeros(_index(_LAST), np.float64)
    # Of each value in each channel: hundredths are found in whole numbers, alike on every machine.
    steps = np.array([[int(100 * value / most + 1e-9) for value in range(256)] for most in level]) - round(100 * _FIRST)
    for top in range(0, len(pixels), 1 << 20):
        part = pixels[top : top + (1 << 20)]
        darkest = np.minimum(np.minimum(steps[0][part[:, 0]], steps[1][part[:, 1]]), steps[2][part[:, 2]])
        counts += np.bincount(np.minimum(darkest[darkest >= 0], len(counts) - 1), minlength=len(counts))
    return counts
