"""What a viewer shows: slides, each with the maps that were made from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsiseg.choices import DEFAULT_RETRY_S
from wsiseg.errors import MapError, OptionError
from wsiseg.geometry import Mpp, Size
from wsiseg.slides import open_slide
from wsiseg.slides.base import SlideReader
from wsiseg.system.addresses import last_part, names_elsewhere
from wsiseg.tissue_map.reader import TissueMap, open_map

_ID_LETTERS = 16
MAP_FILE = "zarr.json"


@dataclass(frozen=True, slots=True)
class ShownMap:
    """A map that is shown.

    Attributes:
        id: made from what the map says of itself, so that a link holds after a restart and no path is in it.
        map: open for reading.
        stamp: of its file when it was opened; None behind an address.
    """

    id: str
    map: TissueMap
    stamp: tuple[int, ...] | None = None

    def require_there(self) -> None:
        """Refuse a map that is gone: what is missing of a store reads as "no tissue", and another map has others.

        Raises:
            MapError: it was moved, removed or replaced since it was opened.
        """
        if self.stamp is not None and _stamp(self.map.path) != self.stamp:
            raise MapError(
                f"{self.map.path.name} was moved, removed or replaced while it was shown; start wsiseg view again"
            )


@dataclass(frozen=True, slots=True)
class Case:
    """A slide with its maps.

    Attributes:
        id: made from the slide's hash.
        name: of the slide.
        size: of its level 0, which all coordinates of the page count in.
        mpp: microns per level-0 pixel.
        slide: open for reading; None where there is none at hand.
        maps: at least one.
    """

    id: str
    name: str
    size: Size
    mpp: Mpp
    slide: SlideReader | None
    maps: tuple[ShownMap, ...]


@dataclass(frozen=True, slots=True)
class SlideOptions:
    """How slides are opened; None takes what a map was predicted with.

    Attributes:
        reader: name of a reader.
        series: number or name of an image in the file.
        retry_s: seconds for which a server that fails is asked again.
    """

    reader: str | None = None
    series: str | None = None
    retry_s: float = DEFAULT_RETRY_S


@contextmanager
def open_cases(
    maps: Sequence[str | Path], slides: Sequence[str], options: SlideOptions | None = None
) -> Iterator[list[Case]]:
    """Open maps and slides, and find which belong together; closed when the context ends.

    Args:
        maps: paths or addresses, in the order of the page.
        slides: paths or addresses; none need be given.
        options: how slides are opened.

    Raises:
        SlideError: a map or a slide cannot be read.
        OptionError: a map is given twice, or a slide belongs to none of the maps.
    """
    options = options or SlideOptions()
    with ExitStack() as stack:
        shown = [ShownMap(map_id(opened), opened, _stamp(opened.path)) for opened in map(open_map, maps)]
        _refuse_twins(shown)
        groups: dict[str, list[ShownMap]] = {}
        for one in shown:
            groups.setdefault(one.map.metadata["slide"]["quick_hash"], []).append(one)
        readers: dict[str, SlideReader] = {}
        for path in slides:
            slide = stack.enter_context(_open(path, shown, options))
            slide_hash = slide.quick_hash()
            if slide_hash not in groups:
                raise OptionError(_belongs_to_none(slide, shown))
            readers[slide_hash] = slide
        yield [_case(slide_hash, group, readers.get(slide_hash)) for slide_hash, group in groups.items()]


def map_id(tissue_map: TissueMap) -> str:
    """Letters that stand for a map: a digest of all that it says of itself, its times and areas among that."""
    own = json.dumps(tissue_map.metadata, sort_keys=True, default=str)
    return hashlib.sha256(own.encode()).hexdigest()[:_ID_LETTERS]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What tells a map's file from another one in its place; None behind an address, and () where there is none."""
    if names_elsewhere(path):
        return None
    try:
        found = (path / MAP_FILE).stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _refuse_twins(shown: Sequence[ShownMap]) -> None:
    seen: dict[str, ShownMap] = {}
    for one in shown:
        if one.id in seen:
            raise OptionError(f"{one.map.path} and {seen[one.id].map.path} are the same map; give it once")
        seen[one.id] = one


def _open(path: str, shown: Sequence[ShownMap], options: SlideOptions) -> SlideReader:
    """The slide, opened as it was when a map was made of a slide of this name."""
    name = last_part(path)
    used = (one.map.metadata for one in shown if one.map.metadata["slide"]["name"] == name)
    recorded: Mapping[str, Any] = next((own.get("parameters") or {} for own in used), {})
    return open_slide(
        path,
        reader=options.reader,
        series=options.series if options.series is not None else recorded.get("series"),
        retry_s=options.retry_s,
    )


def _belongs_to_none(slide: SlideReader, shown: Sequence[ShownMap]) -> str:
    names = ", ".join(dict.fromkeys(one.map.metadata["slide"]["name"] for one in shown))
    return (
        f"{slide.name} is not the slide of any map that was given: they were made from {names:.300}; "
        "give the slide that a map was made from, or leave --slide out"
    )


def _case(slide_hash: str, maps: Sequence[ShownMap], slide: SlideReader | None) -> Case:
    own, grid = maps[0].map.metadata["slide"], maps[0].map.grid
    covered = Size(round(grid.size.width * grid.step_x), round(grid.size.height * grid.step_y))
    recorded = Size(own.get("width", covered.width), own.get("height", covered.height))
    return Case(
        hashlib.sha256(slide_hash.encode()).hexdigest()[:_ID_LETTERS],
        own["name"],
        recorded if slide is None else slide.size,
        Mpp(grid.mpp.x / grid.step_x, grid.mpp.y / grid.step_y),
        slide,
        tuple(maps),
    )
