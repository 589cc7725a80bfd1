"""Everything that is wrong with a data set at once, and what it holds; the checks are those of the strict reading."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from wsiseg.classes import ClassTable
from wsiseg.datasets.check_masks import check_coding, check_white
from wsiseg.datasets.dataset import list_patches, without_classes, without_training
from wsiseg.datasets.facts import classes_of, ignored_columns, read_about, resolution
from wsiseg.datasets.files import Facts, check_files, check_stems
from wsiseg.datasets.learnable import KINDS as LEARNING
from wsiseg.datasets.learnable import report_learning
from wsiseg.datasets.masks import MaskNumbers
from wsiseg.datasets.patch import UNKNOWN, Patch, label_of
from wsiseg.datasets.problems import KINDS, Report
from wsiseg.errors import DatasetError
from wsiseg.system.json_values import JsonObject

CONSTANT_DEVIATION = 2.0
"""Grey values that deviate less than this from their mean show nothing: glass, ink, or a gap of the scanner."""


@dataclass(frozen=True, slots=True)
class ClassInSplit:
    """How much a split has of a class.

    Attributes:
        patches: that have it.
        pixel_share: of the pixels of masks, 0 to 1; None without masks.
        unknown: patches of which nobody says whether they have it.
    """

    patches: int
    pixel_share: float | None
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """A class, and how much each split has of it."""

    name: str
    splits: Mapping[str, ClassInSplit]

    def to_json(self) -> JsonObject:
        """Plain JSON values."""
        return {"class": self.name, **{split: asdict(counts) for split, counts in self.splits.items()}}


@dataclass(slots=True)
class DatasetCheck:
    """The findings of a check of a data set.

    Attributes:
        root: the data set's folder.
        classes: its class table, where it is known.
        mpp: microns per pixel, where they are known.
        splits: its patches.
        facts: what their files hold; empty where nothing was decoded.
        problems: kind → (file, message) of each.
    """

    root: Path
    classes: ClassTable | None = None
    mpp: float | None = None
    splits: dict[str, list[Patch]] = field(default_factory=dict)
    facts: dict[str, list[Facts]] = field(default_factory=dict)
    problems: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def report(self, kind: str, where: str, message: str) -> None:
        """Add a problem to the findings."""
        self.problems[kind].append((where, " ".join(message.split())))

    @property
    def sound(self) -> bool:
        """Whether there is nothing to do: no error and no warning."""
        return all(KINDS[kind].severity == "note" for kind in self.problems)

    @property
    def learnable(self) -> bool:
        """Whether nothing stands in the way of learning, what is only worth knowing included."""
        return not any(kind in LEARNING for kind in self.problems)

    def to_json(self) -> JsonObject:
        """The findings as JSON: problems with all their files, and all counts."""
        return {
            "dataset": str(self.root),
            "sound": self.sound,
            "mpp": self.mpp,
            "classes": list(self.classes.names) if self.classes else None,
            "problems": [
                {"kind": kind, "severity": KINDS[kind].severity, "title": KINDS[kind].title, "count": len(found)}
                | {"advice": KINDS[kind].advice, "found": [{"file": f, "message": m} for f, m in found]}
                for kind, found in self.ordered_problems()
            ],
            "splits": self.split_counts(),
            "classes_per_split": [row.to_json() for row in self.class_counts()],
            "label_combinations": [{"classes": list(names), **counts} for names, counts in self.combinations().items()],
            "sizes": [{"split": s, "size_px": list(size), "patches": n} for (s, size), n in self.sizes().items()],
        }

    def ordered_problems(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Kinds that were found, the worst first."""
        return [(kind, self.problems[kind]) for kind in KINDS if kind in self.problems]

    def split_counts(self) -> dict[str, dict[str, int]]:
        """Patches, groups and masks of each split."""
        return {
            split: {
                "patches": len(patches),
                "groups": len({p.group for p in patches}),
                "masks": sum(p.mask is not None for p in patches),
            }
            for split, patches in self.splits.items()
        }

    def class_counts(self) -> list[ClassCounts]:
        """For each class and split: patches that have it, that may, and its share of the pixels of masks, 0 to 1."""
        rows = []
        for channel, name in enumerate(self.classes.names if self.classes else ()):
            by_split = {}
            for split, patches in self.splits.items():
                masks = [f.pixels[:-1] for f in self.facts.get(split, []) if f.pixels is not None]
                pixels = np.sum(masks, axis=0) if masks else None
                share = float(pixels[channel] / pixels.sum()) if pixels is not None and pixels.sum() else None
                unknown = sum(len(p.label) > channel and p.label[channel] == UNKNOWN for p in patches)
                by_split[split] = ClassInSplit(sum(p.has(channel) for p in patches), share, unknown)
            rows.append(ClassCounts(name, by_split))
        return rows

    def combinations(self) -> dict[tuple[str, ...], dict[str, int]]:
        """Patches of each split with each combination of classes, the most frequent first."""
        counts: Counter[tuple[str, ...]] = Counter()
        by_split: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for split, patches in self.splits.items():
            for patch in patches:
                names = self.names_of(patch.label)
                counts[names] += 1
                by_split[names][split] += 1
        return {names: {s: by_split[names][s] for s in self.splits} for names, _ in counts.most_common()}

    def names_of(self, label: Sequence[int]) -> tuple[str, ...]:
        """The classes that a label has; those of which it is unknown end in a question mark."""
        names = self.classes.names if self.classes else tuple(f"class {i + 1}" for i in range(len(label)))
        known = zip(names, label, strict=False)
        return tuple(name if value == 1 else f"{name}?" for name, value in known if value)

    def sizes(self) -> dict[tuple[str, tuple[int, int]], int]:
        """Patches of each (split, (width, height) in px), the most frequent first."""
        counts = Counter((split, f.size_px) for split, seen in self.facts.items() for f in seen if f.size_px)
        return {(split, size): n for (split, size), n in counts.most_common() if size}


