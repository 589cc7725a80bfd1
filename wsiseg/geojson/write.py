"""Polygons -> QuPath's GeoJSON, written feature by feature; reading is in `annotations`.

What QuPath 0.5 and 0.6 refuse (null anywhere, a classification without colour, open or self-intersecting rings, parts
that overlap) refuses the whole file, so every geometry is validated in the coordinates it is written with.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeAlias, cast

import numpy as np
import shapely

from wsiseg.classes import ClassTable, TissueClass
from wsiseg.errors import OptionError
from wsiseg.geojson.read import read_geojson
from wsiseg.geometry import Grid
from wsiseg.system.files import check_file, whole_file
from wsiseg.system.json_values import JsonObject

if TYPE_CHECKING:
    from wsiseg.geojson.measures import Measures

__all__ = [
    "Facts",
    "Identity",
    "Prepared",
    "Written",
    "area_um2",
    "prepare_regions",
    "read_geojson",
    "write_geojson",
    "write_regions",
]

SUFFIXES = (".geojson", ".geojson.gz")

DECIMALS = 2
"""Coordinates are rounded to 0.01 level-0 pixels, which is what QuPath keeps."""

PARTS_AT_ONCE = 1000
"""Parts of a MultiPolygon that are turned to text together."""

MEAN_PROBABILITY, UNCERTAIN = "Mean probability", "Uncertain share"
"""Names of the measurements, see `region_measures.Measures`."""

START, END = '{"type":"FeatureCollection","features":[', "\n]}\n"
"""What every file begins and ends with."""

NAMESPACE = uuid.UUID("5f3fcf0c-0a0c-5a1e-9a43-6d1f3f0f6a2b")
"""Namespace of annotation ids; fixed for ever, or the same region would come back as another object."""

Region: TypeAlias = "shapely.Polygon | shapely.MultiPolygon"


@dataclass(frozen=True, slots=True)
class Identity:
    """What annotation ids are made from, so that importing a result again gives the same objects.

    Attributes:
        slide_hash: hash of the slide.
        model_hash: hash of the model.
    """

    slide_hash: str
    model_hash: str

    def uuid(self, kind: str, class_index: int, index: int) -> str:
        """The UUID (version 5) of the region with this `index` among its class's; `kind` is its geometry type."""
        return str(uuid.uuid5(NAMESPACE, f"{self.slide_hash}/{self.model_hash}/{kind}/{class_index}/{index}"))


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says besides regions and their classes.

    Attributes:
        names: class names as they are to be written, where they differ from the table's.
        metadata: texts of every feature.
        class_metadata: texts of the features of a class, by class index.
        document: member "wsiseg" of the file; without null, at which QuPath refuses a file.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    class_metadata: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)

    def end(self) -> str:
        """The text behind the last feature, with the file's own member."""
        if not self.document:
            return END
        return f'\n],"wsiseg":{json.dumps(self.document, ensure_ascii=False, allow_nan=False)}}}\n'


@dataclass(frozen=True, slots=True)
class Written:
    """What a GeoJSON file holds.

    Attributes:
        annotations: number of features.
        vertices: vertices of all rings, the closing ones included.
        repaired: regions that rounding had made invalid and that were made valid again.
        dropped: regions without an area of one hundredth of a pixel; not written.
        area_um2: written area by class index, in um2.
    """

    annotations: int
    vertices: int
    repaired: int
    dropped: int
    area_um2: Mapping[int, float]


def write_geojson(
    path: str | Path,
    regions: Mapping[int, Region | Sequence[Region]],
    classes: ClassTable,
    grid: Grid,
    *,
    identity: Identity,
    overwrite: bool = False,
) -> Written:
    """Write polygons as locked QuPath annotations that say nothing but their class.

    Args:
        path: ends in `.geojson` or `.geojson.gz`. The file appears when it is whole.
        regions: by class index, in map pixels; one MultiPolygon (`exact_polygons`) or several polygons
            (`simplified_polygons`). Empty ones are left out.
        classes: names and colours.
        grid: the map's grid; coordinates are written in level-0 pixels of the slide's bounds.
        identity: what annotation ids are made from.
        overwrite: replace an existing file.

    Raises:
        OptionError: another ending, or a class that the table does not have.
        OutputError: the file exists, or cannot be written.
    """
    return write_regions(path, prepare_regions(regions, classes, grid), classes, identity=identity, overwrite=overwrite)


