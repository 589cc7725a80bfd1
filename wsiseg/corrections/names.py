"""What the class of an annotation means: a class of the model, "none of them", a reviewed area, or nothing for us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from wsiseg.classes import ClassTable
from wsiseg.errors import OptionError
from wsiseg.export.polygon_facts import QUPATH_NAMES
from wsiseg.geojson.annotations import Annotation

NOTHING, NONE_OF_THEM, REVIEWED = 0, -1, -2
"""Besides class indices, from 1: not for us; no class of the model occurs here; what lies inside was looked at."""

REVIEWED_NAMES = frozenset({"reviewed"})
REGION_NAMES = frozenset({"region*", "region"})
"""QuPath's own class for a part of a slide that is worked on."""
IGNORE_NAMES = frozenset({"ignore*", "ignore"})
"""QuPath's own class for what is to be left out, as folds and pen."""


class Names:
    """Class names of annotations, resolved.

    Args:
        classes: of the model.
        given: name in the file → class of the model, or "" for an annotation that is to be left out.
        regions: whether QuPath's `Region*` is a reviewed area; else it says nothing.

    Raises:
        OptionError: `given` leads to a class that the model does not have.
    """

    def __init__(self, classes: ClassTable, given: Mapping[str, str] | None = None, *, regions: bool = False) -> None:
        self.classes = classes
        self.table: dict[str, int] = {}
        for index, name in enumerate(classes.names, start=1):
            self.table.setdefault(QUPATH_NAMES.get(name.strip().lower(), name).lower(), index)
        for index, name in enumerate(classes.names, start=1):
            self.table[name.strip().lower()] = index
        for names, meaning in (
            (REVIEWED_NAMES, REVIEWED),
            (REGION_NAMES, REVIEWED if regions else NOTHING),
            (IGNORE_NAMES, NONE_OF_THEM),
        ):
            for name in names:
                self.table.setdefault(name, meaning)
        for name, target in (given or {}).items():
            if target and target not in classes.names:
                raise OptionError(
                    f"the model has no class {target!r:.60}, only {', '.join(classes.names)}; see --map {name}="
                )
            self.table[name.strip().lower()] = classes.names.index(target) + 1 if target else NOTHING

    def meaning(self, annotation: Annotation) -> int | None:
        """Class index, `NONE_OF_THEM`, `REVIEWED`, `NOTHING`; `NOTHING` without class; None for an unknown class.

        Of a derived class ("Tumor: Positive") the whole name counts, and then its base.
        """
        if annotation.name.lower() in REVIEWED_NAMES:
            return REVIEWED
        if annotation.class_name is None:
            return NOTHING
        whole = annotation.class_name.strip().lower()
        return self.table.get(whole, self.table.get(whole.split(":")[0].strip()))

    def require_known(self, annotations: Iterable[Annotation], file: str) -> None:
        """Refuse classes that the model does not have.

        Raises:
            OptionError: with the closest class, and how to state which one is meant.
        """
        unknown = {a.class_name or "" for a in annotations if self.meaning(a) is None}
        if not unknown:
            return
        first = min(unknown)
        close = get_close_matches(first, self.classes.names, 1, 0.5)
        guess = close[0] if close else self.classes.names[0]
        others = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        did = f"did you mean {guess}? " if close else ""
        raise OptionError(
            f"{file}: the model has no class {first!r:.60}{others}, only {', '.join(self.classes.names)}; {did}State "
            f"--map '{first:.60}={guess}', or --map '{first:.60}=' to leave it out"
        )


def parse_map(values: Sequence[str]) -> dict[str, str]:
    """`Name=Class` texts as a mapping; raises `OptionError` for one without a name or an equals sign."""
    table = {}
    for value in values:
        name, sign, target = value.rpartition("=")
        if not sign or not name.strip():
            raise OptionError(f"expected --map Name=Class, or Name= to leave it out, got {value!r:.80}")
        table[name.strip()] = target.strip()
    return table
