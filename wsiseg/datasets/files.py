"""Contents of the files of patches: each is decoded once, in several threads, and checked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.datasets.images import is_turned, read_image
from wsiseg.datasets.patch import Patch
from wsiseg.datasets.problems import Report
from wsiseg.datasets.sizes import check_sizes, fits
from wsiseg.errors import DatasetError

THREADS = 4
WHITE = 220
"""Darkest channel, from here on, of pixels that show glass, fat or nothing."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a patch's files hold; None where one could not be read.

    Attributes:
        size_px: (width, height) of the image.
        digest: SHA-256 of its decoded pixels and size.
        deviation: standard deviation of its grey values, every second pixel each way, 0 to 127.5.
        mask_size_px: (width, height) of the mask.
        pixels: of each class in the mask and, last, excluded ones, (K + 1,).
        white: how many of these are white in the image, (K + 1,); None where the sizes differ.
        problems: (kind, message) of what could not be read.
    """

    size_px: tuple[int, int] | None = None
    digest: str = ""
    deviation: float = 0.0
    mask_size_px: tuple[int, int] | None = None
    pixels: npt.NDArray[np.int64] | None = None
    white: npt.NDArray[np.int64] | None = None
    problems: tuple[tuple[str, str], ...] = ()


def inspect(patches: Sequence[Patch], num_classes: int, contents: bool = True) -> Iterator[Facts]:
    """The facts of each patch, in order; without `contents` only sizes, and the pixels of masks."""
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            yield from pool.map(lambda patch: _inspect(patch, num_classes, contents), patches)
        finally:
            pool.shutdown(cancel_futures=True)


def _inspect(patch: Patch, num_classes: int, contents: bool) -> Facts:
    facts, problems, bright = Facts(), [], None
    try:
        image = read_image(patch.path)
        facts = Facts((image.shape[1], image.shape[0]))
        if contents:
            digest = hashlib.sha256(f"{image.shape}".encode())
            digest.update(np.ascontiguousarray(image).data)
            deviation = float(image[::2, ::2].mean(axis=2).std())
            facts = replace(facts, digest=digest.hexdigest(), deviation=deviation)
            bright = image.min(axis=2) >= WHITE if patch.mask is not None else None
    except DatasetError as error:
        problems.append(("unreadable", str(error)))
    if patch.mask is not None:
        try:
            truth = _truth(patch, num_classes, bool(facts.size_px))
            counts = np.bincount(truth.ravel(), minlength=num_classes + 1)
            facts = replace(facts, mask_size_px=(truth.shape[1], truth.shape[0]), pixels=counts)
            if bright is not None and bright.shape == truth.shape:
                facts = replace(facts, white=np.bincount(truth[bright], minlength=num_classes + 1))
        except DatasetError as error:
            problems.append(("mask", str(error)))
    return replace(facts, problems=tuple(problems))


def _truth(patch: Patch, num_classes: int, readable: bool) -> npt.NDArray[np.uint8]:
    """The mask of a patch; refused where its image is stored otherwise than it is to be seen."""
    if readable and is_turned(patch.path):
        raise DatasetError(
            f"{patch.path} says that it is to be shown turned, so that it is not known how its mask lies: save it so"
        )
    return patch.read_truth(num_classes)


def check_files(
    splits: Mapping[str, Sequence[Patch]], num_classes: int, report: Report, contents: bool = True
) -> tuple[dict[str, list[Patch]], dict[str, list[Facts]], int]:
    """Decode all files and see that they fit together; `contents` as in `inspect`.

    Returns:
        The patches with labels from masks where only these know them, their facts, and the side in px of a patch.
    """
    labelled: dict[str, list[Patch]] = {name: [] for name in splits}
    facts: dict[str, list[Facts]] = {name: [] for name in splits}
    for split, patches in splits.items():
        for patch, seen in zip(patches, inspect(patches, num_classes, contents), strict=True):
            for kind, message in seen.problems:
                report(kind, patch.name, message)
            if seen.size_px and seen.mask_size_px and seen.size_px != seen.mask_size_px:
                message = f"{patch.mask} is {_px(seen.mask_size_px)}, but its image is {_px(seen.size_px)}"
                report("mask size", patch.name, message)
            known = replace(patch, label=_label(seen, num_classes)) if not patch.label else patch
            labelled[split].append(known)
            facts[split].append(seen)
    sized = {split: [(p, f.size_px) for p, f in zip(labelled[split], facts[split], strict=True)] for split in splits}
    side = check_sizes(sized, report)
    squares = {split: [_square(patch, size, side) for patch, size in patches] for split, patches in sized.items()}
    return squares, facts, side


def _square(patch: Patch, size: tuple[int, int] | None, side: int) -> Patch:
    """A patch that knows the square that it is mirrored to, where it is not one itself."""
    smaller = size is not None and size != (side, side) and fits(size, side)
    return replace(patch, square_px=side) if smaller else patch


def _label(facts: Facts, num_classes: int) -> tuple[int, ...]:
    return () if facts.pixels is None else tuple(int(count > 0) for count in facts.pixels[:num_classes])


def check_stems(root: Path, patches: Sequence[Patch], report: Report) -> None:
    """Names must differ by more than their ending, since pseudo masks are called by them."""
    stems = Counter(Path(patch.name).with_suffix("") for patch in patches)
    for stem, count in stems.items():
        if count > 1:
            report("twice", str(stem), f"{root} has two images named {stem} but for their ending; rename one")


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"
