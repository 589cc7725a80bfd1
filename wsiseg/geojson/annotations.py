"""GeoJSON -> annotations as QuPath 0.4 to 0.7 exports them: areas, points, classes, names, locks, ids.

The file comes from outside, as in `read`, whose limits hold here too. What QuPath writes and nothing can be made of
(lines, detections) is counted and left out; what would be misread (another plane, broken coordinates) is refused.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely

from wsiseg.arrays import Float64Array
from wsiseg.errors import OptionError
from wsiseg.geojson.read import MAX_BYTES, class_name, features_of, in_plane, is_nested, read_tree, shown

MAX_COLLECTIONS = 8
"""Geometry collections inside each other; QuPath writes one."""

DEPTHS = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}
"""Of the lists around a position, by geometry type."""

MAX_HIERARCHY = 32
"""Objects inside each other; a slide's annotations, cells and all are a handful."""

OTHER_KINDS = frozenset({
    "detection", "cell", "tile", "tma_core", "tmacore", "root",
    "pathdetectionobject", "pathcellobject", "pathtileobject", "tmacoreobject", "pathrootobject",
})  # fmt: skip
"""Types of objects that are no annotations; QuPath takes anything else for one."""

LINES = ("LineString", "MultiLineString")

Area: TypeAlias = "shapely.Polygon | shapely.MultiPolygon"


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation.

    Attributes:
        number: its place in the file, from 1.
        identifier: its UUID in small letters, empty where it has none.
        area: valid, in level-0 pixels; None where it has none.
        points: (n, 2) x, y in level-0 pixels; none for an area.
        class_name: None where it is not classified.
        name: that a person gave it, or empty.
        locked: against changes.
        metadata: texts that it carries.
    """

    number: int
    identifier: str
    area: Area | None
    points: Float64Array
    class_name: str | None
    name: str
    locked: bool
    metadata: Mapping[str, str]


@dataclass(slots=True)
class AnnotationFile:
    """What a file of annotations holds.

    Attributes:
        name: of the file.
        annotations: in the file's order.
        left_out: what was left out, and how often.
        mended: areas that crossed themselves and were made valid.
    """

    name: str
    annotations: list[Annotation] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    mended: int = 0

    @property
    def notes(self) -> list[str]:
        """What a person should know of how it was read, one sentence each."""
        notes = [f"{self.name}: left out {count} {what}" for what, count in sorted(self.left_out.items())]
        if self.mended:
            notes.append(f"{self.name}: mended {self.mended} areas that crossed themselves")
        return notes


def read_annotations(path: str | Path, max_bytes: int = MAX_BYTES) -> AnnotationFile:
    """The annotations in a GeoJSON file: a FeatureCollection, a list of Features, one Feature or a bare geometry.

    Raises:
        OptionError: the file is missing, too large or broken, or an annotation lies in another plane than z 0, t 0.
    """
    source = Path(path)
    found = AnnotationFile(source.name)
    for number, (feature, geometry, properties) in enumerate(
        _items(read_tree(source, max_bytes), source.name), start=1
    ):
        where = f"{source.name}, feature {number}"
        if geometry is None:
            found.left_out["annotations without geometry"] += 1
        elif _kind(feature, properties) in OTHER_KINDS:
            found.left_out["objects that are no annotations (detections, cells, cores)"] += 1
        else:
            _require_plane(geometry, properties, where)
            area, points = _shapes(geometry, where, found)
            if area is None and not len(points):
                continue
            found.annotations.append(_annotation(number, feature, properties, area, points))
    return found


def _items(tree: Any, name: str) -> list[tuple[Mapping[str, Any], Any, Mapping[str, Any]]]:
    """(feature, geometry, properties) of each feature."""
    kind = tree.get("type") if isinstance(tree, dict) else None
    if kind in DEPTHS or kind == "GeometryCollection":
        return [({}, tree, {})]
    features = tree["features"] if isinstance(tree, dict) and "features" in tree else tree
    whole = features if isinstance(features, list) else [features]
    items: list[tuple[Mapping[str, Any], Any, Mapping[str, Any]]] = []
    for feature, (geometry, properties) in zip(whole, features_of(tree, name), strict=True):
        items += _with_children(feature, geometry, properties if isinstance(properties, dict) else {}, name, 0)
    return items


def _with_children(
    feature: Mapping[str, Any], geometry: Any, properties: Mapping[str, Any], name: str, depth: int
) -> Iterator[tuple[Mapping[str, Any], Any, Mapping[str, Any]]]:
    """A feature, and those that an export of a whole hierarchy puts into its properties."""
    yield feature, geometry, properties
    children = properties.get("childObjects", properties.get("children"))
    if not isinstance(children, list):
        return
    if depth >= MAX_HIERARCHY:
        raise OptionError(f"{name}: objects lie in each other {depth} deep; export them without their hierarchy")
    for child in children:
        if isinstance(child, dict):
            inner = child.get("properties")
            yield from _with_children(
                child, child.get("geometry"), inner if isinstance(inner, dict) else {}, name, depth + 1
            )


def _kind(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """The type of an object, small letters; 0.2 wrote it in place of an id."""
    for name in ("objectType", "object_type", "type"):
        if isinstance(kind := properties.get(name), str):
            return kind.lower()
    return str(feature.get("id")).lower()


def _annotation(
    number: int, feature: Mapping[str, Any], properties: Mapping[str, Any], area: Area | None, points: Float64Array
) -> Annotation:
    name, metadata = properties.get("name"), properties.get("metadata")
    locked = properties.get("isLocked", properties.get("locked", False))
    return Annotation(
        number,
        _identifier(feature.get("id")),
        area,
        points,
        class_name(properties),
        name.strip() if isinstance(name, str) else "",
        locked is True,
        {k: v for k, v in metadata.items() if isinstance(v, str)} if isinstance(metadata, dict) else {},
    )


def _identifier(value: Any) -> str:
    """A UUID; before 0.4 QuPath wrote "PathAnnotationObject" for all."""
    try:
        return str(uuid.UUID(value)) if isinstance(value, str) else ""
    except ValueError:
        return ""


def _require_plane(geometry: Any, properties: Mapping[str, Any], where: str) -> None:
    """Refuse annotations of another focal plane or time: a map has one."""
    for holder in (geometry, properties):
        plane = holder.get("plane") if isinstance(holder, dict) else None
        for axis in ("z", "t"):
            value = plane.get(axis, 0) if isinstance(plane, dict) else 0
            if value != 0:
                raise OptionError(
                    f"{where} lies in the plane {axis} = {value!r:.20}, expected z 0, t 0; remove it or draw it there"
                )


def _shapes(geometry: Any, where: str, found: AnnotationFile) -> tuple[Area | None, Float64Array]:
    """The area and the points of a geometry; lines are left out."""
    areas: list[Area] = []
    points: list[Float64Array] = []
    for kind, coordinates in _parts(geometry, where, 0):
        depth = DEPTHS[kind]
        if not is_nested(coordinates, depth):
            raise OptionError(f"{where}: the coordinates of a {kind} must be lists of numbers [x, y]")
        if kind in LINES:
            found.left_out["lines, which have no area"] += 1
        elif depth < 2:
            points.append(np.array(in_plane(coordinates, depth), np.float64).reshape(-1, 2))
        else:
            areas += _areas(in_plane(coordinates, depth), kind, where, found)
    area = _united(areas)
    return area, np.concatenate(points) if points else np.zeros((0, 2))


def _parts(geometry: Any, where: str, depth: int) -> list[tuple[str, Any]]:
    """(type, coordinates) of a geometry, those of a collection one by one."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind == "GeometryCollection" and depth < MAX_COLLECTIONS:
        inner = geometry.get("geometries")
        if not isinstance(inner, list):
            raise OptionError(f"{where}: a GeometryCollection needs a list of geometries")
        return [part for one in inner for part in _parts(one, where, depth + 1)]
    if not isinstance(kind, str) or kind not in DEPTHS:
        raise OptionError(f"{where}: expected areas or points, got {shown(geometry)}; remove it")
    return [(kind, geometry.get("coordinates"))]


