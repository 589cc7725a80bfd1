"""How well white is told apart: rules against the masks of WSSS4LUAD, what they take of slides, and which cells.

    python benchmarks/white.py --masks FOLDER --cells FOLDER SLIDE [--mpp 0.5] …

The first FOLDER holds `img/*.png` and `mask/*.png` of about 1 um/px, in whose masks 3 is white. The second is
BRCA-M2C: `images/*.png` of 0.5 um/px and `labels/*_gt_class_coords.txt` with a cell's y, x and class a line; the share
of cells on white is given. For a slide the share of its tissue that each rule calls white is given, at the map's
resolution, with `--truth PNG` (bright is tissue) the Dice of the tissue with and without its white, and with
`--overlay PNG X Y SIDE` a picture of a square of the map beside the same with its white in cyan.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from wsiseg.geometry import Box, Mpp
from wsiseg.slides import open_slide
from wsiseg.slides.array import ArrayReader
from wsiseg.slides.base import SlideReader
from wsiseg.tissue.find import stained_tissue, tissue_mask
from wsiseg.tissue.light import USUAL_LIGHT, Light, measured, sample
from wsiseg.tissue.stain import Glass, saturation
from wsiseg.tissue.white import WhiteRule
from wsiseg.training.pseudo_masks import grey_values

Image.MAX_IMAGE_PIXELS = None
BoolArray = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
WHITE = 3
CYAN = (0, 255, 255)


@dataclass(frozen=True)
class Scene:
    """What a rule may know of a slide: glass outside the tissue, the light that is measured, and the map's mpp."""

    outside: Glass
    light: Light
    mpp: Mpp

    @classmethod
    def of(cls, slide: SlideReader, mpp: Mpp) -> Scene:
        """What a slide shows."""
        mask = stained_tissue(slide)
        assert mask.glass is not None
        return cls(mask.glass, measured(sample(slide, mask), mask.glass), mpp)

    @property
    def ours(self) -> WhiteRule:
        """The rule of `wsiseg.tissue.white`."""
        return WhiteRule.from_light(self.light, self.mpp)

    def fixed(self, share: float) -> WhiteRule:
        """The rule with one share for all slides, of the glass outside the tissue."""
        return WhiteRule.from_light(Light(self.outside.level, "outside", share), self.mpp)


Rule = Callable[[Pixels, Scene], BoolArray]


def ours(pixels: Pixels, scene: Scene) -> BoolArray:
    """The rule of `wsiseg.tissue.white`."""
    return scene.ours.parts(scene.ours.bright(pixels))


def lit(pixels: Pixels, scene: Scene, *, inside: bool, share: float = USUAL_LIGHT) -> BoolArray:
    """Half of the rule: only the light is the slide's own, or only its share."""
    level = scene.light.glass if inside else scene.outside.level
    rule = WhiteRule.from_light(
        replace(scene.light, glass=level, share=share if inside else scene.light.share), scene.mpp
    )
    return rule.parts(rule.bright(pixels))


def fixed(pixels: Pixels, scene: Scene, *, light: float, specks: bool = True) -> BoolArray:
    """One share of the light for all slides."""
    rule = scene.fixed(light)
    bright = rule.bright(pixels)
    return rule.parts(bright) if specks else bright


def opened(pixels: Pixels, scene: Scene, *, light: float, radius_um: float) -> BoolArray:
    """Only where a disc of bright pixels fits."""
    rule, radius = scene.fixed(light), radius_um / scene.mpp.mean
    inner = ndimage.distance_transform_edt(np.pad(rule.bright(pixels), 1, constant_values=True))[1:-1, 1:-1] > radius
    if not inner.any():
        return np.asarray(inner, np.bool_)
    return rule.parts(np.asarray(ndimage.distance_transform_edt(~inner) <= radius, np.bool_))


def hardly_coloured(pixels: Pixels, scene: Scene, *, light: float, most: float) -> BoolArray:
    """A limit on the saturation against the glass, beside the light."""
    rule = scene.fixed(light)
    return rule.parts(rule.bright(pixels) & (saturation(pixels, scene.outside.level) <= most))


