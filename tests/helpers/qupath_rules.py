"""What QuPath 0.5 and 0.6 ask of a GeoJSON file, checked on the file as it lies on disk."""

from __future__ import annotations

import gzip
import json
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

import geojson
import numpy as np
import shapely
import shapely.geometry

STAIRCASE_VERTICES = 1000
"""A single polygon without holes and with more vertices than this, all edges upright or level, loses area in QuPath."""


def check_qupath(path: Path) -> list[dict[str, Any]]:
    """Assert every rule; the features."""
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        content = gzip.decompress(content)
    tree = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    _no_null(tree, "file")
    assert tree["type"] == "FeatureCollection"
    ids = [_check_feature(feature) for feature in tree["features"]]
    assert len(set(ids)) == len(ids), "ids must differ"
    assert geojson.loads(content.decode("utf-8")).is_valid
    features: list[dict[str, Any]] = tree["features"]
    return features


def _refuse(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def _no_null(value: Any, where: str) -> None:
    assert value is not None, f"null at {where}"
    if isinstance(value, dict):
        for key, part in value.items():
            _no_null(part, f"{where}.{key}")
    elif isinstance(value, list) and value and not isinstance(value[0], int | float):
        for part in value:
            _no_null(part, where)


def _check_feature(feature: dict[str, Any]) -> str:
    assert feature["type"] == "Feature"
    identifier: str = feature["id"]
    assert uuid.UUID(identifier).version == 5
    properties = feature["properties"]
    assert properties["objectType"] == "annotation"
    assert properties["isLocked"] is True
    assert "name" not in properties, "QuPath would list it as Tumour (Tumour)"
    classification = properties["classification"]
    assert classification["name"].strip()
    assert len(classification["color"]) == 3
    assert all(type(v) is int and 0 <= v <= 255 for v in classification["color"])
    for value in properties.get("measurements", {"none": 0.0}).values():
        assert 0 <= value <= 1
    if "metadata" in properties:
        assert properties["metadata"]
        assert all(isinstance(text, str) for pair in properties["metadata"].items() for text in pair)
    _check_geometry(feature["geometry"])
    return identifier


def _check_geometry(geometry: dict[str, Any]) -> None:
    assert set(geometry) == {"type", "coordinates"}
    polygons = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}[geometry["type"]]
    assert polygons
    for rings in polygons:
        assert rings
        for ring in rings:
            assert len(ring) >= 4, "a ring needs four positions"
            assert ring[0] == ring[-1], "a ring must be closed"
            positions = np.array(ring)
            assert positions.shape == (len(ring), 2)
            assert np.isfinite(positions).all()
            assert (positions == np.round(positions, 2)).all(), "QuPath keeps hundredths of a pixel"
            # QuPath's 32-bit coordinates must not make two neighbouring vertices one.
            assert (np.diff(positions.astype(np.float32), axis=0) != 0).any(axis=1).all()
        shell = shapely.Polygon(rings[0])
        assert shapely.is_valid(shell), shapely.is_valid_reason(shell)
        assert all(shell.covers(shapely.Polygon(hole)) for hole in rings[1:]), "a hole lies outside its shell"
        if len(polygons) == 1 and geometry["type"] == "Polygon":
            assert not _is_staircase(rings), "QuPath would lose most of this polygon's area"
    area = shapely.geometry.shape(geometry)
    assert shapely.is_valid(area), shapely.is_valid_reason(area)
    assert area.area > 0
    assert not _overlapping(shapely.get_parts(area))


def _is_staircase(rings: list[list[list[float]]]) -> bool:
    return (
        len(rings) == 1
        and len(rings[0]) > STAIRCASE_VERTICES
        and all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(rings[0]))
    )


def _overlapping(parts: Any) -> bool:
    """Whether two parts share more than borders."""
    left, right = shapely.STRtree(parts).query(parts, predicate="intersects")
    pairs = left < right
    return bool((shapely.area(shapely.intersection(parts[left[pairs]], parts[right[pairs]])) > 0).any())
