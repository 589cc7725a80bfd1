"""What a person changed of a map's regions: class, border, deleted, new; and what was looked at and left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import shapely

from wsiseg.arrays import Float64Array
from wsiseg.corrections.names import NONE_OF_THEM, NOTHING, REVIEWED, Names
from wsiseg.corrections.offset import require_in_place, same_area
from wsiseg.corrections.originals import Original, require_same_drawing
from wsiseg.errors import OptionError
from wsiseg.geojson.annotations import Annotation, AnnotationFile, Area
from wsiseg.geometry import Box

Kind = Literal[
    "class changed", "edited", "edited and class changed", "deleted", "new", "none of the classes", "reviewed areas",
    "class points",
]  # fmt: skip

WHOLE_SHARE = 0.5
"""A file with fewer of a map's regions is a selection, whose missing regions nobody deleted."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An area and what is in it.

    Attributes:
        area: in level-0 pixels.
        value: class index, or `NONE_OF_THEM`.
    """

    area: Area
    value: int


@dataclass(frozen=True, slots=True)
class Correction:
    """What was done to one region, or by one annotation of class points.

    Attributes:
        number: of the feature in the file, from 1; 0 for a region that is not in it.
        kind: as it is counted.
        place: all that it concerns, in level-0 pixels: before and after, or points.
        before: class index of the region, 0 where the map had none.
        after: class index, `NONE_OF_THEM`, or 0 where nothing else is known.
    """

    number: int
    kind: Kind
    place: Area | shapely.MultiPoint
    before: int
    after: int


@dataclass(slots=True)
class Changes:
    """The regions of a map before and after a person's corrections.

    Attributes:
        before: all regions as they were written.
        untouched: regions that are as they were written.
        redrawn: regions whose class or border was changed, as they are now.
        new: regions that the map did not have.
        stated: regions whose whole area is the person's statement: new ones, and those of another class.
        confirmed: untouched regions that the person vouches for.
        reviewed: areas within which everything was looked at.
        points: (n, 2) in level-0 pixels, and `point_classes` (n,) their class indices.
        corrections: all that counts, one by one; reviewed areas as well.
        counts: of each kind of change, and of what was left as it was.
        changed: bounding boxes (n, 4) of all that changed, in level-0 pixels.
        notes: what a person should know, one sentence each.
    """

    before: list[Shape] = field(default_factory=list)
    untouched: list[Shape] = field(default_factory=list)
    redrawn: list[Shape] = field(default_factory=list)
    new: list[Shape] = field(default_factory=list)
    stated: list[Area] = field(default_factory=list)
    confirmed: list[Area] = field(default_factory=list)
    reviewed: list[Area] = field(default_factory=list)
    points: Float64Array = field(default_factory=lambda: np.zeros((0, 2)))
    point_classes: list[int] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    changed: list[tuple[float, float, float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_changes(
    file: AnnotationFile,
    originals: Mapping[str, Original],
    names: Names,
    *,
    bounds: Box | None = None,
    partial: bool = False,
    trust_locked: bool = False,
) -> Changes:
    """Compare a person's file with the regions that the map's own file had.

    Args:
        file: the person's.
        originals: the map's regions by id.
        names: what classes mean.
        bounds: of the slide, in its file's own level 0.
        partial: the file holds a selection; regions that are not in it are as they were.
        trust_locked: regions that are locked and untouched are confirmed. Not the default, as all are written locked.

    Raises:
        OptionError: unknown classes, coordinates that moved as a whole, another drawing of the map, ids that are there
            twice and differ, or a selection that is not said to be one.
    """
    names.require_known(file.annotations, file.name)
    changes = Changes(before=[Shape(one.area, one.class_index) for one in originals.values()])
    matched = _match(file, originals)
    for annotation, original in matched.values():
        require_same_drawing(annotation, original, file.name)
    pairs = [(original.area, a.area) for a, original in matched.values() if a.area is not None]
    require_in_place(pairs, bounds, file.name)
    known = {annotation.number for annotation, _ in matched.values()}
    rest = [a for a in file.annotations if a.number not in known]
    rest = [a for a in rest if a.identifier not in originals]  # copies that are the same, told once
    _add_points(rest, names, changes)
    fresh = [a for a in rest if a.area is not None]
    by_place = _match_places(fresh, [o for key, o in originals.items() if key not in matched])
    matched |= {original.identifier: (annotation, original) for annotation, original in by_place}
    taken = {annotation.number for annotation, _ in by_place}
    for annotation, original in matched.values():
        _compare(annotation, original, names.meaning(annotation) or NOTHING, trust_locked, changes)
    for annotation in fresh:
        if annotation.number not in taken:
            _add_new(annotation, names.meaning(annotation) or NOTHING, changes)
    _add_missing([o for key, o in originals.items() if key not in matched], len(matched), file.name, partial, changes)
    return changes


def _match(file: AnnotationFile, originals: Mapping[str, Original]) -> dict[str, tuple[Annotation, Original]]:
    """Annotations that carry the id of a region, by id; a file that was imported twice has each twice."""
    found: dict[str, tuple[Annotation, Original]] = {}
    for annotation in file.annotations:
        original = originals.get(annotation.identifier)
        if original is None:
            continue
        if annotation.area is None:
            raise OptionError(
                f"{file.name}, feature {annotation.number} has the id of a region of the map, but no area; remove it"
            )
        earlier = found.get(annotation.identifier)
        if earlier is None:
            found[annotation.identifier] = annotation, original
        elif earlier[0].class_name != annotation.class_name or not same_area(_area(earlier[0]), annotation.area):
            raise OptionError(
                f"{file.name}: features {earlier[0].number} and {annotation.number} have one id and differ, as after "
                "importing the map twice; delete one of the two in QuPath"
            )
    return found


def _match_places(fresh: Sequence[Annotation], lost: Sequence[Original]) -> list[tuple[Annotation, Original]]:
    """Annotations without a known id that lie exactly where a region lay whose id is gone."""
    by_bounds: dict[tuple[int, ...], list[Original]] = {}
    for original in lost:
        by_bounds.setdefault(_key(original.area), []).append(original)
    found = []
    for annotation in fresh:
        for original in by_bounds.get(_key(_area(annotation)), []):
            if same_area(original.area, _area(annotation)):
                found.append((annotation, original))
                by_bounds[_key(original.area)].remove(original)
                break
    return found


def _key(area: Area) -> tuple[int, ...]:
    return tuple(round(value) for value in area.bounds)


def _area(annotation: Annotation) -> Area:
    assert annotation.area is not None
    return annotation.area


def _compare(annotation: Annotation, original: Original, meaning: int, trust_locked: bool, changes: Changes) -> None:
    """Sort in a region that the map had."""
    area, same = _area(annotation), same_area(original.area, _area(annotation))
    if meaning in (NOTHING, REVIEWED):
        if meaning == REVIEWED:  # a region of the map that was renamed: what it holds is what it held
            changes.reviewed.append(area)
            changes.untouched.append(Shape(original.area, original.class_index))
            _count(changes, annotation.number, "reviewed areas", 0, 0, area)
            return
        _count(changes, annotation.number, "deleted", original.class_index, 0, original.area)
        return
    if meaning == original.class_index and same:
        changes.untouched.append(Shape(original.area, meaning))
        changes.counts["unchanged"] += 1
        if annotation.locked and trust_locked:
            changes.confirmed.append(area)
            changes.changed.append(area.bounds)
            changes.counts["of these confirmed by lock"] += 1
        return
    changes.redrawn.append(Shape(area, meaning))
    if meaning != original.class_index:
        changes.stated.append(area)
    kind: Kind = (
        "edited" if meaning == original.class_index else "class changed" if same else "edited and class changed"
    )
    _count(changes, annotation.number, kind, original.class_index, meaning, original.area, area)


def _add_new(annotation: Annotation, meaning: int, changes: Changes) -> None:
    area = _area(annotation)
    if meaning == NOTHING:
        changes.counts["left out, without a class of the model"] += 1
        return
    if meaning == REVIEWED:
        changes.reviewed.append(area)
        _count(changes, annotation.number, "reviewed areas", 0, 0, area)
        return
    changes.new.append(Shape(area, meaning))
    changes.stated.append(area)
    kind: Kind = "none of the classes" if meaning == NONE_OF_THEM else "new"
    _count(changes, annotation.number, kind, 0, meaning, area)


def _add_points(annotations: Sequence[Annotation], names: Names, changes: Changes) -> None:
    points = [np.zeros((0, 2))]
    for annotation in annotations:
        meaning = names.meaning(annotation) or NOTHING
        if not len(annotation.points):
            continue
        if meaning < 1:
            changes.counts["left out, points without a class of the model"] += len(annotation.points)
            continue
        points.append(annotation.points)
        changes.point_classes += [meaning] * len(annotation.points)
        changes.counts["class points"] += len(annotation.points)
        place = shapely.MultiPoint(annotation.points)
        changes.corrections.append(Correction(annotation.number, "class points", place, 0, meaning))
    changes.points = np.concatenate(points)


def _add_missing(lost: Sequence[Original], matched: int, file: str, partial: bool, changes: Changes) -> None:
    """Regions that are not in the file: deleted, unless it holds a selection."""
    if not lost:
        return
    if partial:
        changes.untouched += [Shape(one.area, one.class_index) for one in lost]
        changes.counts["not in the file, as they were"] += len(lost)
        return
    if matched < WHOLE_SHARE * (matched + len(lost)):
        raise OptionError(
            f"{file} holds {matched} of the map's {matched + len(lost)} regions, as if only a selection was exported; "
            "export all objects, or say --partial, with which missing regions are as they were"
        )
    for one in lost:
        _count(changes, 0, "deleted", one.class_index, 0, one.area)


def _count(changes: Changes, number: int, kind: Kind, before: int, after: int, *areas: Area) -> None:
    place = areas[0] if len(areas) == 1 else shapely.union_all(areas)
    changes.corrections.append(Correction(number, kind, place, before, after))
    changes.counts[kind] += 1
    changes.changed += [area.bounds for area in areas]
