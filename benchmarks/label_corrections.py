"""The corrected-region loop of `label_loop.py`: is a click on a map worth more than one on a new patch?

A model of 100 patches at random draws maps of its own training images. In each image the largest connected region that
is wrong and truly of one class is replaced by the truth: a region an image and round. Labels and masks of corrected
patches come about as in `wsiseg correct`, and the model goes on as with `wsiseg train CORRECTED --from MODEL --with
OLD`. Beside it the same model goes on, by the same code, with as many new patches as the same number of clicks buys.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from label_loop import Labelled, Loop, class_maps, how, is_done, measured, record, train_quietly, write_patches
from label_pool import HeldOut, Pool, clicks
from scipy import ndimage

from wsiseg.corrections.evidence import UNKNOWN, Evidence
from wsiseg.corrections.labels import patch_labels
from wsiseg.datasets.provenance import CORRECTED, Provenance
from wsiseg.datasets.write import DatasetWriter, PatchRow
from wsiseg.models.bundle import load_model
from wsiseg.training.origin import Origin

START = 100
CORRECTION_ROUNDS = 2
CLICKS_A_REGION = 3
"""Found, outlined, given its class."""

LEAST_SHARE = 0.05
"""Of a patch: smaller regions are not corrected, as they would make no label."""

Mask = npt.NDArray[np.uint8]


class Corrections:
    """What has been corrected so far, image by image.

    Args:
        pool: of the images.
        images: those that are corrected.
    """

    def __init__(self, pool: Pool, images: Sequence[HeldOut]) -> None:
        self.pool, self.images = pool, images
        self.truth = [coarse_truth(image) for image in images]
        self.known: list[Mask] = [np.full(truth.shape, UNKNOWN, np.uint8) for truth in self.truth]
        self.regions = 0

    def correct(self, maps: Sequence[npt.NDArray[np.int64]]) -> None:
        """Replace the largest wrong region of each image by the truth."""
        least = LEAST_SHARE * self.pool.patch_px**2
        for classes, truth, known in zip(maps, self.truth, self.known, strict=True):
            region = largest_wrong(classes, truth, known, len(self.pool.classes))
            if region.sum() >= least:
                known[region] = truth[region]
                self.regions += 1

    def write(self, root: Path) -> Path:
        """A data set of all patches of which something is known, as `wsiseg correct` writes it."""
        shutil.rmtree(root, ignore_errors=True)
        pool, side = self.pool, self.pool.patch_px
        with DatasetWriter(root, pool.classes, pool.mpp, side) as writer:
            for image, known in zip(self.images, self.known, strict=True):
                for y in range(0, known.shape[0], side):
                    for x in range(0, known.shape[1], side):
                        part = known[y : y + side, x : x + side]
                        labels = patch_labels(evidence_of(part, len(pool.classes)),
                                              pool.classes.names, side**2 - part.size)  # fmt: skip
                        if not labels:
                            continue
                        where = Provenance(image.name, x, y, side, pool.mpp, "labelled", "simulated", source=CORRECTED)
                        row = PatchRow(labels, image.name, provenance=where)
                        pixels = image.pixels[y : y + side, x : x + side]
                        writer.add(padded(pixels, side, 255), row, padded(part, side, UNKNOWN))
            writer.finish()
        return root


def coarse_truth(image: HeldOut) -> Mask:
    """The truth of an image at the resolution of its pixels."""
    assert image.truth is not None
    rows, columns = (
        ((np.arange(coarse) + 0.5) * fine // coarse).astype(int)
        for fine, coarse in zip(image.truth.shape, image.pixels.shape[:2], strict=True)
    )
    return image.truth[np.ix_(rows, columns)]


def largest_wrong(classes: npt.NDArray[np.int64], truth: Mask, known: Mask, count: int) -> npt.NDArray[np.bool_]:
    """The largest connected region (H, W) that is wrong, truly of one class, and not corrected yet."""
    best = np.zeros(truth.shape, np.bool_)
    for k in range(count):
        wrong = (truth == k) & (classes != k) & (known == UNKNOWN)
        labels, found = ndimage.label(wrong)
        if found:
            sizes = np.bincount(labels.ravel())[1:]
            if sizes.max() > best.sum():
                best = labels == 1 + sizes.argmax()
    return best


def evidence_of(known: Mask, count: int) -> Evidence:
    """What the painting of corrections gives for a patch whose pixels are known in part."""
    moved = np.zeros((count + 2, count + 2), np.int64)
    return Evidence(known, np.zeros(known.shape, np.bool_), np.full(known.shape, UNKNOWN, np.uint8), moved, 0)


def padded(values: npt.NDArray[np.uint8], side: int, value: int) -> npt.NDArray[np.uint8]:
    """A patch cut at the image's edge, filled up."""
    missing = [(0, side - values.shape[0]), (0, side - values.shape[1])] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values, missing, constant_values=value)


def correct_loop(loop: Loop) -> None:
    """Measure the start, and both ways on from it, round by round."""
    setting, start = loop.setting, loop.model("random", START)
    labelled = loop.labelled("random", START)
    old = write_patches(loop.folder / "old", setting, labelled)
    pool = setting.pool
    images = [image for fold, found in sorted(pool.images.items()) if fold != setting.fold for image in found]
    key = {**setting.key, "loop": "correct"}
    _measure(loop, {**key, "strategy": "start", "round": 0}, start, clicks=0)
    state, before = Corrections(pool, images), start
    for number in range(1, CORRECTION_ROUNDS + 1):
        model = load_model(before, runtime="torch")
        state.correct([class_maps(model, image.pixels)["predicted gate"] for image in images])
        spent = CLICKS_A_REGION * state.regions
        before = _go_on(loop, f"corrected-{number}", state.write(loop.folder / f"data-corrected-{number}"), before, old)
        _measure(loop, {**key, "strategy": "corrected", "round": number}, before, clicks=spent, regions=state.regions)
        new = affordable(loop, spent)
        data = write_patches(loop.folder / f"data-new-{number}", setting, new)
        other = _go_on(loop, f"new-{number}", data, start, old)
        done = {"clicks": clicks([one.answer for one in new]), "patches": len(new)}
        _measure(loop, {**key, "strategy": "new patches", "round": number}, other, **done)


def affordable(loop: Loop, spent: int) -> list[Labelled]:
    """As many patches after the first ones as so many clicks pay for."""
    everything = loop.labelled("random", len(loop.candidates))[START:]
    count = 1
    while count < len(everything) and clicks([one.answer for one in everything[: count + 1]]) <= spent:
        count += 1
    return everything[:count]


def _go_on(loop: Loop, name: str, data: Path, origin: Path, old: Path) -> Path:
    folder = loop.folder / name
    if not (folder / "model.json").is_file():
        begun = Origin.of(origin)
        train_quietly(data, folder, begun.config(), origin=begun, old=old)
    return folder


def _measure(loop: Loop, key: dict[str, Any], folder: Path, **cost: int) -> None:
    if not is_done(loop.out, key):
        found = measured(load_model(folder, runtime="torch"), loop.images)
        record(loop.out, {**key, **cost, **found, **how(loop.setting.pool, START)})
