"""Finding the slides of maps, and the areas that a person drew on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsiseg.errors import OptionError, WsisegError
from wsiseg.slides import open_slide
from wsiseg.slides.base import SlideReader
from wsiseg.system.json_values import is_number
from wsiseg.system.printable import printable
from wsiseg.tissue_map.reader import TissueMap

NO_SLIDE = "the slide was not given (--slide, --slides)"


@contextmanager
def slide_of(source: TissueMap, folder: Path | None, slide: str | None) -> Iterator[tuple[SlideReader | None, str]]:
    """The slide that a map was made from, open, or None and why there is none.

    Args:
        source: the map.
        folder: where slides lie, by their names.
        slide: this map's slide, a path or an address.

    Raises:
        SlideError: `slide` is none.
        OptionError: it is another one.
    """
    made_from = source.metadata["slide"]
    if slide is not None:
        with _open(slide, source) as reader:
            if reader.quick_hash() != made_from["quick_hash"]:
                raise OptionError(
                    f"{reader.name} is not the slide that {source.path.name} was made from; give "
                    f"{printable(made_from['name'], 60)}"
                )
            yield reader, ""
        return
    if folder is None:
        yield None, NO_SLIDE
        return
    path = _inside(folder, made_from["name"])
    if path is None:
        yield None, f"no slide of this name is in {printable(folder.name, 60)}"
        return
    try:
        reader = _open(str(path), source)
    except WsisegError as error:
        yield None, f"its slide cannot be opened ({printable(error, 160)})"
        return
    with reader:
        same = reader.quick_hash() == made_from["quick_hash"]
        yield (reader, "") if same else (None, "the slide of this name is another one than the map was made from")


def _open(path: str, source: TissueMap) -> SlideReader:
    """A slide, at the mpp and series that the map was made with where these had to be stated."""
    made_from, parameters = source.metadata["slide"], source.metadata.get("parameters")
    mpp = made_from.get("mpp")
    along_x = mpp.get("x") if isinstance(mpp, dict) else None
    stated = made_from.get("mpp_source") == "stated" and is_number(along_x)
    series = parameters.get("series") if isinstance(parameters, dict) else None
    return open_slide(path, mpp=along_x if stated else None, series=series if isinstance(series, str) else None)


def _inside(folder: Path, name: str) -> Path | None:
    """The entry of a folder that has a name, which comes from a file and must not lead elsewhere."""
    return next((entry for entry in folder.iterdir() if entry.name == name), None)


def regions_of(source: TissueMap, place: Path | None) -> list[Any] | None:
    """The areas that a person drew on a map's slide, in level-0 pixels; None where there are none.

    Args:
        source: the map.
        place: a GeoJSON file, or a folder with NAME.geojson for each slide or map NAME.

    Raises:
        OptionError: the file is broken, or none of its areas touches the slide.
    """
    if place is None:
        return None
    if place.is_dir():
        name = str(source.metadata["slide"]["name"])
        names = {f"{stem}.geojson{end}" for stem in (name, Path(name).stem, source.path.stem) for end in ("", ".gz")}
        path = next((entry for entry in sorted(place.iterdir()) if entry.name in names), None)
        if path is None:
            return None
    else:
        path = place
    from wsiseg.geojson.read import read_geojson  # noqa: PLC0415  (only areas need it)

    areas = [area for area, _ in read_geojson(path)]
    width, height = source.size.width * source.grid.step_x, source.size.height * source.grid.step_y
    if not any(_touches(area.bounds, width, height) for area in areas):
        raise OptionError(
            f"{path.name} has no area on {printable(source.metadata['slide']['name'], 60)} ({width:.0f} x {height:.0f} "
            "px); areas are expected in level-0 pixels of this slide"
        )
    return areas


def _touches(bounds: tuple[float, float, float, float], width: float, height: float) -> bool:
    left, top, right, bottom = bounds
    return left < width and top < height and right > 0 and bottom > 0


def check_places(folder: Path | None, regions: Path | None) -> None:
    """Raise `OptionError` where what is named is not there, before any work is done."""
    if folder is not None and not folder.is_dir():
        raise OptionError(f"{folder} is not a folder; expected one with the maps' slides, or --slide for a single map")
    if regions is not None and not regions.exists():
        raise OptionError(f"{regions} does not exist; expected a GeoJSON file, or a folder of them")
