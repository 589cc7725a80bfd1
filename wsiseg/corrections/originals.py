"""The regions of a map as this program wrote them, which is what a person's file is compared with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsiseg.corrections.names import Names
from wsiseg.errors import OptionError
from wsiseg.export.polygons import export_geojson
from wsiseg.geojson.annotations import Annotation, AnnotationFile, Area, read_annotations
from wsiseg.tissue_map.reader import TissueMap

TOLERANCE = "Tolerance um"
SLIDE_HASH, MODEL_HASH = "Slide hash", "Model hash"


@dataclass(frozen=True, slots=True)
class Original:
    """A region as it was written.

    Attributes:
        identifier: its UUID.
        class_index: from 1.
        area: in level-0 pixels.
        metadata: texts that its annotation carries.
    """

    identifier: str
    class_index: int
    area: Area
    metadata: Mapping[str, str]


def originals_of(tissue_map: TissueMap, path: Path | None) -> tuple[dict[str, Original], str]:
    """The map's regions by id, and where they are from.

    Args:
        tissue_map: the map.
        path: GeoJSON as `predict` or `export` wrote it; None takes the one beside the map, or draws it again.

    Raises:
        OptionError: the file is of another map.
    """
    if path is None:
        beside = (tissue_map.path.with_suffix(suffix) for suffix in (".geojson", ".geojson.gz"))
        path = next((file for file in beside if file.is_file()), None)
    if path is not None:
        file = read_annotations(path)
        require_of_map(file, tissue_map)
        return _by_id(file, tissue_map), path.name
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "map.geojson"
        export_geojson(tissue_map, drawn)
        return _by_id(read_annotations(drawn), tissue_map), "drawn again with default options"


def _by_id(file: AnnotationFile, tissue_map: TissueMap) -> dict[str, Original]:
    names = Names(tissue_map.classes)
    found: dict[str, Original] = {}
    for annotation in file.annotations:
        index = names.meaning(annotation)
        if annotation.area is None or not annotation.identifier or index is None or index < 1:
            raise OptionError(
                f"{file.name}, feature {annotation.number} is not as wsiseg writes regions; state the file that "
                "predict or export wrote, as it was, with --original"
            )
        found[annotation.identifier] = Original(annotation.identifier, index, annotation.area, annotation.metadata)
    return found


def require_of_map(file: AnnotationFile, tissue_map: TissueMap) -> None:
    """Refuse a file whose annotations say that they are of another slide or model.

    Raises:
        OptionError: with what it is of.
    """
    slide, model = tissue_map.metadata["slide"], tissue_map.metadata["model"]
    for annotation in file.annotations:
        for key, own, what in ((SLIDE_HASH, slide["quick_hash"], "slide"), (MODEL_HASH, model["hash"], "model")):
            stated = annotation.metadata.get(key)
            if stated is not None and stated != own:
                name = annotation.metadata.get(what.capitalize(), stated[:12])
                mine = (slide if what == "slide" else model).get("name", own[:12])
                raise OptionError(
                    f"{file.name} holds regions of another {what} ({name:.80}, {stated[:12]}), {tissue_map.path.name} "
                    f"is of {mine:.80} ({own[:12]}); give the map that they are from"
                )


def require_same_drawing(annotation: Annotation, original: Original, file: str) -> None:
    """Refuse regions that were drawn with other options: all of them would seem edited.

    Raises:
        OptionError: with both tolerances.
    """
    theirs, ours = annotation.metadata.get(TOLERANCE), original.metadata.get(TOLERANCE)
    if theirs is not None and ours is not None and theirs != ours:
        raise OptionError(
            f"{file} holds polygons simplified by {theirs:.20} um, those of the map here by {ours} um; state the file "
            "that was opened in QuPath with --original"
        )