def bright_around(pixels: Pixels, scene: Scene, *, light: float, radius_um: float, share: float) -> BoolArray:
    """Only near places where most pixels around are bright: textured mucin is not."""
    rule, radius = scene.fixed(light), radius_um / scene.mpp.mean
    bright = rule.bright(pixels)
    inner = ndimage.uniform_filter(bright.astype(np.float32), 2 * round(radius) + 1) >= share
    if not inner.any():
        return np.asarray(inner, np.bool_)
    return rule.parts(bright & (ndimage.distance_transform_edt(~inner) <= radius))


def published(pixels: Pixels, scene: Scene, *, specks: bool = True) -> BoolArray:
    """Grey above 200, whatever the glass."""
    bright: BoolArray = grey_values(pixels.transpose(2, 0, 1)[None])[0] > 200
    return scene.ours.parts(bright) if specks else bright


def smoothed(pixels: Pixels, scene: Scene, *, side: int) -> BoolArray:
    """Most of the pixels around have a grey above 200: no parts are measured."""
    share = ndimage.uniform_filter(published(pixels, scene, specks=False).astype(np.float32), side)
    return np.asarray(share > 0.5, np.bool_)


RULES: dict[str, Rule] = {
    "the rule": ours,
    "0.88 of the measured light": partial(lit, inside=True),
    "measured share of the outside": partial(lit, inside=False),
    "grey > 200": partial(published, specks=False),
    "grey > 200, parts": published,
    "majority of 3 x 3": partial(smoothed, side=3),
    "majority of 7 x 7": partial(smoothed, side=7),
    "0.88, no parts": partial(fixed, light=0.88, specks=False),
    **{f"{light} of the glass, parts": partial(fixed, light=light) for light in (0.80, 0.84, 0.88, 0.92)},
    "0.80, saturation up to 0.05": partial(hardly_coloured, light=0.80, most=0.05),
    "0.80, saturation up to 0.08": partial(hardly_coloured, light=0.80, most=0.08),
    "0.84, discs of 1.5 um": partial(opened, light=0.84, radius_um=1.5),
    "0.84, discs of 2.5 um": partial(opened, light=0.84, radius_um=2.5),
    "0.84, 90 % within 4 um": partial(bright_around, light=0.84, radius_um=4, share=0.9),
}


def scene_of(pixels: Pixels, name: str, mpp: Mpp) -> Scene:
    with ArrayReader(pixels, path=name, stated_mpp=mpp) as slide:
        return Scene.of(slide, mpp)


def masks(folder: Path) -> Iterator[tuple[Pixels, BoolArray, Scene]]:
    for path in sorted((folder / "img").glob("*.png")):
        with Image.open(path) as image, Image.open(folder / "mask" / path.name) as mask:
            pixels, truth = np.asarray(image.convert("RGB")), np.asarray(mask) == WHITE
        yield pixels, truth, scene_of(pixels, path.name, Mpp(1.0, 1.0))


def on_masks(folder: Path) -> None:
    sums = {name: np.zeros(3) for name in RULES}
    for pixels, truth, scene in masks(folder):
        for name, rule in RULES.items():
            found = rule(pixels, scene)
            sums[name] += (np.count_nonzero(found & truth), np.count_nonzero(found), np.count_nonzero(truth))
    print(f"{'rule':30} {'Dice':>6} {'precision':>9} {'recall':>7}")
    for name, (both, given, true) in sums.items():
        print(f"{name:30} {2 * both / (given + true):6.3f} {both / given:9.4f} {both / true:7.3f}")


