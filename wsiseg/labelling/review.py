"""Patches that have labels already, looked at again: those that a model doubts first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from wsiseg.arrays import UInt8Array
from wsiseg.datasets.dataset import PatchDataset
from wsiseg.datasets.images import read_image
from wsiseg.datasets.masks import ALWAYS_EXCLUDED
from wsiseg.datasets.patch import UNKNOWN, Patch
from wsiseg.datasets.provenance import Provenance
from wsiseg.datasets.write import PatchRow
from wsiseg.errors import DatasetError, OptionError
from wsiseg.labelling.advice import Advice
from wsiseg.labelling.places import Candidate

Sort = Literal["file", "class", "disagreement", "confidence"]
SORTS: tuple[Sort, ...] = ("file", "class", "disagreement", "confidence")
"""The data set's order; patches of the same classes together; where a model contradicts the label most; where it is
least sure."""


@dataclass(frozen=True)
class Review:
    """A data set to look at again.

    Attributes:
        candidates: its patches.
        given: patch -> names of the classes that its label says occur.
        rows: patch -> its row, as it is written where nobody answers.
    """

    dataset: PatchDataset
    candidates: tuple[Candidate, ...]
    given: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, PatchRow]
    _patches: Mapping[str, Patch]

    def cut(self, candidate: Candidate) -> tuple[UInt8Array | None, UInt8Array | None]:
        """The pixels of a patch; there are no surroundings."""
        try:
            return read_image(self._patches[candidate.id].path), None
        except DatasetError:
            return None, None

    def mask(self, patch: str) -> UInt8Array | None:
        """The mask of a patch as `DatasetWriter` takes it, None without."""
        of = self._patches[patch]
        if of.mask is None:
            return None
        truth = of.read_truth(len(self.dataset.classes))
        return np.where(truth >= len(self.dataset.classes), ALWAYS_EXCLUDED, truth).astype(np.uint8)

    def order(self, sort: Sort, advice: Advice | None) -> list[str]:
        """The patches in the order in which they are shown.

        Args:
            sort: see `SORTS`.
            advice: of a model, where there is one.

        Raises:
            OptionError: a sort that needs a model, without one.
        """
        patches = [candidate.id for candidate in self.candidates]
        if sort == "file":
            return patches
        if sort == "class":
            return sorted(patches, key=lambda patch: self.given[patch])
        if advice is None:
            raise OptionError(f"--sort {sort} needs a model, state --model")
        both = [(k, name) for k, name in enumerate(advice.names) if name in self.dataset.classes.names]
        if not both:
            raise OptionError(f"the model and {self.dataset.root} have no class in common, so that nothing can be told")

        def doubt(patch: str) -> float:
            said = advice.probabilities.get(patch)
            if said is None:
                return 0.0
            if sort == "confidence":
                return float(min(abs(said[k] - 0.5) for k, _ in both))
            labels = self.rows[patch].labels
            return -float(max((abs(said[k] - labels[name]) for k, name in both if name in labels), default=0.0))

        return sorted(patches, key=doubt)


def review_of(dataset: PatchDataset) -> Review:
    """What is needed to look at a data set again."""
    candidates, given, rows, patches = [], {}, {}, {}
    for split, members in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        for patch in members:
            name = hashlib.sha256(patch.name.encode()).hexdigest()[:16]
            where = patch.provenance or Provenance()
            slide = where.slide or patch.group
            candidates.append(Candidate(name, slide, patch.group, where.x, where.y, None))
            labels = {c.name: v for c, v in zip(dataset.classes, patch.label, strict=False) if v != UNKNOWN}
            given[name] = tuple(label for label, value in labels.items() if value)
            stem = Path(patch.name).with_suffix("").as_posix().replace("/", "_")
            kept = replace(where, status=where.status or "labelled")
            rows[name] = PatchRow(labels, patch.group, split, kept, stem)
            patches[name] = patch
    return Review(dataset, tuple(candidates), given, rows, patches)
