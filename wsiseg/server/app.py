"""An application behind its guard: a page's routes, the files that it is made of, and errors as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from wsiseg.errors import WsisegError
from wsiseg.server.guard import Guard
from wsiseg.server.session import Session
from wsiseg.server.static import page_files, read_file
from wsiseg.system.json_values import JsonObject

JSON = "application/json"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def make_app(session: Session, page: str, routes: Sequence[BaseRoute]) -> Starlette:
    """An application that shows a page at `/`.

    Args:
        session: who may use it.
        page: folder of `wsiseg/pages` with the page's `index.html`; its files and those of `common` are at
            `/pages/…`, the libraries that it uses at `/static/…`.
        routes: what the page asks for.

    Raises:
        MissingExtraError: a library of the page is not here and cannot be had.
    """
    files = page_files(page)

    async def show(request: Request) -> Response:
        """A file of the page: only what was listed is found, so that no path leads elsewhere.

        Not in a thread, where two dozen small files would wait for tiles that are made at the same time.
        """
        path = files.get(request.url.path)
        if path is None:
            raise HTTPException(404, "there is no such file")
        content = read_file(path)
        if path.suffix == ".html":
            content = with_preloads(content, files)
        return Response(content, media_type=_KINDS[path.suffix], headers={"Cache-Control": "no-cache"})

    own = [Route("/", show), Route("/pages/{path:path}", show), Route("/static/{path:path}", show)]
    return Starlette(
        routes=[*own, *routes],
        middleware=[Middleware(Guard, session=session)],
        exception_handlers={WsisegError: _bad_input, HTTPException: _no},
    )


def with_preloads(html: bytes, addresses: Iterable[str]) -> bytes:
    """A page that names all its modules at once: else a browser learns of each from another one, step by step."""
    modules = sorted(address for address in addresses if address.startswith("/pages/") and address.endswith(".js"))
    links = "".join(f'<link rel="modulepreload" href="{address}" />\n' for address in modules)
    return html.replace(b"</head>", links.encode() + b"</head>", 1)


async def json_body(request: Request) -> JsonObject:
    """The object that a page sent. Raises `HTTPException` on anything else; forms of other sites cannot send JSON."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != JSON:
        raise HTTPException(415, f"expected {JSON}")
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "what was sent is not JSON") from error
    if not isinstance(found, dict):
        raise HTTPException(400, "expected a JSON object")
    return found


async def _bad_input(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _no(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
