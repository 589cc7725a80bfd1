"""One labelled patch, and what the name of its file says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.datasets.masks import MaskCoding
from wsiseg.datasets.provenance import CORRECTED, Provenance
from wsiseg.errors import DatasetError

UNKNOWN = -1
"""Label of a class of which nobody has said whether it occurs."""

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_LABEL = re.compile(r"\s*[01](?:[\s,_]*[01])*\s*")
_MPP = re.compile(r"MPP-(\d{1,3}(?:\.\d{1,8})?)", re.IGNORECASE)
_TCGA = re.compile(r"TCGA-\w{2}-\w{4}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Patch:
    """One labelled patch.

    Attributes:
        path: of the image.
        name: path below the data set's folder, with forward slashes; what pseudo masks and messages are called by.
        label: for each class 1 (occurs), 0 (does not) or -1 (unknown); empty where only a mask is known.
        group: slide or patient it comes from.
        mask: where its pixels are known, in any split.
        coding: what the mask's values mean; class channels and K or 255 for excluded where it is None.
        provenance: slide, place, person, source; None where the data set does not say.
        square_px: side of the square that a training mirrors the image to; 0 where it is one of the set's size.
    """

    path: Path
    name: str
    label: tuple[int, ...]
    group: str
    mask: Path | None = None
    coding: MaskCoding | None = None
    provenance: Provenance | None = None
    square_px: int = 0

    def has(self, channel: int) -> bool:
        """Whether a class is known to occur."""
        return channel < len(self.label) and self.label[channel] == 1

    @property
    def corrected(self) -> bool:
        """Whether a person corrected it on a map; its mask then teaches, and covers what was corrected alone."""
        return self.provenance is not None and self.provenance.source == CORRECTED

    def read_truth(self, num_classes: int) -> npt.NDArray[np.uint8]:
        """The class channel of every pixel (H, W), K for excluded ones; a patch without mask has none to read.

        Raises:
            DatasetError: the mask cannot be read, or holds other classes.
        """
        if self.mask is None:
            raise DatasetError(f"{self.path} has no mask, so that the classes of its pixels are not known; add one")
        return (self.coding or MaskCoding(num_classes)).read(self.mask)


def label_of(stem: str) -> tuple[int, ...] | None:
    """The label in the last bracket of a name, `[1 0 0 1]`, `[1, 0, 0, 1]`, `[1,0,0,1]` or `[1001]`; None without."""
    inside = _BRACKETS.findall(stem)
    if not inside or not _LABEL.fullmatch(inside[-1]):
        return None
    return tuple(int(digit) for digit in inside[-1] if digit in "01")


def group_of(stem: str) -> str:
    """The patient of a name from TCGA, else what stands before the first hyphen: the slide of LUAD-HistoSeg's names."""
    plain = stem[: stem.rindex("[")] if label_of(stem) is not None else stem
    tcga = _TCGA.match(plain)
    return tcga.group().upper() if tcga else plain.split("-", maxsplit=1)[0] or stem


def mpp_of(stem: str) -> float | None:
    """Microns per pixel in a name such as `TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500`, if it says so."""
    found = _MPP.search(stem)
    return float(found.group(1)) if found else None
