"""What cannot be learned from a data set, however sound its files are: by its labels and groups alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from wsiseg.datasets.patch import Patch
from wsiseg.datasets.problems import Report

FEW = 20
"""Training patches with a class from which on it is not said that there are few."""

IMBALANCE = 50
"""Patches with the most frequent class for one with the rarest, from which on it is said."""

KINDS = (
    "no labels",
    "absent",
    "constant class",
    "together",
    "few",
    "imbalance",
    "val absent",
    "one group",
    "no groups",
)
"""Kinds of `wsiseg.datasets.problems` that `learning_findings` finds; with `--strict` each of them is refused."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot be learned, or not well.

    Attributes:
        kind: of `wsiseg.datasets.problems`.
        where: the class or file that it is about; empty for all.
        message: on one line.
    """

    kind: str
    where: str
    message: str


def learning_findings(names: Sequence[str], train: Sequence[Patch], val: Sequence[Patch]) -> list[Finding]:
    """What stands in the way of learning.

    Args:
        names: of the classes, in the order of labels.
        train: patches to learn from; those without label are left out.
        val: patches for validation; none where they are still to be set aside.
    """
    labelled = [patch for patch in train if patch.label]
    if not labelled or not names:
        return []
    return [*_of_labels(names, labelled), *_of_validation(names, labelled, val), *_of_groups([*train, *val])]


def report_learning(names: Sequence[str], train: Sequence[Patch], val: Sequence[Patch], report: Report) -> None:
    """Report `learning_findings`."""
    for finding in learning_findings(names, train, val):
        report(finding.kind, finding.where, finding.message)


def _of_labels(names: Sequence[str], train: Sequence[Patch]) -> Iterator[Finding]:
    with_it = [sum(patch.has(k) for patch in train) for k in range(len(names))]
    without = [sum(len(patch.label) > k and patch.label[k] == 0 for patch in train) for k in range(len(names))]
    if not any(with_it):
        yield Finding("no labels", "", f"none of {len(train)} training patches has a class: there is nothing to learn")
        return
    if all(value == 1 for patch in train for value in patch.label):
        yield Finding("no labels", "", f"all {len(train)} training patches have every class: nothing tells these apart")
        return
    for k, name in enumerate(names):
        if not with_it[k]:
            yield Finding("absent", name, f"no training patch has {name}")
        elif not without[k] and len(names) > 1:
            yield Finding("constant class", name, f"no training patch is known to lack {name}")
        elif with_it[k] < FEW:
            yield Finding("few", name, f"{_patches(with_it[k])} {name}, fewer than {FEW}")
    for one, other in combinations(range(len(names)), 2):
        pairs = {(patch.label[one], patch.label[other]) for patch in train if len(patch.label) > other}
        if {(0, 0), (1, 1)} <= pairs and all(a == b for a, b in pairs):
            message = f"every training patch has both {names[one]} and {names[other]}, or neither"
            yield Finding("together", names[one], message)
    found = [(count, name) for count, name in zip(with_it, names, strict=True) if count]
    (least, rare), (most, common) = min(found), max(found)
    if most >= IMBALANCE * least:
        yield Finding("imbalance", rare, f"{_patches(most)} {common}, {least} {rare}: {most / least:.0f} to 1")


def _of_validation(names: Sequence[str], train: Sequence[Patch], val: Sequence[Patch]) -> Iterator[Finding]:
    for k, name in enumerate(names) if val else ():
        if not any(patch.has(k) for patch in val) and any(patch.has(k) for patch in train):
            yield Finding("val absent", name, f"no validation patch has {name}: its threshold cannot be chosen")


def _of_groups(patches: Sequence[Patch]) -> Iterator[Finding]:
    groups = {patch.group for patch in patches}
    if len(groups) == 1 and len(patches) > 1:
        message = f"all {len(patches)} patches are of one group, {min(groups)}: none can be set aside for validation"
        yield Finding("one group", min(groups), message)
    elif len(groups) == len(patches) > 1:
        message = f"each of {len(patches)} patches is a group of its own: those of one patient may be on both sides"
        yield Finding("no groups", "", message)


def _patches(count: int) -> str:
    return "1 training patch has" if count == 1 else f"{count} training patches have"
