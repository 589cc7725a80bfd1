"""A file of corrections: annotations that were drawn on the page, beside those that are in it already."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsiseg.corrections.preview import patches_of_drawn
from wsiseg.errors import OptionError
from wsiseg.geojson.drawn import drawn_feature
from wsiseg.server.view.cases import Case, ShownMap
from wsiseg.system.addresses import names_elsewhere
from wsiseg.system.files import sync_path, whole_file
from wsiseg.system.json_values import JsonObject

SUFFIX = ".corrected.geojson"
MAX_BYTES = 64 * 2**20
SHOWN_FEATURES = 2000
"""Most that the page draws."""

_AREAS = ("Polygon", "MultiPolygon")


def default_path(shown: ShownMap) -> Path:
    """Beside the map; in the current folder for a map behind an address."""
    path = shown.map.path
    name = path.name.removesuffix(".zarr") + SUFFIX
    return Path(name) if names_elsewhere(path) else path.with_name(name)


class Corrections:
    """The file of corrections of one map.

    It is read anew before each change, since QuPath may write it as well, and on the disk before a change is confirmed.

    Args:
        path: of the file; it need not exist.
        case: the slide.
        shown: the map.
    """

    def __init__(self, path: Path, case: Case, shown: ShownMap) -> None:
        self.path = path
        self._case = case
        self._map, self._classes = shown.map, shown.map.classes
        self._mine: list[str] = []
        self._lock = threading.Lock()

    def shown(self) -> JsonObject:
        """What the page shows: the file's name, how many features it has, and the outlines of areas.

        Raises:
            OptionError: the file is none of GeoJSON.
        """
        with self._lock:
            features = self._read()["features"]
        areas = [area for feature in features if (area := _outline(feature)) is not None]
        return {
            "file": self.path.name,
            "count": len(features),
            "undo": len(self._mine),
            "areas": areas[-SHOWN_FEATURES:],
        }

    def add(self, points: Sequence[Sequence[float]], index: int) -> None:
        """Add an area of the class `index`; 0 is none.

        Raises:
            OptionError: there is no such class, the points enclose nothing, or the file is none of GeoJSON.
            OutputError: it cannot be written.
        """
        if not 0 <= index <= len(self._classes):
            raise OptionError(f"expected a class from 0 to {len(self._classes)}, got {index}")
        feature = drawn_feature(points, self._classes[index] if index else None, self._case.size)
        with self._lock:
            document = self._read()
            document["features"].append(feature)
            self._write(document)
            self._mine.append(feature["id"])

    def preview(self, points: Sequence[Sequence[float]]) -> JsonObject:
        """How many patches an area would make in `wsiseg correct`, and how many of these get its label.

        Both are None where the map does not say how large its model's patches are.

        Raises:
            OptionError: the points enclose nothing.
        """
        found = patches_of_drawn(points, self._map, self._case.size)
        patches, labels = found or (None, None)
        return {"patches": patches, "labels": labels}

    def undo(self) -> None:
        """Take away the area that was drawn last, since the server was started.

        Raises:
            OptionError: none was.
            OutputError: the file cannot be written.
        """
        with self._lock:
            if not self._mine:
                raise OptionError("nothing was drawn since wsiseg was started")
            document = self._read()
            document["features"] = [one for one in document["features"] if _id(one) != self._mine[-1]]
            self._write(document)
            self._mine.pop()

    def _read(self) -> JsonObject:
        """The file as a FeatureCollection; an empty one where there is no file."""
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise OptionError(f"{self.path.name} cannot be read: {error.strerror}") from error
        if not content:
            return {"type": "FeatureCollection", "features": []}
        try:
            found = json.loads(content) if len(content) <= MAX_BYTES else None
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and found.get("type") == "Feature":
            found = [found]
        if isinstance(found, list):  # as older QuPath wrote
            found = {"type": "FeatureCollection", "features": found}
        if not isinstance(found, dict) or not isinstance(found.get("features"), list):
            raise OptionError(
                f"{self.path.name} is there and is no GeoJSON of at most {MAX_BYTES // 2**20} MB; name another file "
                "by --corrections"
            )
        return found

    def _write(self, document: JsonObject) -> None:
        with whole_file(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        sync_path(self.path.parent)


def _id(feature: Any) -> object:
    return feature.get("id") if isinstance(feature, dict) else None


def _outline(feature: Any) -> JsonObject | None:
    """Polygons and class of a feature; None for what is no area, or has not the shape of one."""
    try:
        geometry, properties = feature["geometry"], feature.get("properties") or {}
        if geometry["type"] not in _AREAS:
            return None
        parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        rings = [[[float(x), float(y)] for x, y, *_ in ring] for part in parts for ring in part]
        classification = properties.get("classification") or {}
        return {"rings": rings, "class": str(classification.get("name", ""))}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
