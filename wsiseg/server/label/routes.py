"""What the labelling page asks for: a page of patches, their pictures, answers, undo, status, and a training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wsiseg.arrays import UInt8Array
from wsiseg.errors import OptionError
from wsiseg.labelling.agreement import Kappa
from wsiseg.labelling.answers import STATUSES, Answer
from wsiseg.labelling.choose import groups_of_alike, principal
from wsiseg.labelling.keys import DEFAULTS, Binding
from wsiseg.labelling.rounds import Round
from wsiseg.labelling.workplace import PAGE, Workplace
from wsiseg.server.app import json_body
from wsiseg.server.label.training import Training
from wsiseg.system.json_values import JsonObject

PICTURE_S = 20.0
"""How long a picture may wait for its slide."""

GROUP_PX = 8
"""Without a model, alike is what looks alike at so many pixels a side."""

_KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}


class LabelRoutes:
    """The routes of a labelling page.

    Args:
        place: what is labelled.
        training: of the data set, which the page starts.
        keys: what the page's keys do.
    """

    def __init__(self, place: Workplace, training: Training, keys: Sequence[Binding] = DEFAULTS) -> None:
        self.place = place
        self.labelling = place.labelling
        self.training = training
        self._keys = keys
        self._groups: tuple[int, list[list[int]]] | None = None

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/api/keys", self.keys),
            Route("/api/page", self.page),
            Route("/api/predictions", self.predictions),
            Route("/api/summary", self.summary),
            Route("/api/answer", self.answer, methods=["POST"]),
            Route("/api/undo", self.undo, methods=["POST"]),
            Route("/api/redo", self.redo, methods=["POST"]),
            Route("/api/save", self.save, methods=["POST"]),
            Route("/api/class", self.change_class, methods=["POST"]),
            Route("/api/train", self.train, methods=["GET", "POST"]),
            Route("/patch/{round:int}/{place:int}.png", self.patch),
            Route("/context/{round:int}/{place:int}.jpg", self.context),
        ]

    def keys(self, request: Request) -> Response:
        """What each key does, but for those of the classes."""
        return JSONResponse([dataclasses.asdict(binding) for binding in self._keys])

    def page(self, request: Request) -> Response:
        """A page of patches.

        Of the round under way, or of `round`; without `number` the first with something to answer; `groups` puts alike
        ones together.
        """
        of = self._round(_number(request, "round", self.labelling.round().number))
        pages = self._pages(of, grouped="groups" in request.query_params)
        waiting = set(self.labelling.open_items(of))
        first = next((n for n, places in enumerate(pages) if waiting & set(places)), 0)
        number = _number(request, "number", first)
        if not 0 <= number < len(pages):
            raise HTTPException(404, f"round {of.number} has {len(pages)} pages")
        self._cut_first(of, pages[number : number + 2])
        terms = self.labelling.session.terms
        return JSONResponse({
            "round": of.number,
            "number": number,
            "pages": len(pages),
            "per_page": PAGE,
            "items": [self._item(of, place) for place in pages[number]],
            "open": len(waiting),
            "total": len(of.items),
            "classes": [{"name": c.name, "color": f"#{c.hex_color}"} for c in self.labelling.session.classes],
            "labeller": self.labelling.labeller,
            "model": self.labelling.advice is not None,
            "patch_px": terms.patch_px,
            "mpp": terms.mpp,
            "status": self._status(),
        })  # fmt: skip

    def _round(self, number: int) -> Round:
        rounds = self.labelling.rounds
        if not 1 <= number <= len(rounds):
            raise HTTPException(404, f"there are the rounds 1 to {len(rounds)}")
        return rounds[number - 1]

    def _pages(self, of: Round, *, grouped: bool) -> list[list[int]]:
        """Places of a round, page by page."""
        if not grouped:
            return [list(range(at, min(at + PAGE, len(of.items)))) for at in range(0, len(of.items), PAGE)]
        if self._groups is None or self._groups[0] != of.number:
            self._groups = (of.number, self._alike(of))
        return [group[at : at + PAGE] for group in self._groups[1] for at in range(0, len(group), PAGE)]

    def _alike(self, of: Round) -> list[list[int]]:
        features = [self._features(item.patch) for item in of.items]
        places = [place for place, found in enumerate(features) if found is not None]
        table = np.stack([found for found in features if found is not None]).astype(np.float32)
        groups = groups_of_alike(principal(table), max(1, len(places) // PAGE), of.number)
        return [[places[row] for row in group] for group in groups]

    def _features(self, patch: str) -> np.ndarray | None:
        seen = self.labelling.features(patch)
        if seen is not None:
            return seen
        self.place.cutter.wait([patch], PICTURE_S)
        pixels = self.place.cache.pixels(patch)
        return None if pixels is None else _looks(pixels)

    def _item(self, of: Round, place: int) -> JsonObject:
        answer = self.labelling.answer_at(of, place)
        return {
            "place": place,
            "patch": f"/patch/{of.number}/{place}.png",
            "context": f"/context/{of.number}/{place}.jpg",
            **_said(answer, self._given(of.items[place].patch)),
        }

    def _given(self, patch: str) -> Sequence[str]:
        review = self.place.review
        return () if review is None else review.given.get(patch, ())

    def _status(self) -> JsonObject:
        return dataclasses.asdict(self.labelling.status())

    def _cut_first(self, of: Round, pages: Sequence[Sequence[int]]) -> None:
        wanted = [of.items[place].patch for places in pages for place in places]
        missing = [patch for patch in wanted if not self.place.cache.has(patch)]
        candidates = self.labelling.candidates
        self.place.cutter.add([candidates[patch] for patch in missing if patch in candidates], first=True)

    def predictions(self, request: Request) -> Response:
        """What the model says of places of the round under way: place -> names; asked only to be shown."""
        of, advice = self._round(_number(request, "round", len(self.labelling.rounds))), self.labelling.advice
        found = {}
        for place in range(len(of.items)):
            says = advice.says.get(of.items[place].patch) if advice else None
            if says is not None:
                found[place] = [name for name, value in says.items() if value]
        return JSONResponse(found)

    def summary(self, request: Request) -> Response:
        """Agreement with oneself and with others, class by class."""
        return JSONResponse({
            "intra": _table(self.labelling.intra_observer()),
            "inter": _table(self.labelling.inter_observer()),
        })  # fmt: skip

    async def answer(self, request: Request) -> Response:
        """`{"answers": {place: [names]}, "status": …, "shown": bool}`; answered when it is on the disk."""
        body = await json_body(request)
        answers, status = body.get("answers"), body.get("status")
        if not isinstance(answers, dict) or status not in STATUSES:
            raise HTTPException(400, f"expected answers and a status, {', '.join(STATUSES)}")
        said = {}
        for place, names in answers.items():
            if not place.isdecimal() or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                raise HTTPException(400, "expected place -> names of classes")
            said[int(place)] = names
        number = body.get("round")
        if not isinstance(number, int):
            raise HTTPException(400, "expected the number of a round")
        of = self._round(number)
        self.labelling.answer(said, status, of=of, shown_prediction=bool(body.get("shown")))
        return self._after(of, list(said))

    async def undo(self, request: Request) -> Response:
        """Take the last thing back."""
        await json_body(request)
        return self._touched(self.labelling.undo())

    async def redo(self, request: Request) -> Response:
        """Say again what was taken back last."""
        await json_body(request)
        return self._touched(self.labelling.redo())

    def _touched(self, patches: Sequence[str]) -> Response:
        for of in reversed(self.labelling.rounds):
            places = [place for place, item in enumerate(of.items) if item.patch in patches]
            if places:
                return self._after(of, places)
        return self._after(self.labelling.rounds[-1], [])

    def _after(self, of: Round, places: Sequence[int]) -> Response:
        """What changed."""
        return JSONResponse({
            "round": of.number,
            "items": [self._item(of, place) for place in places],
            "open": len(self.labelling.open_items(of)),
            "status": self._status(),
        })  # fmt: skip

    def save(self, request: Request) -> Response:
        """Bring `labels.csv` up to date."""
        return JSONResponse({"rows": self.place.save()})

    async def change_class(self, request: Request) -> Response:
        """`{"add": name}` or `{"rename": [old, new]}`."""
        body = await json_body(request)
        renamed = body.get("rename")
        if isinstance(body.get("add"), str):
            self.labelling.add_class(body["add"])
        elif isinstance(renamed, list) and len(renamed) == 2 and all(isinstance(name, str) for name in renamed):
            self.labelling.rename_class(*renamed)
        else:
            raise HTTPException(400, "expected a class to add or to rename")
        return JSONResponse({})

    def train(self, request: Request) -> Response:
        """How a training goes; a POST starts one."""
        if request.method == "POST":
            self.place.save()
            self.training.start()
        return JSONResponse(dataclasses.asdict(self.training.state()))

    def patch(self, request: Request) -> Response:
        """The pixels of a place."""
        patch = self._patch(request)
        self.place.cutter.wait([patch], PICTURE_S)
        return _picture(self.place.cache.png(patch), "image/png")

    def context(self, request: Request) -> Response:
        """A place in its surroundings."""
        patch = self._patch(request)
        self.place.cutter.wait([patch], PICTURE_S)
        return _picture(self.place.cache.context_jpeg(patch), "image/jpeg")

    def _patch(self, request: Request) -> str:
        number, place = request.path_params["round"], request.path_params["place"]
        rounds = {of.number: of for of in self.labelling.rounds}
        if number not in rounds or not 0 <= place < len(rounds[number].items):
            raise HTTPException(404, "there is no such patch")
        return str(rounds[number].items[place].patch)


def _picture(content: bytes | None, kind: str) -> Response:
    if content is None:
        raise HTTPException(404, "this part of the slide is damaged")
    return Response(content, media_type=kind, headers=_KEPT)


def _said(answer: Answer | None, given: Sequence[str]) -> JsonObject:
    """An answer as the page has it; without one what the label says that is looked at again."""
    if answer is None:
        return {"status": None, "present": list(given)}
    return {"status": answer.status, "present": [name for name, value in answer.classes.items() if value]}


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdecimal():
        raise OptionError(f"{name} must be a whole number, got {text!r:.20}")
    return int(text)


def _table(kappas: Sequence[Kappa]) -> list[Mapping[str, Any]]:
    return [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        for row in map(dataclasses.asdict, kappas)
    ]


def _looks(pixels: UInt8Array) -> np.ndarray:
    """Colours of a patch at `GROUP_PX` a side, and their spread, (D,)."""
    from PIL import Image  # noqa: PLC0415

    small = np.asarray(Image.fromarray(pixels).resize((GROUP_PX, GROUP_PX), Image.Resampling.BOX), np.float32)
    spread = pixels.reshape(-1, 3).std(axis=0)
    return np.concatenate([np.sort(small.reshape(-1, 3), axis=0).ravel(), 4 * spread])
