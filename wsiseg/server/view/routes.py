"""What the viewer asks for: slides and maps, their tiles, places, and corrections."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wsiseg.errors import OptionError, WsisegError
from wsiseg.export.picture import draw
from wsiseg.server.app import json_body
from wsiseg.server.view import map_tiles, places
from wsiseg.server.view.cases import Case, ShownMap
from wsiseg.server.view.corrections import Corrections, default_path
from wsiseg.server.view.facts import case_facts
from wsiseg.server.view.map_tiles import Values
from wsiseg.server.view.slide_tiles import SlideTiles, encode_jpeg
from wsiseg.system.json_values import JsonObject

T = TypeVar("T")

FOR_EVER = "private, max-age=31536000, immutable"
"""An address holds a digest of its map: what it leads to never changes."""

THUMBNAIL_PX = 280


class Viewer:
    """The routes of a viewer.

    Args:
        cases: slides and their maps, open.
        corrections: file that corrections go to, where there is one map; else each map has its own beside it.

    Raises:
        OptionError: one file of corrections for several maps.
    """

    def __init__(self, cases: Sequence[Case], corrections: Path | None = None) -> None:
        self._cases = {case.id: case for case in cases}
        self._maps = {shown.id: shown for case in cases for shown in case.maps}
        if corrections is not None and len(self._maps) > 1:
            raise OptionError("--corrections is for one map; without it, each map has a file of its own beside it")
        self._slides = {case.id: SlideTiles(case) for case in cases if case.slide is not None}
        self._corrections = {
            shown.id: Corrections(corrections or default_path(shown), case, shown)
            for case in cases
            for shown in case.maps
        }
        self._regions: dict[str, list[dict[str, float]]] = {}
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Have what the first view needs ready when it is asked for: the coarsest tiles, and the libraries they take.

        Errors are not raised here: whoever asks for the tile is told.
        """
        with suppress(WsisegError):
            case = next(iter(self._cases.values()))
            shown = case.maps[0].map
            box = map_tiles.tile_box(shown, shown.levels - 1, 0, 0)
            if box is not None:
                map_tiles.class_tile(shown, shown.levels - 1, box)
            if case.id in self._slides:
                tiles = self._slides[case.id]
                tiles.read(tiles.levels - 1, 0, 0)

    def routes(self) -> list[Route]:
        """For `wsiseg.server.app.make_app`."""
        tile = "{level:int}/{x:int}_{y:int}"
        return [
            Route("/cases", self.cases),
            Route(f"/s/{{case}}/{tile}.jpg", self.slide_tile),
            Route("/s/{case}/thumbnail.jpg", self.thumbnail),
            Route(f"/m/{{map}}/classes/{tile}.png", self.class_tile),
            Route(f"/m/{{map}}/probability/{{index:int}}/{tile}.png", self.probability_tile),
            Route(f"/m/{{map}}/uncertainty/{tile}.png", self.uncertainty_tile),
            Route(f"/m/{{map}}/gate/{{index:int}}/{tile}.png", self.gate_tile),
            Route(f"/m/{{map}}/unread/{tile}.png", self.unread_tile),
            Route("/m/{map}/at", self.at),
            Route("/m/{map}/areas", self.areas),
            Route("/m/{map}/uncertain", self.uncertain),
            Route("/m/{map}/corrections", self.corrections),
            Route("/m/{map}/corrections", self.correct, methods=["POST"]),
            Route("/m/{map}/corrections/preview", self.preview, methods=["POST"]),
            Route("/m/{map}/corrections/undo", self.undo, methods=["POST"]),
        ]

    def cases(self, request: Request) -> Response:
        """All slides and maps."""
        return JSONResponse({"cases": [case_facts(case) for case in self._cases.values()]}, headers=_FRESH)

    def slide_tile(self, request: Request) -> Response:
        """A tile of a slide, JPEG; `level` n has pixels of 2**n level-0 pixels."""
        tiles = _found(self._slides, request.path_params["case"])
        place = _place(request)
        return _lasting(request, request.path_params["case"], "image/jpeg", lambda: tiles.read(*place))

    def thumbnail(self, request: Request) -> Response:
        """A small picture of a slide with its first map, JPEG."""
        case = _found(self._cases, request.path_params["case"])

        case.maps[0].require_there()

        def content() -> bytes:
            return encode_jpeg(draw(case.maps[0].map, case.slide, max_px=THUMBNAIL_PX, opacity=0.5).image)

        return _lasting(request, case.maps[0].id, "image/jpeg", content)

    def class_tile(self, request: Request) -> Response:
        """A tile of a class map, PNG of class indices."""
        shown, level, box = self._box(request)
        return _lasting(request, shown.id, "image/png", lambda: map_tiles.class_tile(shown.map, level, box))

    def gate_tile(self, request: Request) -> Response:
        """A tile of where the gate shut a class, or with 0 left at most one open."""
        shown, level, box = self._box(request)
        index = request.path_params["index"]
        return _lasting(request, shown.id, "image/png", lambda: map_tiles.gate_tile(shown.map, index, level, box))

    def unread_tile(self, request: Request) -> Response:
        """A tile of where the slide could not be read."""
        shown, level, box = self._box(request)
        return _lasting(request, shown.id, "image/png", lambda: map_tiles.unread_tile(shown.map, level, box))

    def probability_tile(self, request: Request) -> Response:
        """A tile of a class's probabilities, PNG of grey values."""
        return self._values(request, request.path_params["index"])

    def uncertainty_tile(self, request: Request) -> Response:
        """A tile of uncertainty, PNG of grey values."""
        return self._values(request, "uncertainty")

    def _values(self, request: Request, values: Values) -> Response:
        shown, level, box = self._box(request)
        return _lasting(request, shown.id, "image/png", lambda: map_tiles.value_tile(shown.map, values, level, box))

    def at(self, request: Request) -> Response:
        """Class and probabilities at `x`, `y`."""
        shown = self._map(request)
        return JSONResponse(places.at(shown.map, _number(request, "x"), _number(request, "y")), headers=_FRESH)

    def areas(self, request: Request) -> Response:
        """Areas of the field `x`, `y`, `w`, `h`."""
        shown = self._map(request)
        field = places.Field(*(_number(request, name) for name in ("x", "y", "w", "h")))
        if not field.is_finite:
            raise HTTPException(400, "a field needs x, y, w and h in level-0 pixels")
        size = next(case.size for case in self._cases.values() if shown in case.maps)
        return JSONResponse(places.areas(shown.map, field, size), headers=_FRESH)

    def uncertain(self, request: Request) -> Response:
        """The least certain regions; found once."""
        shown = self._map(request)
        with self._lock:
            if shown.id not in self._regions:
                self._regions[shown.id] = places.uncertain_regions(shown.map)
            regions = self._regions[shown.id]
        return JSONResponse({"regions": regions}, headers=_FRESH)

    def corrections(self, request: Request) -> Response:
        """What is in the file of corrections."""
        return JSONResponse(_found(self._corrections, request.path_params["map"]).shown(), headers=_FRESH)

    async def correct(self, request: Request) -> Response:
        """Add an area; answered when it is on the disk."""
        corrections = _found(self._corrections, request.path_params["map"])
        body = await json_body(request)
        points, index = _points(body), body.get("class")
        if not isinstance(index, int) or isinstance(index, bool):
            raise HTTPException(400, "a correction needs points and the number of a class")
        await run_in_threadpool(corrections.add, points, index)
        return JSONResponse(await run_in_threadpool(corrections.shown), headers=_FRESH)

    async def preview(self, request: Request) -> Response:
        """What an area that was drawn would come to; nothing is added."""
        corrections = _found(self._corrections, request.path_params["map"])
        points = _points(await json_body(request))
        return JSONResponse(await run_in_threadpool(corrections.preview, points), headers=_FRESH)

    async def undo(self, request: Request) -> Response:
        """Take away the last area that was added."""
        corrections = _found(self._corrections, request.path_params["map"])
        await run_in_threadpool(corrections.undo)
        return JSONResponse(await run_in_threadpool(corrections.shown), headers=_FRESH)

    def _map(self, request: Request) -> ShownMap:
        shown = _found(self._maps, request.path_params["map"])
        shown.require_there()
        return shown

    def _box(self, request: Request) -> tuple[ShownMap, int, Any]:
        shown = self._map(request)
        level, x, y = _place(request)
        box = map_tiles.tile_box(shown.map, level, x, y)
        if box is None:
            raise HTTPException(404, "there is no such tile")
        return shown, level, box


_FRESH = {"Cache-Control": "no-store"}


def _found(known: Mapping[str, T], name: str) -> T:
    if name not in known:
        raise HTTPException(404, "there is no such slide or map")
    return known[name]


def _place(request: Request) -> tuple[int, int, int]:
    level, x, y = (request.path_params[name] for name in ("level", "x", "y"))
    return level, x, y


def _points(body: JsonObject) -> list[Any]:
    points = body.get("points")
    if not isinstance(points, list):
        raise HTTPException(400, "a correction needs points and the number of a class")
    return points


def _number(request: Request, name: str) -> float:
    try:
        return float(request.query_params[name])
    except (KeyError, ValueError) as error:
        raise HTTPException(400, f"{name} must be a number") from error


def _lasting(request: Request, tag: str, kind: str, content: Callable[[], bytes | None]) -> Response:
    """What never changes: not even made for a browser that has it."""
    etag = f'"{tag}"'
    headers = {"ETag": etag, "Cache-Control": FOR_EVER}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    made = content()
    if made is None:
        raise HTTPException(404, "there is no such tile")
    return Response(made, media_type=kind, headers=headers)
