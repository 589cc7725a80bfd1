"""GeoJSON -> polygons: annotations and tissue masks of one's own, from QuPath or any other program.

The file comes from outside. Whatever is wrong with it ends with one line that names the file and the feature.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import geojson
import shapely
import shapely.geometry

from wsiseg.errors import OptionError

MAX_BYTES = 256 * 1024**2
"""Largest file that is read, unpacked."""

MAX_PARTS = 20_000_000
"""Most commas and brackets of each kind: as Python objects, what stands between them takes some 60 bytes each."""

MAX_COORDINATE = 1e7
"""Largest coordinate, in level-0 pixels: fifty times the largest slide. Beyond it something else was meant."""


def read_geojson(path: str | Path, max_bytes: int = MAX_BYTES) -> list[tuple[Any, str | None]]:
    """The areas in a GeoJSON file, each with its class.

    A FeatureCollection, one Feature, a list of Features (as older QuPath wrote) or a bare geometry; plain or gzip,
    whatever the name. Every geometry must be a valid Polygon or MultiPolygon; a third coordinate is left out.

    Args:
        path: the file.
        max_bytes: refuse files that unpack to more.

    Returns:
        (shapely Polygon or MultiPolygon in the file's coordinates, for QuPath level-0 pixels; name of its
        classification or None) for each feature, in the file's order.

    Raises:
        OptionError: the file is missing, too large, broken, or holds anything else than valid areas.
    """
    source = Path(path)
    return [
        (_area(geometry, f"{source.name}, feature {number}"), class_name(properties))
        for number, (geometry, properties) in enumerate(features_of(read_tree(source, max_bytes), source.name), start=1)
    ]


def read_tree(path: Path, max_bytes: int) -> Any:
    """What the JSON of a file holds, as Python objects."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise OptionError(f"{path} is not a file; expected a GeoJSON file")
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            content = (gzip.GzipFile(fileobj=raw) if packed else raw).read(max_bytes + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise OptionError(f"{path} is a damaged or truncated gzip file; export it again") from error
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror or error}; expected a GeoJSON file") from error
    if len(content) > max_bytes:
        raise OptionError(f"{path} holds more than {max_bytes / 1024**2:g} MiB; export fewer or simpler areas")
    if max(content.count(mark) for mark in (b",", b"[", b"{")) > MAX_PARTS:
        raise OptionError(f"{path} has more than {MAX_PARTS} coordinates; export fewer or simpler areas")
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise OptionError(f"{path} is nested too deeply to be GeoJSON") from error
    except ValueError as error:  # broken JSON, text that is not UTF-8, NaN, numbers of thousands of digits
        raise OptionError(f"{path} is not valid JSON: {str(error).splitlines()[0]:.200}") from error


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number that JSON knows")


def features_of(tree: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """(geometry, properties) of each feature."""
    kind = tree.get("type") if isinstance(tree, dict) else None
    if kind == "FeatureCollection" or isinstance(tree, list):
        features = tree["features"] if isinstance(tree, dict) and "features" in tree else tree
        if not isinstance(features, list):
            raise OptionError(f"{name}: a FeatureCollection needs a list of features")
        for number, feature in enumerate(features, start=1):
            if not isinstance(feature, dict) or feature.get("type") != "Feature":
                raise OptionError(f"{name}: number {number} of the list is not a Feature")
            yield feature.get("geometry"), feature.get("properties")
    elif kind == "Feature":
        yield tree.get("geometry"), tree.get("properties")
    elif kind in ("Polygon", "MultiPolygon"):
        yield tree, None
    else:
        raise OptionError(f"{name}: expected a GeoJSON FeatureCollection, got {shown(tree)}")


def _area(geometry: Any, where: str) -> Any:
    """A valid shapely Polygon or MultiPolygon."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise OptionError(f"{where}: expected a Polygon or MultiPolygon, got {shown(geometry)}; remove it")
    coordinates = geometry.get("coordinates")
    depth = 2 if kind == "Polygon" else 3
    if not coordinates or not is_nested(coordinates, depth):
        raise OptionError(f"{where}: the coordinates of a {kind} must be lists of rings of numbers [x, y]")
    checked = getattr(geojson, kind)(in_plane(coordinates, depth), precision=15)
    if problems := checked.errors():
        raise OptionError(f"{where}: not a valid {kind}: {_first(problems)}")
    try:
        area = shapely.geometry.shape(checked)
    except (ValueError, TypeError, shapely.errors.ShapelyError) as error:
        raise OptionError(f"{where}: not a valid {kind}: {str(error).splitlines()[0]:.200}") from error
    if not shapely.is_valid(area):
        raise OptionError(f"{where}: not a valid {kind}: {shapely.is_valid_reason(area)}; mend it in QuPath")
    if area.area == 0:
        raise OptionError(f"{where}: the {kind} has no area")
    return area


def is_nested(value: Any, depth: int) -> bool:
    """Whether `value` is lists of positions, `depth` deep, none empty; a position is two or three plausible numbers."""
    if not isinstance(value, list) or not value:
        return False
    if depth > 0:
        return all(is_nested(part, depth - 1) for part in value)
    return len(value) in (2, 3) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= MAX_COORDINATE and math.isfinite(v)
        for v in value
    )


def in_plane(value: Any, depth: int) -> Any:
    """Coordinates without their third value."""
    return value[:2] if depth == 0 else [in_plane(part, depth - 1) for part in value]


def _first(problems: Any) -> str:
    """The first of geojson's messages, however deeply they are packed."""
    while isinstance(problems, list | tuple) and problems:
        problems = problems[0]
    return str(problems)


def class_name(properties: Any) -> str | None:
    """QuPath's classification: `{"name": …}`, or `{"names": […]}` for derived ones ("Tumour: Positive")."""
    classification = properties.get("classification") if isinstance(properties, dict) else None
    if not isinstance(classification, dict):
        return None
    name, names = classification.get("name"), classification.get("names")
    if isinstance(name, str) and name.strip():
        return name
    if isinstance(names, list) and names and all(isinstance(part, str) for part in names):
        return ": ".join(names)
    return None


def shown(value: Any) -> str:
    """A value that is no geometry, in a few words for an error."""
    if isinstance(value, dict):
        return f"type {str(value.get('type'))[:40]!r}"
    return "null" if value is None else f"a {type(value).__name__}"