def on_cells(folder: Path) -> None:
    """Share of the cells that lie on white, beside the share of the images."""
    sums = {name: np.zeros(8) for name in RULES}
    for path in sorted((folder / "images").glob("*.png")):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        rows = np.loadtxt(folder / "labels" / f"{path.stem}_gt_class_coords.txt", ndmin=2).astype(int)
        y, x = (np.clip(rows[:, axis], 0, pixels.shape[axis] - 1) for axis in (0, 1))
        scene = scene_of(pixels, path.name, Mpp(0.5, 0.5))
        for name, rule in RULES.items():
            found = rule(pixels, scene)
            dots = found[y, x]
            counts = [
                np.count_nonzero(of) for kind in (1, 2, 3) for of in (dots & (rows[:, 2] == kind), rows[:, 2] == kind)
            ]
            sums[name] += np.array([np.count_nonzero(found), found.size, *counts])
    print(f"{'rule':30} {'of pixels':>9} {'of cells':>9} {'lymphocytes':>12} {'tumour':>7} {'stromal':>8}")
    for name, (white, pixels_px, *kinds) in ((name, found.tolist()) for name, found in sums.items()):
        shares = [100 * on / of for on, of in zip(kinds[::2], kinds[1::2], strict=True)]
        cells = 100 * sum(kinds[::2]) / sum(kinds[1::2])
        print(
            f"{name:30} {100 * white / pixels_px:8.2f}% {cells:8.2f}% {shares[0]:11.2f}% {shares[1]:6.2f}% "
            f"{shares[2]:7.2f}%   ({sum(kinds[::2]):.0f} of {sum(kinds[1::2]):.0f})"
        )


def on_slide(path: Path, mpp: float | None, truth_png: Path | None, map_mpp: float) -> None:
    with open_slide(path, mpp=mpp) as slide:
        grid, mask = slide.grid(map_mpp), tissue_mask(slide)
        began = time.perf_counter()
        scene = Scene.of(slide, grid.mpp)
        print(f"{path.name}: {scene.light} in {time.perf_counter() - began:.1f} s, map {grid.size} px of {grid.mpp} um")
        truth = None
        if truth_png is not None:
            with Image.open(truth_png) as image:
                truth = np.asarray(image.resize((grid.size.width, grid.size.height), Image.Resampling.NEAREST)) > 127
        sums = {name: np.zeros(4) for name in ("no white", *RULES)}
        for y in range(0, grid.size.height, 512):
            box = Box(0, y, grid.size.width, 512).intersect(Box.from_size(grid.size))
            tissue = mask.rows(grid, box)
            if not tissue.any():
                right = None if truth is None else truth[y : y + 512]
                if right is None or not right.any():
                    continue
            pixels = slide.read(grid, box).pixels
            right = np.zeros_like(tissue) if truth is None else truth[y : y + 512]
            for name in sums:
                white = RULES[name](pixels, scene) & tissue if name in RULES else np.zeros_like(tissue)
                kept = tissue & ~white
                sums[name] += [np.count_nonzero(some) for some in (tissue, white, kept & right, kept)]
        for name, (tissue_px, white_px, both, kept_px) in sums.items():
            dice = "" if truth is None else f"  Dice without it {2 * both / (kept_px + np.count_nonzero(truth)):.4f}"
            print(f"{name:30} {100 * white_px / tissue_px:5.1f} % of tissue{dice}", flush=True)


def draw(path: Path, mpp: float | None, map_mpp: float, png: Path, place: tuple[int, int, int]) -> None:
    x, y, side = place
    with open_slide(path, mpp=mpp) as slide:
        grid = slide.grid(map_mpp)
        box = Box(x, y, side, side).intersect(Box.from_size(grid.size))
        pixels, tissue = slide.read(grid, box).pixels, tissue_mask(slide).rows(grid, box)
        drawn = pixels.copy()
        drawn[ours(pixels, Scene.of(slide, grid.mpp)) & tissue] = CYAN
        Image.fromarray(np.concatenate([pixels, drawn], axis=1)).save(png)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="*", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--map-mpp", type=float, default=0.5)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--overlay", nargs=4, metavar=("PNG", "X", "Y", "SIDE"))
    arguments = parser.parse_args()
    if arguments.masks is not None:
        on_masks(arguments.masks)
    if arguments.cells is not None:
        on_cells(arguments.cells)
    for path in arguments.slides:
        if arguments.overlay is None:
            on_slide(path, arguments.mpp, arguments.truth, arguments.map_mpp)
        else:
            png, *place = arguments.overlay
            x, y, side = (int(value) for value in place)
            draw(path, arguments.mpp, arguments.map_mpp, Path(png), (x, y, side))


if __name__ == "__main__":
    main()