def _areas(coordinates: Any, kind: str, where: str, found: AnnotationFile) -> list[Area]:
    """Valid areas; what crosses itself counts where it lies inside an odd number of times, as QuPath fills it."""
    areas: list[Area] = []
    for rings in coordinates if kind == "MultiPolygon" else [coordinates]:
        if any(len(ring) < 3 for ring in rings):
            raise OptionError(f"{where}: a ring of a {kind} needs three positions; draw it again")
        shape: Any = shapely.Polygon(rings[0], rings[1:])
        if not shapely.is_valid(shape):
            found.mended += 1
            shape = shapely.make_valid(shape)
        areas += [part for part in _flat(shape) if part.area > 0]
    return areas


def _flat(shape: Any) -> list[shapely.Polygon]:
    """The polygons in a geometry, however deep."""
    parts = shapely.get_parts(shape)
    if len(parts) == 1 and parts[0].geom_type == "Polygon":
        return [parts[0]]
    return [polygon for part in parts if part.geom_type.endswith(("Polygon", "Collection")) for polygon in _flat(part)]


def _united(areas: Sequence[Area]) -> Area | None:
    if not areas:
        return None
    if len(areas) == 1:
        return areas[0]
    whole = shapely.MultiPolygon([part for area in areas for part in shapely.get_parts(area)])
    return whole if shapely.is_valid(whole) else as_area(shapely.union_all(areas))


def as_area(shape: Any) -> Area | None:
    """The polygons of any geometry as one; None where it has no area."""
    parts = [part for part in _flat(shape) if part.area > 0]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
