"""How well the tissue of a slide is found, against a mask of it, and in what time.

    python benchmarks/tissue.py colon-section.tif colon-section_tissue_8x.png --mpp 0.5

Prints Dice (twice the overlap over the sum of both areas), compared at the mask's pixels. For the judgement of it, also
what Otsu's threshold alone gives.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_otsu

from wsiseg.geometry import Box, Grid, Mpp
from wsiseg.slides import open_slide
from wsiseg.slides.base import SlideReader
from wsiseg.slides.overview import read_overview
from wsiseg.tissue.bit_mask import BitMask
from wsiseg.tissue.find import tissue_mask
from wsiseg.tissue.mask import TissueMask
from wsiseg.tissue.stain import DEFAULT_GLASS, saturation


def main() -> None:
    """Print the figures of one slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("mask", type=Path, help="PNG of the slide's aspect, bright where tissue is")
    parser.add_argument("--mpp", type=float)
    arguments = parser.parse_args()
    with open_slide(arguments.slide, mpp=arguments.mpp) as slide:
        began = time.perf_counter()
        found = tissue_mask(slide)
        seconds = time.perf_counter() - began
        truth = tissue_mask(slide, arguments.mask)
        step = truth.step_x
        size = truth.mask.shape
        grid = Grid(slide.size, Mpp(1, 1), step, truth.step_y, 0, 1.0, 1.0)
        box = Box(0, 0, size[1], size[0])
        expected = truth.mask.pixels()
        print(f"{slide.name}: tissue {found.share:.1%}, in the mask {truth.share:.1%}, {seconds:.2f} s")
        print(f"Dice                      {_dice(found.rows(grid, box), expected):.4f}")
        print(f"Dice, Otsu alone          {_dice(_otsu(slide).rows(grid, box), expected):.4f}")


def _otsu(slide: SlideReader) -> TissueMask:
    grid, overview = read_overview(slide)
    values = saturation(overview, DEFAULT_GLASS)
    threshold = float(threshold_otsu(values))  # type: ignore[no-untyped-call]
    return TissueMask(BitMask(values > threshold), grid.step_x, grid.step_y, slide.size, "otsu alone")


def _dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


if __name__ == "__main__":
    main()
