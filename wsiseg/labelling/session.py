"""A labelling folder: its slides, patch size and classes, which all labellers share, and how classes change.

`labelling/session.jsonl` holds them. Classes are added and renamed by lines of their own, so that no answer ever moves
to another class: answers name classes, and a name that was given up is never used again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsiseg.classes import PALETTE, ClassTable
from wsiseg.errors import DatasetError, OptionError
from wsiseg.labelling.places import LabelSlide
from wsiseg.system.durable_lines import DurableLines, Line, read_lines
from wsiseg.system.files import cannot_write
from wsiseg.system.json_values import JsonObject
from wsiseg.system.locks import locked

FOLDER = "labelling"

APART, LEAST_PATIENTS = 0.2, 5
"""Share of the patients whose patches are for validation, and the patients from which on there is such a share."""

SESSION_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """What stays as it was when labelling began.

    Attributes:
        mpp: microns per pixel of the patches.
        patch_px: side of a patch in pixels.
        seed: of the order of the patches.
    """

    mpp: float
    patch_px: int
    seed: int


class Session:
    """What the labellers of one folder share.

    Args:
        root: the data set's folder, made if it is not there.
        terms: of a new folder; must equal those of one that was begun.
        classes: of a new folder; None takes those of one that was begun. Others are added to it.

    Attributes:
        classes: as they are called now, in the order in which they were made.

    Raises:
        DatasetError: the folder was begun with other terms, or by another version of the program.
        OptionError: there are no classes, or their names do not do.
        OutputError: the folder cannot be written.
    """

    def __init__(self, root: Path, terms: Terms, classes: ClassTable | None) -> None:
        self.root = root
        self.folder = root / FOLDER
        self.path = self.folder / "session.jsonl"
        with cannot_write(root):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.terms = terms
        self._rows: list[JsonObject] = []
        self._renamed: list[tuple[str, str]] = []
        self._slides: dict[str, str] = {}
        self._patients: set[str] = set()
        self._apart: list[str] = []
        self._known = 1  # lines taken
        with locked(self.path):
            lines, whole = read_lines(self.path)
            if not lines:
                if classes is None:
                    raise OptionError(f"{root} is new: name its classes, --classes Tumour,Stroma")
                self._begin(classes)
                return
            self._read(lines)
            self._known = len(lines)
            self._lines = DurableLines(self.path, whole)
            for added in classes or ():
                if added.name not in self.classes.names:
                    self._add(added.name, added.color)

    def _begin(self, classes: ClassTable) -> None:
        self._lines = DurableLines(self.path, 0)
        self._lines.append({"labelling": SESSION_FORMAT, **asdict(self.terms), "classes": classes.to_json()})
        self._rows = classes.to_json()

    def _read(self, lines: Sequence[Line]) -> None:
        head = lines[0]
        if head.get("labelling") != SESSION_FORMAT:
            raise DatasetError(
                f"{self.path} was begun by another version of this program; finish it with that one, or choose "
                "another folder"
            )
        begun = Terms(head["mpp"], head["patch_px"], head["seed"])
        for name, old, new in zip(
            ("mpp", "side of a patch", "seed"), asdict(begun).values(), asdict(self.terms).values(), strict=True
        ):
            if old != new:
                raise DatasetError(
                    f"{self.root} was begun with the {name} {old:g}, now {new:g} was asked for; state that again, or "
                    "choose another folder"
                )
        self._rows = ClassTable.from_json(head["classes"]).to_json()
        for line in lines[1:]:
            self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        if line["do"] == "add":
            self._rows.append({"index": len(self._rows) + 1, "name": line["name"], "color": line["color"]})
        elif line["do"] == "rename":
            self._renamed.append((line["old"], line["new"]))
            next(row for row in self._rows if row["name"] == line["old"])["name"] = line["new"]
        elif line["do"] == "slide":
            self._slides[line["name"]] = line["hash"]
            self._patients.add(line.get("patient", line["name"]))
        elif line["do"] == "apart":
            self._apart += line["patients"]

    @property
    def classes(self) -> ClassTable:
        """The classes, as they are called now."""
        return ClassTable.from_json(self._rows)

    @property
    def renamed(self) -> tuple[tuple[str, str], ...]:
        """(old name, new name) of all renamings, in order."""
        return tuple(self._renamed)

    @property
    def apart(self) -> tuple[str, ...]:
        """Patients whose patches are for validation alone; none where there are too few patients."""
        return tuple(self._apart)

    def name_now(self, name: str) -> str:
        """What a class is called now that had a name before; a page may not have heard of it yet."""
        for old, new in self._renamed:
            if name == old:
                name = new
        return name

    def add_class(self, name: str, color: Sequence[int] | None = None) -> None:
        """A class more. What was answered before says nothing of it.

        Raises:
            OptionError: its name does not do, or is or was taken.
        """
        with locked(self.path):
            self._refresh()
            self._add(name, color)

    def rename_class(self, old: str, new: str) -> None:
        """A class has another name from now on; its answers stay its own.

        Raises:
            OptionError: there is no such class, or the new name does not do, or is or was taken.
        """
        with locked(self.path):
            self._refresh()
            if old not in self.classes.names:
                raise OptionError(f"there is no class {old!r:.60}, only {', '.join(self.classes.names)}")
            self._check_free(new)
            rows = [{**row, "name": new if row["name"] == old else row["name"]} for row in self._rows]
            ClassTable.from_json(rows)
            self._append({"do": "rename", "old": old, "new": new})

    def add_slides(self, slides: Sequence[LabelSlide]) -> None:
        """Slides that are labelled here.

        Raises:
            DatasetError: one has the name of another slide, since rows know a slide by its name.
        """
        with locked(self.path):
            self._refresh()
            before = set(self._patients)
            for slide in slides:
                known = self._slides.get(slide.name)
                if known is None:
                    self._append({"do": "slide", "name": slide.name, "hash": slide.hash, "patient": slide.group})
                elif known != slide.hash:
                    raise DatasetError(
                        f"another slide called {slide.name} is labelled in {self.root}; rename one, or choose "
                        "another folder"
                    )
            self._keep_apart(sorted(self._patients - before))

    def _keep_apart(self, new: Sequence[str]) -> None:
        """Keep a fifth of the patients for validation, of the new ones, of which none was learned from."""
        wanted = round(APART * len(self._patients)) if len(self._patients) >= LEAST_PATIENTS else 0
        count = min(len(new), wanted - len(self._apart))
        if count > 0:
            order = np.random.default_rng([self.terms.seed, len(self._patients)]).permutation(len(new))
            self._append({"do": "apart", "patients": sorted(new[place] for place in order[:count].tolist())})

    def refresh(self) -> bool:
        """Take what others added or renamed meanwhile; whether there was anything."""
        with locked(self.path):
            return self._refresh()

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _refresh(self) -> bool:
        """Take the lines that other processes wrote; the caller holds the lock."""
        lines, whole = read_lines(self.path)
        others = lines[self._known :]
        for line in others:
            self._take(line)
        self._known = len(lines)
        if others:  # ours would write over theirs
            self._lines.close()
            self._lines = DurableLines(self.path, whole)
        return bool(others)

    def _append(self, line: Line) -> None:
        self._lines.append(line)
        self._known += 1
        self._take(line)

    def _add(self, name: str, color: Sequence[int] | None) -> None:
        self._check_free(name)
        chosen = list(color or PALETTE[len(self._rows) % len(PALETTE)])
        row = {"index": len(self._rows) + 1, "name": name, "color": chosen}
        ClassTable.from_json([*self._rows, row])
        self._append({"do": "add", "name": name, "color": chosen})

    def _check_free(self, name: str) -> None:
        """A name that was given up would catch its old answers again."""
        if name in self.classes.names or any(name == old for old, _ in self._renamed):
            raise OptionError(f"a class is or was called {name!r:.60} here, choose another name")


def terms_of(root: Path) -> Terms | None:
    """The terms that a folder was begun with, None where none is.

    Raises:
        OutputError: its file cannot be read.
    """
    lines, _ = read_lines(root / FOLDER / "session.jsonl")
    head = lines[0] if lines else {}
    if head.get("labelling") != SESSION_FORMAT:
        return None
    return Terms(head["mpp"], head["patch_px"], head["seed"])
