"""Pools of patches whose truth is known, and the simulated person who answers them; for `label_loop.py`.

Two pools: BRCA-M2C (a class is present from two of its dots on; patients are divided into folds) and the 67 lung images
of WSSS4LUAD that have masks (present from 5 % cover on; images are divided). Both are read at half their resolution, 48
px at 1 um/px and 56 px at 2 um/px, of the same field as elsewhere: a training then costs half as much.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import brca_m2c
import lung_patches
import numpy as np
import numpy.typing as npt
from PIL import Image

from wsiseg.classes import ClassTable
from wsiseg.labelling.places import Candidate, in_turn

FOLDS = 3
RARE_SHARE = 0.02
BRCA_PX, BRCA_MPP, BRCA_CELLS = 48, 1.0, 2
LUNG_PX, LUNG_MPP = 56, 2.0
SMALL_COVER = 0.10
PAGE, CLICKS_A_PAGE = 24, 5


@dataclass(frozen=True, slots=True)
class Answerable:
    """A patch of a pool.

    Attributes:
        place: what labelling knows of it: id, slide, patient, place.
        path: of its image.
        label: the truth by the pool's rule, (K,) of 0 and 1.
        cover: share of each class among its pixels, (K,); empty where only dots are known.
    """

    place: Candidate
    path: Path
    label: tuple[int, ...]
    cover: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldOut:
    """An image whose truth is asked at pixels, or at the dots of its cells.

    Attributes:
        name: of the image.
        pixels: (H, W, 3) uint8 at the pool's mpp.
        truth: (h, w) uint8 of any finer resolution, K for what is not counted; None where there are dots.
        cells: (n, 3) x, y in pixels and class channel; None where there is a mask.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8] | None = None
    cells: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Patches and images of a data set, divided into folds.

    Attributes:
        name: of the data set.
        classes: names and colours.
        mpp: of the patches.
        patch_px: their side.
        context: of the gate, in sides of a patch.
        rare: channel of the rarest class.
        patches: of each fold.
        images: of each fold.
    """

    name: str
    classes: ClassTable
    mpp: float
    patch_px: int
    context: float
    rare: int
    patches: Mapping[int, Sequence[Answerable]]
    images: Mapping[int, Sequence[HeldOut]] = field(repr=False)

    def candidates(self, fold: int, seed: int, *, thinned: bool) -> list[Answerable]:
        """The patches of all folds but one, in the order by chance in which labelling would offer them."""
        found = [one for other, patches in self.patches.items() if other != fold for one in patches]
        if thinned:
            found = thin([one.label for one in found], found, self.rare, RARE_SHARE, seed)
        return in_chance_order(found, seed)


def brca_pool(source: Path, work: Path) -> Pool:
    """BRCA-M2C's training and validation images; its test images are never read."""
    folder = work / "brca"
    if not (folder / "labels.csv").is_file():
        brca_m2c.prepare(source, folder, BRCA_MPP, BRCA_PX, BRCA_PX, BRCA_CELLS, 1)
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    patients = sorted({row["group"] for row in rows})
    order = np.random.default_rng(0).permutation(len(patients))
    fold_of = {patients[index]: place % FOLDS for place, index in enumerate(order)}
    patches: dict[int, list[Answerable]] = {fold: [] for fold in range(FOLDS)}
    for row in rows:
        label = tuple(int(row[name]) for name in brca_m2c.NAMES)
        *slide, x, y = Path(row["file"]).stem.split("_")
        place = _place("_".join(slide), row["group"], int(x), int(y))
        patches[fold_of[row["group"]]].append(Answerable(place, folder / row["file"], label))
    images: dict[int, list[HeldOut]] = {fold: [] for fold in range(FOLDS)}
    for split in ("train", "val"):
        for image in brca_m2c.read_images(source, split, BRCA_MPP):
            images[fold_of[image.patient]].append(HeldOut(image.name, image.pixels, cells=image.cells))
    colors = [entry["color"] for entry in brca_m2c.CLASSES]
    table = ClassTable.from_names(list(brca_m2c.NAMES), [tuple(color) for color in colors])  # type: ignore[arg-type]
    return Pool("brca", table, BRCA_MPP, BRCA_PX, 0.0, 2, patches, images)


