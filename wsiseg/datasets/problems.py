"""What can be wrong with a data set. One check serves two readers: a training stops at the first, a check collects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wsiseg.errors import DatasetError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem.

    Attributes:
        title: what is wrong.
        advice: what to do.
        severity: an error ends a training; a warning is to be looked at; a note is only worth knowing.
    """

    title: str
    advice: str
    severity: Severity = "error"


KINDS: dict[str, Kind] = {
    "layout": Kind("folders or table not as expected", "follow the message; docs/data-sets.md shows the forms"),
    "table": Kind("rows of labels.csv that cannot be used", "correct or remove the row"),
    "no label": Kind("images without label", "add the label to the name or table, or remove the image"),
    "label": Kind("labels that do not fit the classes", "correct the label, or name the classes (--classes)"),
    "missing": Kind("files that are named but not there", "add the file, or remove its row"),
    "outside": Kind("paths that leave the data set's folder", "copy the files into it; links may only stay inside"),
    "twice": Kind("images of one name", "rename or remove one"),
    "no mask": Kind("images without mask, masks without image", "add its partner of the same name, or remove it"),
    "unreadable": Kind("images that cannot be read", "replace or remove the file"),
    "mask": Kind("masks that cannot be read, or hold other values", "correct them, or state --excluded"),
    "mask size": Kind("masks of another size than their image", "make the mask again at the image's size"),
    "size": Kind("patches of another size", "cut them into squares of one size: wsiseg dataset cut"),
    "mirrored": Kind("patches smaller than a patch", "fine: training mirrors them at their borders", "note"),
    "empty split": Kind("no training image", "add train/*[1 0 1].png or rows to labels.csv"),
    "mpp": Kind("resolution unknown or impossible", "state --mpp, or mpp in dataset.json"),
    "leak": Kind("same pixels in several splits", "keep each in one split: scores would be too good", "warning"),
    "copies": Kind("same pixels twice in a split", "remove the copies", "warning"),
    "contradiction": Kind("same pixels, other labels", "find out which label is right", "warning"),
    "torn group": Kind("groups (slide, patient) in several splits", "keep each group in one split", "warning"),
    "disagree": Kind("labels that disagree with their mask", "correct one of the two", "warning"),
    "coding": Kind("masks that agree with their labels if 0 is unlabelled", "state --excluded 0", "warning"),
    "white class": Kind(
        "classes whose pixels are mostly white",
        "state --excluded 0 if 0 is unlabelled; fine for fat or glass",
        "warning",
    ),
    "white": Kind("masks that call white pixels tissue", "see whether the mask belongs to the image", "warning"),
    "constant": Kind("patches of (almost) one colour that have a class", "remove them or their label", "warning"),
    "absent": Kind("classes that no training patch has", "add patches of them, or leave the class out", "warning"),
    "no labels": Kind("labels that teach nothing", "label what occurs in each patch, and what does not", "warning"),
    "constant class": Kind("classes that no training patch lacks", "add patches without them", "warning"),
    "together": Kind("classes that only occur together", "add patches with one of the two alone", "warning"),
    "val absent": Kind("classes that no validation patch has", "add such patches, or leave out the split", "warning"),
    "few": Kind("classes of few training patches", "add patches: what so few teach is chance", "note"),
    "imbalance": Kind("classes far rarer than others", "add patches, or set imbalance in a --config", "note"),
    "one group": Kind("one group alone", "add patches of other slides, or a column group", "note"),
    "no groups": Kind("no groups (slides, patients)", "add a column group to labels.csv", "note"),
    "val size": Kind("validation images larger than a patch", "training needs patches: cut them", "warning"),
    "no class": Kind("training patches without any class", "fine if they are background", "note"),
    "unknown": Kind("patches with labels that are not known", "fine: training leaves these labels out", "note"),
    "left out": Kind("rows marked unsure or excluded", "fine: training leaves them out", "note"),
    "for testing": Kind("no training image", "fine for wsiseg evaluate", "note"),
    "told": Kind("taken as given", "check that it is so", "note"),
}
"""By the name that checks report them under, in the order of the table."""

Report = Callable[[str, str, str], None]
"""Called with the kind, the file it is about, and the whole message on one line."""


def strict(kind: str, where: str, message: str) -> None:
    """The report of a training: the first error ends it.

    Raises:
        DatasetError: with the message.
    """
    if KINDS[kind].severity == "error":
        raise DatasetError(message)
