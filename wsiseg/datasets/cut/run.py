"""`dataset cut`: a data set of square patches from images of any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from wsiseg.classes import ClassTable
from wsiseg.datasets.cut.image import KnownImage, Square, squares_of
from wsiseg.datasets.cut.sources import find_source
from wsiseg.datasets.patch import UNKNOWN, label_of
from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.write import DatasetWriter, PatchRow
from wsiseg.errors import DatasetError, OptionError
from wsiseg.system.json_values import JsonObject

SOURCE = "cut"
"""Of the patches that are cut, in the column of that name."""


@dataclass(frozen=True, slots=True)
class CutOptions:
    """How a data set is cut.

    Attributes:
        patch_px: side of a patch.
        mpp: microns per pixel; None for what the source says.
        classes: class table; None for the source's own.
        excluded: mask value of excluded pixels; None for the source's own.
        cell_classes: from class values of dots to class names.
        split: that all patches belong to; empty for what the source says.
    """

    patch_px: int
    mpp: float | None = None
    classes: ClassTable | None = None
    excluded: int | None = None
    cell_classes: Mapping[str, str] | None = None
    split: str = ""


@dataclass(slots=True)
class CutRecord:
    """What became of a source.

    Attributes:
        images: that were read.
        patches: that were written.
        patch_px: their side.
        mpp: microns per pixel.
        masks: patches with a mask.
        small: images that are less than half of a patch, left out.
        unlabelled: patches of which nothing is known, left out.
        labels: patches by class's name and what is known of it: "present", "absent", "unknown".
    """

    patch_px: int
    mpp: float
    images: int = 0
    patches: int = 0
    masks: int = 0
    small: int = 0
    unlabelled: int = 0
    labels: dict[str, Counter[str]] = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """As JSON."""
        return {**asdict(self), "labels": {name: dict(counts) for name, counts in self.labels.items()}}


def cut(
    source: str | Path, out: str | Path, options: CutOptions, progress: Callable[[int, int], None] = lambda *_: None
) -> CutRecord:
    """Cut images into patches with labels, and masks where pixels are known.

    Args:
        source: folder of images; see `wsiseg.datasets.cut.sources.find_source`.
        out: folder of the data set to begin, or to append to.
        options: how.
        progress: called after each image with its number, from 1, and how many there are.

    Raises:
        WsisegError: on bad input; the data set is then as it was.
    """
    root = Path(source)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder of images; for a slide, state its --annotations")
    if Path(out).resolve() == root.resolve():
        raise OptionError(f"{out} is the folder that is cut; name another one for the patches")
    found = find_source(root, options.classes, options.excluded, options.cell_classes)
    mpp = options.mpp if options.mpp is not None else found.mpp
    if mpp is None:
        raise DatasetError(f"{root} does not say how large its pixels are: state --mpp (um per pixel)")
    record = CutRecord(options.patch_px, float(mpp), labels={name: Counter() for name in found.classes.names})
    with DatasetWriter(out, found.classes, mpp, options.patch_px) as writer:
        for number, (_, read) in enumerate(found.images, start=1):
            image = read()
            squares = squares_of(image, options.patch_px, len(found.classes))
            record.images += 1
            record.small += not squares
            for square in squares:
                _write(writer, image, square, options.split, record)
            progress(number, len(found.images))
        if not record.patches:
            raise DatasetError(_nothing(root, record))
        writer.finish()
    return record


def _nothing(root: Path, record: CutRecord) -> str:
    why = f"{record.small} of {record.images} images are less than half of {record.patch_px} px"
    return f"{root} gives no patch: {why}, {record.unlabelled} patches have no label; state a smaller --patch"


def _write(writer: DatasetWriter, image: KnownImage, square: Square, split: str, record: CutRecord) -> None:
    names = writer.given.names
    labels = {name: value for name, value in zip(names, square.label, strict=True) if value != UNKNOWN}
    if not labels:
        record.unlabelled += 1
        return
    where = Provenance(
        slide=image.name, x=float(square.x), y=float(square.y), size_px=record.patch_px, mpp=record.mpp,
        status="labelled", source=SOURCE,
    )  # fmt: skip
    name = f"{_stem(image.name)}_x{square.x}_y{square.y}"
    writer.add(square.pixels, PatchRow(labels, image.group, split or image.split, where, name), square.mask)
    record.patches += 1
    record.masks += square.mask is not None
    for known in names:
        record.labels[known][{1: "present", 0: "absent"}.get(labels.get(known, UNKNOWN), "unknown")] += 1


def _stem(name: str) -> str:
    """An image's name without folder, ending, and the label that stands in it."""
    stem = PurePosixPath(name).stem
    return stem[: stem.rindex("[")].rstrip(" -_") if label_of(stem) is not None else stem