def lung_pool(source: Path, work: Path) -> Pool:
    """The 67 lung images of WSSS4LUAD that have masks, at half their resolution."""
    whole, folder = lung_patches.read_images(source), work / "lung"
    (folder / "half").mkdir(parents=True, exist_ok=True)
    patches: dict[int, list[Answerable]] = {fold: [] for fold in range(FOLDS)}
    for fold, cut in lung_patches.cut(whole, folder).items():
        for patch in cut:
            small = folder / "half" / patch.path.name
            if not small.is_file():
                with Image.open(patch.path) as image:
                    image.resize((LUNG_PX, LUNG_PX), Image.Resampling.BOX).save(small)
            assert patch.mask is not None
            with Image.open(patch.mask) as mask:
                counts = np.bincount(np.asarray(mask).ravel(), minlength=lung_patches.EXCLUDED + 1)
            stem, y, x = patch.path.stem.rsplit("_", 2)
            cover = tuple((counts[: len(lung_patches.NAMES)] / counts.sum()).tolist())
            place = _place(stem, patch.group, int(x), int(y))
            patches[fold].append(Answerable(place, small, patch.label, cover))
    images: dict[int, list[HeldOut]] = {fold: [] for fold in range(FOLDS)}
    for one in whole:
        images[one.fold].append(HeldOut(one.name, halved(one.pixels), one.truth))
    table = ClassTable.from_names(list(lung_patches.NAMES), list(lung_patches.COLORS))
    return Pool("lung", table, LUNG_MPP, LUNG_PX, 2.0, 2, patches, images)


def halved(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An image (H, W, 3) at half its resolution, the mean of each four pixels."""
    picture = Image.fromarray(pixels)
    size = (round(picture.width / 2), round(picture.height / 2))
    return np.asarray(picture.resize(size, Image.Resampling.BOX))


def _place(slide: str, group: str, x: int, y: int) -> Candidate:
    return Candidate(f"{slide}_{x:04d}_{y:04d}", slide, group, x, y, None)


def thin(
    labels: Sequence[Sequence[int]], patches: Sequence[Answerable], rare: int, share: float, seed: int
) -> list[Answerable]:
    """Patches of which so many that hold the rare class were left out that those left are `share` of all."""
    holding = [index for index, label in enumerate(labels) if label[rare]]
    others = len(labels) - len(holding)
    kept = min(len(holding), round(others * share / (1 - share)))
    drawn = np.random.default_rng([seed, 1]).permutation(len(holding))[:kept]
    left = set(range(len(labels))) - set(holding) | {holding[index] for index in drawn}
    return [patches[index] for index in sorted(left)]


def in_chance_order(patches: Sequence[Answerable], seed: int) -> list[Answerable]:
    """As labelling orders candidates: each slide's by chance, one of each patient in turn."""
    rng = np.random.default_rng([seed, 2])
    by_slide: dict[str, list[Candidate]] = {}
    for index in rng.permutation(len(patches)):
        place = patches[index].place
        by_slide.setdefault(place.slide, []).append(place)
    by_id = {one.place.id: one for one in patches}
    return [by_id[place.id] for place in in_turn(list(by_slide.values()))]


@dataclass(frozen=True, slots=True)
class Annotator:
    """A person who answers from the truth.

    Attributes:
        flips: share of answers, class by class, that say the opposite.
        misses: whether classes that cover less than `SMALL_COVER` are not seen.
        seed: of the flips; the same patch gets the same answer, whoever chose it.
    """

    flips: float = 0.0
    misses: bool = False
    seed: int = 0

    @property
    def name(self) -> str:
        """As results call it."""
        return f"flips {self.flips:.0%}" if self.flips else "misses small" if self.misses else "truth"

    def answer(self, patch: Answerable) -> tuple[int, ...]:
        """0 or 1 for each class."""
        said = patch.label
        if self.misses and patch.cover:
            said = tuple(int(value and share >= SMALL_COVER) for value, share in zip(said, patch.cover, strict=True))
        number = int(hashlib.sha256(patch.place.id.encode()).hexdigest()[:12], 16)
        flipped = np.random.default_rng([self.seed, number]).random(len(said)) < self.flips
        return tuple(int(value != bool(flip)) for value, flip in zip(said, flipped, strict=True))


def clicks(answers: Sequence[Sequence[int]]) -> int:
    """What answers cost: one for each class that is switched on, one for each patch, and five for each page."""
    pages = -(-len(answers) // PAGE)
    return sum(sum(answer) for answer in answers) + len(answers) + CLICKS_A_PAGE * pages
