"""An area that a person drew by hand -> an annotation as QuPath writes them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import shapely
import shapely.geometry

from wsiseg.classes import TissueClass
from wsiseg.errors import OptionError
from wsiseg.geometry import Size
from wsiseg.system.json_values import JsonObject

MOST_POINTS = 20_000
_GRID_PX = 0.01
"""QuPath keeps as many decimals."""

DRAWN_IN = ("Drawn in", "wsiseg view")
"""Metadata of every such annotation. A file of them alone holds what was drawn, and none of the map's regions."""

IGNORED: JsonObject = {"name": "Ignore*", "color": [180, 180, 180]}
"""QuPath's own class for what is none of the others."""


def drawn_feature(points: Sequence[Sequence[float]], tissue_class: TissueClass | None, slide: Size) -> JsonObject:
    """A feature of GeoJSON. A line that crosses itself, as hands draw it, gives the areas that it encloses.

    Args:
        points: (x, y) in level-0 pixels along the border; the last is joined to the first.
        tissue_class: what the area is; None where it is none of the classes, which QuPath calls `Ignore*`.
        slide: level 0; what lies outside is cut off.

    Raises:
        OptionError: these are no points, or they enclose nothing of the slide.
    """
    if not 3 <= len(points) <= MOST_POINTS:
        raise OptionError(f"an area needs 3 to {MOST_POINTS} points, got {len(points)}")
    try:
        line = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError) as error:
        raise OptionError("points must be pairs of numbers") from error
    if not all(abs(value) < 1e9 for place in line for value in place):
        raise OptionError("points must be pairs of numbers, in level-0 pixels")
    area = shapely.make_valid(shapely.Polygon(line), method="structure", keep_collapsed=False)
    area = shapely.intersection(area, shapely.box(0, 0, slide.width, slide.height), grid_size=_GRID_PX)
    parts = [part for part in shapely.get_parts(area) if isinstance(part, shapely.Polygon) and part.area > 0]
    if not parts:
        raise OptionError("the line encloses nothing of the slide; draw around the region")
    shape = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    stated = {"name": tissue_class.name, "color": list(tissue_class.color)} if tissue_class else dict(IGNORED)
    return {
        "type": "Feature",
        "id": str(uuid.uuid4()),
        "geometry": shapely.geometry.mapping(shape),
        "properties": {
            "objectType": "annotation", "classification": stated, "metadata": dict([DRAWN_IN]),
        },
    }  # fmt: skip
