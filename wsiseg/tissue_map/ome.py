"""What a tissue map says of itself: OME-Zarr 0.5 metadata, and this tool's own beside it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from wsiseg.classes import WHITE_VALUE, ClassTable
from wsiseg.errors import OptionError
from wsiseg.geometry import Grid, Mpp, Size, ceil_div
from wsiseg.system.json_values import JsonObject, is_number, is_whole
from wsiseg.system.printable import readable

OME_VERSION = "0.5"
MAP_FORMAT = 2
"""Written into a map. 1 had no white, and labels of coarser levels were the upper left of four, not the majority."""

COARSE_FORMAT = 3
"""Written into a map of coarse probabilities, so that programs that know of none say so; all else is as in 2."""

READ_FORMATS = (1, 2, 3)
LABELS = "tissue"
"""Name of the class map among the labels."""

UNREAD = "unread"
"""Name among the labels of what could not be read of the tissue."""


WHITE_NAME = "White"

SMALLEST_PX = 512
"""A pyramid ends at the first level no side of which is longer."""


def level_sizes(size: Size) -> list[Size]:
    """Sizes of the pyramid, each half of the one before, rounded up; at least one."""
    sizes = [size]
    while max(sizes[-1].width, sizes[-1].height) > SMALLEST_PX:
        sizes.append(Size(ceil_div(sizes[-1].width, 2), ceil_div(sizes[-1].height, 2)))
    return sizes


def multiscales(name: str, axes: str, mpps: Sequence[Mpp], map_mpp: Mpp, kind: str | None = None) -> list[JsonObject]:
    """`multiscales` of an image whose level n is the array `n`, with pixels of `mpps[n]` um.

    Every level has a scale and then a translation, which says where the middle of its first pixel lies, as readers
    take it (ome-zarr-py and ngff-zarr write it so, Neuroglancer and napari draw it so). The place 0 is the middle of
    the map's own first pixel: a pixel that is n of them wide begins with them, and its middle lies (n - 1) / 2 further.

    Args:
        name: shown by viewers.
        axes: "yx" of classes or "cyx" of values.
        mpps: microns per pixel of each level.
        map_mpp: that of the map itself.
        kind: how levels were made; None is what goes with the axes.
    """
    spatial = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    lead = [{"name": "c", "type": "channel"}] if axes == "cyx" else []
    return [
        {
            "name": readable(name),
            "axes": lead + spatial,
            "datasets": [
                {
                    "path": str(index),
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [1.0] * len(lead) + [mpp.y, mpp.x]},
                        {"type": "translation", "translation": [0.0] * len(lead) + list(first_centre_um(mpp, map_mpp))},
                    ],
                }
                for index, mpp in enumerate(mpps)
            ],
            "type": kind or ("mean" if axes == "cyx" else "mode"),
        }
    ]


def first_centre_um(mpp: Mpp, map_mpp: Mpp) -> tuple[float, float]:
    """(y, x): from the middle of a map's first pixel to that of a level's whose pixels are of `mpp`."""
    return (mpp.y - map_mpp.y) / 2, (mpp.x - map_mpp.x) / 2


def image_attributes(name: str, mpps: Sequence[Mpp], channels: Sequence[tuple[str, str]], map_mpp: Mpp) -> JsonObject:
    """`ome` of the root image; `channels` are pairs of a name and a colour of six hexadecimal digits."""
    return {
        "version": OME_VERSION,
        "multiscales": multiscales(name, "cyx", mpps, map_mpp),
        "omero": omero(name, OME_VERSION, channels),
    }


def omero(name: str, version: str, channels: Sequence[tuple[str, str]]) -> JsonObject:
    """`omero` of an image of uint8; `channels` are pairs of a name and a colour of six hexadecimal digits."""
    return {
        "name": readable(name),
        "version": version,
        "channels": [
            {
                "label": label,
                "color": color,
                "active": True,
                "coefficient": 1,
                "family": "linear",
                "inverted": False,
                "window": {"min": 0, "max": 255, "start": 0, "end": 255},
            }
            for label, color in channels
        ],
        "rdefs": {"model": "color", "defaultT": 0, "defaultZ": 0},
    }


def label_attributes(classes: ClassTable, mpps: Sequence[Mpp]) -> JsonObject:
    """`ome` of the class map: the classes have their names and colours; 0 and white are transparent."""
    return {
        "version": OME_VERSION,
        "multiscales": multiscales(LABELS, "yx", mpps, mpps[0]),
        "image-label": {
            "version": OME_VERSION,
            "colors": [{"label-value": 0, "rgba": [0, 0, 0, 0]}]
            + [{"label-value": c.index, "rgba": [*c.color, 255]} for c in classes]
            + [{"label-value": WHITE_VALUE, "rgba": [255, 255, 255, 0]}],
            "properties": [{"label-value": 0, "class": ClassTable.BACKGROUND}]
            + [{"label-value": c.index, "class": c.name} for c in classes]
            + [{"label-value": WHITE_VALUE, "class": WHITE_NAME}],
            "source": {"image": "../../"},
        },
    }


def unread_attributes(mpps: Sequence[Mpp]) -> JsonObject:
    """`ome` of the label of what could not be read, which is 1."""
    return {
        "version": OME_VERSION,
        "multiscales": multiscales(UNREAD, "yx", mpps, mpps[0], "max"),
        "image-label": {
            "version": OME_VERSION,
            "colors": [{"label-value": 0, "rgba": [0, 0, 0, 0]}, {"label-value": 1, "rgba": [120, 60, 160, 255]}],
            "properties": [{"label-value": 1, "class": UNREAD}],
            "source": {"image": "../../"},
        },
    }


def grid_to_json(grid: Grid) -> JsonObject:
    """A grid as a map's metadata records it."""
    return asdict(grid)


def grid_from_json(value: object) -> Grid:
    """The inverse of `grid_to_json`; raises `OptionError` on anything else, which is named."""
    fields = _fields("grid", value)
    size, mpp = _fields("grid's size", fields.get("size")), _fields("grid's mpp", fields.get("mpp"))
    return Grid(
        size=Size(_whole(size, "width"), _whole(size, "height")),
        mpp=Mpp(_number(mpp, "x"), _number(mpp, "y")),
        step_x=_number(fields, "step_x"),
        step_y=_number(fields, "step_y"),
        level=_whole(fields, "level"),
        zoom_x=_number(fields, "zoom_x"),
        zoom_y=_number(fields, "zoom_y"),
    )


def _fields(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise OptionError(f"a map's {name} must be an object, got {value!r:.60}")
    return value


def _whole(fields: Mapping[str, Any], key: str) -> int:
    value = fields.get(key)
    if not is_whole(value):
        raise OptionError(f"a grid's {key} must be a whole number, got {value!r:.60}")
    return value


def _number(fields: Mapping[str, Any], key: str) -> float:
    value = fields.get(key)
    if not is_number(value):
        raise OptionError(f"a grid's {key} must be a number, got {value!r:.60}")
    return float(value)
