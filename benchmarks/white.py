"""How well white is told apart: rules against the masks of WSSS4LUAD, and what they take of the tissue of slides.

    python benchmarks/white.py --masks FOLDER SLIDE [--mpp 0.5] …

FOLDER holds `img/*.png` and `mask/*.png` of about 1 um/px, in whose masks 3 is white. For a slide the share of its
tissue that each rule calls white is given, at the map's resolution, and with `--truth PNG` (bright is tissue) the Dice
of the tissue with and without its white.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from wsiseg.geometry import Box, Mpp
from wsiseg.slides import open_slide
from wsiseg.slides.array import ArrayReader
from wsiseg.stain import Glass
from wsiseg.tissue import slide_glass, tissue_mask
from wsiseg.training.pseudo_masks import grey_values
from wsiseg.white import WhiteRule

Image.MAX_IMAGE_PIXELS = None
BoolArray = npt.NDArray[np.bool_]
Rule = Callable[[npt.NDArray[np.uint8], Glass, Mpp], BoolArray]
WHITE = 3


def ours(pixels: npt.NDArray[np.uint8], glass: Glass, mpp: Mpp, *, light: float, specks: bool = True) -> BoolArray:
    """The rule of `wsiseg.white` with another share of the glass's light."""
    red, green, blue = (min(255, math.ceil(light * value)) for value in glass.level)
    rule = replace(WhiteRule.of(glass, mpp), least=(red, green, blue))
    bright = rule.bright(pixels)
    return rule.parts(bright) if specks else bright


def published(pixels: npt.NDArray[np.uint8], glass: Glass, mpp: Mpp, *, specks: bool = True) -> BoolArray:
    """Grey above 200, whatever the glass."""
    bright: BoolArray = grey_values(pixels.transpose(2, 0, 1)[None])[0] > 200
    return WhiteRule.of(glass, mpp).parts(bright) if specks else bright


def smoothed(pixels: npt.NDArray[np.uint8], glass: Glass, mpp: Mpp, *, side: int) -> BoolArray:
    """Most of the pixels around have a grey above 200: no parts are measured."""
    share = ndimage.uniform_filter(published(pixels, glass, mpp, specks=False).astype(np.float32), side)
    return np.asarray(share > 0.5, np.bool_)


RULES: dict[str, Rule] = {
    "grey > 200": partial(published, specks=False),
    "grey > 200, parts": published,
    "majority of 3 x 3": partial(smoothed, side=3),
    "majority of 7 x 7": partial(smoothed, side=7),
    "0.88 of the glass, no parts": partial(ours, light=0.88, specks=False),
    **{f"{light} of the glass, parts": partial(ours, light=light) for light in (0.80, 0.84, 0.88, 0.92)},
}


def masks(folder: Path) -> Iterator[tuple[npt.NDArray[np.uint8], BoolArray, Glass, Mpp]]:
    for path in sorted((folder / "img").glob("*.png")):
        with Image.open(path) as image, Image.open(folder / "mask" / path.name) as mask:
            pixels, truth = np.asarray(image.convert("RGB")), np.asarray(mask) == WHITE
        mpp = Mpp(1.0, 1.0)
        with ArrayReader(pixels, path=path.name, stated_mpp=mpp) as slide:
            yield pixels, truth, slide_glass(slide), mpp


def on_masks(folder: Path) -> None:
    sums = {name: np.zeros(3) for name in RULES}
    for pixels, truth, glass, mpp in masks(folder):
        for name, rule in RULES.items():
            found = rule(pixels, glass, mpp)
            sums[name] += (np.count_nonzero(found & truth), np.count_nonzero(found), np.count_nonzero(truth))
    print(f"{'rule':30} {'Dice':>6} {'precision':>9} {'recall':>7}")
    for name, (both, given, true) in sums.items():
        print(f"{name:30} {2 * both / (given + true):6.3f} {both / given:9.3f} {both / true:7.3f}")


def on_slide(path: Path, mpp: float | None, truth_png: Path | None, map_mpp: float) -> None:
    with open_slide(path, mpp=mpp) as slide:
        grid, mask = slide.grid(map_mpp), tissue_mask(slide)
        glass = mask.glass or slide_glass(slide)
        print(f"{path.name}: glass {[round(v) for v in glass.level]}, map {grid.size} px of {grid.mpp} um")
        truth = None
        if truth_png is not None:
            with Image.open(truth_png) as image:
                truth = np.asarray(image.resize((grid.size.width, grid.size.height), Image.Resampling.NEAREST)) > 127
        sums = {name: np.zeros(4) for name in ("no white", *RULES)}
        for y in range(0, grid.size.height, 512):
            box = Box(0, y, grid.size.width, 512).intersect(Box.of(grid.size))
            pixels, tissue = slide.read(grid, box).pixels, mask.rows(grid, box)
            right = np.zeros_like(tissue) if truth is None else truth[y : y + 512]
            for name in sums:
                white = RULES[name](pixels, glass, grid.mpp) & tissue if name in RULES else np.zeros_like(tissue)
                kept = tissue & ~white
                sums[name] += [np.count_nonzero(some) for some in (tissue, white, kept & right, kept)]
        for name, (tissue_px, white_px, both, kept_px) in sums.items():
            dice = "" if truth is None else f"  Dice without it {2 * both / (kept_px + np.count_nonzero(truth)):.4f}"
            print(f"{name:30} {100 * white_px / tissue_px:5.1f} % of tissue{dice}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="*", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--map-mpp", type=float, default=0.5)
    parser.add_argument("--truth", type=Path)
    arguments = parser.parse_args()
    if arguments.masks is not None:
        on_masks(arguments.masks)
    for path in arguments.slides:
        on_slide(path, arguments.mpp, arguments.truth, arguments.map_mpp)


if __name__ == "__main__":
    main()