def prepare_regions(regions: Mapping[int, Region | Sequence[Region]], classes: ClassTable, grid: Grid) -> Prepared:
    """Regions by class index, in map pixels, as they are to be written: in level-0 pixels, rounded and valid.

    Raises:
        OptionError: a class that the table does not have.
    """
    if unknown := [index for index in regions if not 1 <= index <= len(classes)]:
        raise OptionError(f"class {unknown[0]} is not in the class table of {len(classes)} classes")
    prepared = Prepared()
    for tissue in classes:
        for region, key in _prepare(regions.get(tissue.index, ()), grid, prepared):
            prepared.add(region, tissue.index, key, area_um2(region, grid))
    return prepared


def write_regions(
    path: str | Path,
    prepared: Prepared,
    classes: ClassTable,
    *,
    identity: Identity,
    facts: Facts | None = None,
    measures: Sequence[Measures | None] = (),
    overwrite: bool = False,
) -> Written:
    """Write what `prepare_regions` made.

    Args:
        path: ends in `.geojson` or `.geojson.gz`. The file appears when it is whole.
        prepared: the regions.
        classes: names and colours.
        identity: what annotation ids are made from.
        facts: what the file and its features say besides.
        measures: of each region; none where the map has no probabilities.
        overwrite: replace an existing file.
    """
    facts = facts or Facts()
    with _output(Path(path), overwrite) as file:
        file.write(START)
        for number, (region, index, key) in enumerate(
            zip(prepared.regions, prepared.classes, prepared.keys, strict=True)
        ):
            file.write(",\n" if number else "\n")
            kind = region.geom_type
            measured = measures[number] if measures else None
            file.write(feature_head(kind, classes[index], identity.uuid(kind, index, key), facts, measured))
            _write_coordinates(file, region)
        file.write(facts.end())
    return prepared.written()


@dataclass
class Prepared:
    """Regions as they are to be written, class by class.

    Attributes:
        regions: in level-0 pixels, valid.
        classes: index of the class of each.
        keys: number of each among its class's, for its id.
        area_um2: by class index.
        repaired: regions that rounding had made invalid and that were made valid again.
        dropped: regions without an area of one hundredth of a pixel.
    """

    regions: list[Region] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    area_um2: dict[int, float] = field(default_factory=dict)
    repaired: int = 0
    dropped: int = 0

    def add(self, region: Region, index: int, key: int, area: float) -> None:
        """Add a region of class `index`, its number `key` in that class, and its area in um2."""
        self.regions.append(region)
        self.classes.append(index)
        self.keys.append(key)
        self.area_um2[index] = self.area_um2.get(index, 0.0) + area

    def written(self) -> Written:
        """The counts and areas of a file that holds these regions."""
        vertices = int(shapely.get_num_coordinates(np.array(self.regions, object)).sum()) if self.regions else 0
        return Written(len(self.regions), vertices, self.repaired, self.dropped, dict(self.area_um2))


def area_um2(region: Region, grid: Grid) -> float:
    """Area of a region in level-0 pixels, in um2."""
    return float(region.area * grid.mpp.pixel_area_um2 / (grid.step_x * grid.step_y))


def _prepare(regions: Region | Sequence[Region], grid: Grid, counts: Prepared) -> Iterator[tuple[Region, int]]:
    """The regions of one class in level-0 pixels, rounded and valid, each with its index for its id."""
    step = np.array([grid.step_x, grid.step_y])
    key = 0
    for region in [regions] if isinstance(regions, shapely.Geometry) else regions:
        if region.is_empty:
            continue
        scaled = shapely.transform(region, lambda xy: np.round(xy * step, DECIMALS))
        parts = [scaled]
        if not shapely.is_valid(scaled):
            parts = _repair(shapely.transform(region, lambda xy: xy * step), region.geom_type)
            counts.repaired += bool(parts)
        parts = [part for part in parts if part.area > 0]
        counts.dropped += not parts
        for part in parts:
            yield shapely.orient_polygons(part), key
            key += 1


