"""Cut the 67 lung images of WSSS4LUAD that have pixel masks into labelled patches, and split them into folds by image.

The masks (palette PNG: 0 tumour epithelium, 1 tumour-associated stroma, 2 normal, 3 white) give both: patch labels to
learn from, by the rule below, and the truth of images that a fold holds back.

A patch is 112 px at 1 um/px. One every 112 px, and one more that ends where the image does. A class is present in a
patch where it covers at least `PRESENT_SHARE` of it; a patch without any class is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from brca_m2c import corners
from PIL import Image

from wsiseg.datasets.patch import Patch

NAMES = ("Tumour", "Stroma", "Normal")
COLORS = ((213, 45, 45), (240, 170, 40), (40, 90, 200))
EXCLUDED = 3
PATCH_PX, MPP = 112, 1.0
PRESENT_SHARE = 0.05
FOLDS = 3


@dataclass(frozen=True, slots=True)
class LungImage:
    """An image with its truth.

    Attributes:
        name: of the file.
        pixels: (H, W, 3) uint8.
        truth: (H, W) uint8, 0 to 2 the class, 3 excluded.
        fold: the fold whose test image it is.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8]
    fold: int


def read_images(source: Path) -> list[LungImage]:
    """All images with their folds.

    Folds are dealt out class combination by class combination, rarest first and larger images first, so that each
    has its share of each; of the images with normal tissue there are three, one a fold.
    """
    loaded = []
    for path in sorted((source / "img").glob("*.png")):
        with Image.open(path) as image, Image.open(source / "mask" / path.name) as mask:
            loaded.append((path.name, np.array(image.convert("RGB")), np.array(mask, dtype=np.uint8)))
    groups: dict[tuple[bool, ...], list[int]] = {}
    for number, (_, _, truth) in enumerate(loaded):
        groups.setdefault(tuple(bool((truth == k).any()) for k in range(len(NAMES))), []).append(number)
    # The one image with all classes and the two with normal tissue alone are of one kind: they have normal tissue.
    kinds = sorted(groups.items(), key=lambda entry: (-entry[0][2], len(entry[1]), entry[0]))
    order = [n for _, members in kinds for n in sorted(members, key=lambda n: -loaded[n][2].size)]
    fold = {number: place % FOLDS for place, number in enumerate(order)}
    return [LungImage(name, pixels, truth, fold[n]) for n, (name, pixels, truth) in enumerate(loaded)]


def present(truth: npt.NDArray[np.uint8], share: float = PRESENT_SHARE) -> tuple[int, ...]:
    """0 or 1 for each class: whether it covers at least `share` of a patch."""
    counts = np.bincount(truth.ravel(), minlength=EXCLUDED + 1)[: len(NAMES)]
    return tuple(int(count > 0 and count >= share * truth.size) for count in counts)


def cut(images: list[LungImage], folder: Path) -> dict[int, list[Patch]]:
    """Write the patches and their masks below `folder`; those of each fold, in order."""
    patches: dict[int, list[Patch]] = {fold: [] for fold in range(FOLDS)}
    for name in ("img", "mask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for image in images:
        height, width = image.truth.shape
        for y in corners(height, PATCH_PX, PATCH_PX):
            for x in corners(width, PATCH_PX, PATCH_PX):
                window = (slice(y, y + PATCH_PX), slice(x, x + PATCH_PX))
                label = present(image.truth[window])
                if not any(label):
                    continue
                file = f"{Path(image.name).stem}_{y:04d}_{x:04d}.png"
                picture, mask = folder / "img" / file, folder / "mask" / file
                if not mask.is_file():
                    Image.fromarray(image.pixels[window]).save(picture)
                    Image.fromarray(image.truth[window]).save(mask)
                patches[image.fold].append(Patch(picture, f"img/{file}", label, image.name, mask))
    return patches