def check_dataset(
    root: Path,
    classes: ClassTable | None = None,
    mpp: float | None = None,
    excluded: int | None = None,
    decode: bool = True,
    ignore: Sequence[str] = (),
) -> DatasetCheck:
    """Look at everything in a data set.

    Args:
        root: its folder.
        classes: class table; wins over `dataset.json`.
        mpp: microns per pixel; likewise.
        excluded: mask value of excluded pixels; likewise.
        decode: open the files too, which takes about a minute for 20,000 patches.
        ignore: columns of the table that are no classes.

    Raises:
        DatasetError: `root` is no folder.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder, expected a data set of labelled patches")
    check = DatasetCheck(root)
    try:
        about = read_about(root)
        check.classes = classes or classes_of(root, about)
        listing = list_patches(
            root,
            check.classes,
            MaskNumbers.from_about(about, excluded),
            check.report,
            ignored_columns(root, about, ignore),
        )
        check.classes, check.splits = listing.classes, listing.splits
    except (DatasetError, OSError) as error:
        check.report("layout", root.name, str(error))
        return check
    everything = [patch for patches in check.splits.values() for patch in patches]
    if check.classes is None:
        check.report("layout", root.name, without_classes(root))
    if not check.splits["train"]:
        kind = "for testing" if everything else "empty split"
        check.report(kind, root.name, without_training(root))
    if everything:
        _check_resolution(check, mpp if mpp is not None else about.get("mpp"), everything)
    check_stems(root, everything, check.report)
    _check_groups(check.splits, check.report)
    if decode:
        stated = check.splits
        count = len(check.classes) if check.classes else max((len(p.label) for p in everything), default=0)
        check.splits, check.facts, _ = check_files(stated, count, check.report)
        _check_contents(check, stated)
    _check_labels(check)
    return check


def _check_resolution(check: DatasetCheck, stated: Any, patches: Sequence[Patch]) -> None:
    try:
        check.mpp, note = resolution(check.root, stated, patches)
    except DatasetError as error:
        check.report("mpp", check.root.name, str(error))
        return
    if note:
        check.report("told", check.root.name, note)


def _check_groups(splits: Mapping[str, Sequence[Patch]], report: Report) -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for split, patches in splits.items():
        for patch in patches:
            where[patch.group].add(split)
    for group, found in where.items():
        if len(found) > 1:
            names = " and ".join(split for split in splits if split in found)
            report("torn group", group, f"{group} is in {names}")


def _check_labels(check: DatasetCheck) -> None:
    train = check.splits["train"]
    for patch in train:
        if patch.label and not any(patch.label):
            check.report("no class", patch.name, f"{patch.name} has no class")
    for patch in (patch for patches in check.splits.values() for patch in patches):
        if unknown := patch.label.count(UNKNOWN):
            check.report("unknown", patch.name, f"{patch.name}: {unknown} of {len(patch.label)} classes")
    if check.classes:
        report_learning(check.classes.names, train, check.splits["val"], check.report)


def _check_contents(check: DatasetCheck, stated: Mapping[str, Sequence[Patch]]) -> None:
    """Copies, empty patches, and masks that disagree with labels."""
    same: dict[str, list[tuple[str, Patch]]] = defaultdict(list)
    disagreeing: list[tuple[Patch, Sequence[int]]] = []
    for split, patches in check.splits.items():
        for patch, given, facts in zip(patches, stated[split], check.facts[split], strict=True):
            if facts.digest:
                same[facts.digest].append((split, patch))
            if facts.digest and facts.deviation < CONSTANT_DEVIATION and 1 in patch.label:
                check.report("constant", patch.name, f"{patch.name} deviates by {facts.deviation:.1f} grey values")
            label = given.label or label_of(Path(patch.name).stem)
            if facts.pixels is not None and label:
                seen = tuple(int(n > 0) for n in facts.pixels[:-1])
                if _disagree(label, seen, partly=patch.corrected and facts.pixels[-1] > 0):
                    disagreeing.append((patch, label))
                    check.report("disagree", patch.name, f"{patch.name}: {_difference(check, label, seen)}")
    check_coding(disagreeing, check.report)
    check_white(check.splits, check.facts, check.classes, check.report)
    for copies in same.values():
        if len(copies) > 1:
            _report_copies(copies, check.report)


def _disagree(label: Sequence[int], seen: Sequence[int], partly: bool = False) -> bool:
    """Whether two labels say different things of a class; a mask of a part cannot say that a class is absent."""
    known = [(a, b) for a, b in zip(label, seen, strict=False) if UNKNOWN not in (a, b)]
    return len(label) != len(seen) or any(a < b if partly else a != b for a, b in known)


def _difference(check: DatasetCheck, label: Sequence[int], seen: Sequence[int]) -> str:
    """What a mask has that the label denies, and the other way round."""
    if check.classes is None or len(label) != len(check.classes):
        return f"label {list(label)}, mask {list(seen)}"
    both = list(zip(check.classes.names, label, seen, strict=True))
    denied = [name for name, said, there in both if said == 0 and there]
    lacking = [name for name, said, there in both if said == 1 and not there]
    parts = [f"label {list(label)}, mask {list(seen)}"]
    parts += [f"the mask has {', '.join(denied)}"] if denied else []
    parts += [f"the mask lacks {', '.join(lacking)}"] if lacking else []
    return "; ".join(parts)


def _report_copies(copies: Sequence[tuple[str, Patch]], report: Report) -> None:
    names = " = ".join(patch.name for _, patch in copies[:4]) + (" = …" if len(copies) > 4 else "")
    splits = Counter(split for split, _ in copies)
    if len(splits) > 1:
        report("leak", copies[0][1].name, names)
    if max(splits.values()) > 1:
        report("copies", copies[0][1].name, names)
    labels = [patch.label for _, patch in copies]
    if any(_disagree(a, b) for a, b in combinations({*labels}, 2)):
        report("contradiction", copies[0][1].name, names)