def _repair(exact: Region, kind: str) -> list[Region]:
    """A region that rounding makes invalid, made valid on the grid of hundredths: its edges move with its vertices."""
    snapped = shapely.set_precision(shapely.make_valid(exact, method="structure"), 10.0**-DECIMALS)
    rounded = shapely.transform(snapped, lambda xy: np.round(xy, DECIMALS))
    parts = [part for part in shapely.get_parts(shapely.get_parts(rounded)) if part.area > 0]
    whole: list[Region] = [shapely.MultiPolygon(parts)] if kind == "MultiPolygon" else parts
    return [region for region in whole if region.area > 0 and shapely.is_valid(region)]


def feature_head(
    kind: str, tissue: TissueClass, identifier: str, facts: Facts, measures: Measures | None = None
) -> str:
    """The text of a feature up to its coordinates.

    Features have no name: QuPath lists one with a name and a class as "Tumour (Tumour)". Nor an area, which
    QuPath measures by itself, and again when someone changes the outline.

    Args:
        kind: "Polygon" or "MultiPolygon".
        tissue: its class.
        identifier: a UUID.
        facts: what features say besides.
        measures: of the region.
    """
    name = facts.names.get(tissue.name, tissue.name)
    properties: JsonObject = {
        "objectType": "annotation",
        "classification": {"name": name, "color": list(tissue.color)},
        "isLocked": True,
    }
    if measures is not None:
        properties["measurements"] = {
            MEAN_PROBABILITY: round(measures.mean_probability, 4),
            UNCERTAIN: round(measures.uncertain, 4),
        }
    if metadata := {**facts.metadata, **facts.class_metadata.get(tissue.index, {})}:
        properties["metadata"] = metadata
    head = json.dumps({"type": "Feature", "id": identifier, "properties": properties}, ensure_ascii=False)
    return f'{head[:-1]}, "geometry":{{"type":"{kind}","coordinates":'


def _write_coordinates(file: TextIO, region: Region) -> None:
    """The rest of a feature, the parts of its geometry a thousand at a time."""
    parts = shapely.get_parts(region)
    if region.geom_type == "Polygon":
        file.write(_coordinates(parts)[0])
    else:
        for start in range(0, len(parts), PARTS_AT_ONCE):
            file.write("[" if start == 0 else ",\n")
            file.write(",\n".join(_coordinates(parts[start : start + PARTS_AT_ONCE])))
        file.write("]")
    file.write("}}")


def _coordinates(polygons: Any) -> list[str]:
    """The coordinates of polygons as GeoJSON has them."""
    texts = shapely.to_geojson(polygons)
    return [text[text.index("[") : text.rindex("]") + 1] for text in texts]


@contextmanager
def geojson_file(path: Path, overwrite: bool, packing: int = 6) -> Iterator[BinaryIO]:
    """A file for GeoJSON, packed where its name says so; it is complete or absent.

    Args:
        path: ends in `.geojson` or `.geojson.gz`.
        overwrite: replace an existing file.
        packing: 1 (fast) to 9 (small).

    Raises:
        OptionError: the name has another ending.
        OutputError: the file exists, or cannot be written.
    """
    check_file(path, SUFFIXES, overwrite)
    with whole_file(path) as partial, partial.open("xb") as raw:
        if path.name.lower().endswith(".gz"):
            # Without name and time, so that the same map gives the same bytes.
            with gzip.GzipFile("", "wb", packing, raw, mtime=0) as packed:
                yield cast("BinaryIO", packed)
        else:
            yield raw


@contextmanager
def _output(path: Path, overwrite: bool) -> Iterator[TextIO]:
    """A GeoJSON file open for text in UTF-8; see `geojson_file`."""
    with (
        geojson_file(path, overwrite) as raw,
        TextIOWrapper(raw, encoding="utf-8", newline="\n", write_through=False) as file,
    ):
        yield file
