"""What stands before every page: only this machine, only its owner's browser, only its own pages.

A server on the loopback address is reached by every web page that its owner's browser shows, and by everybody who has
an account on the machine. Against the first: hosts and origins are checked (DNS rebinding, forged requests), and no
other origin may read an answer. Against the second: a token that is printed once and exchanged for a cookie.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wsiseg.server.session import Session

MAX_BODY_BYTES = 2**16

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every answer. There are none that would let another origin read it."""

_SAFE = ("GET", "HEAD")
_AGAIN = "<!doctype html><title>wsiseg</title><meta http-equiv=refresh content='0; url=/'>"
"""A step that begins on this server: a browser keeps a strict cookie back where the click was on another page."""

_CLOSED = (
    "This page belongs to whoever started it. Open the address that wsiseg printed, with its token; it works once. "
    "If it was used already, by another browser or by you, stop wsiseg and start it again.\n"
)


class Guard:
    """ASGI middleware that lets through what may pass, and adds `HEADERS` to every answer.

    Args:
        app: what it guards.
        session: the token and the cookie.
    """

    def __init__(self, app: ASGIApp, session: Session) -> None:
        self._app = app
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            guarded = _with_headers(send)
            answer = self._refused(scope)
            if answer is not None:
                await answer(scope, receive, guarded)
            else:
                await self._app(scope, _bounded(scope, receive), guarded)

    def _refused(self, scope: Scope) -> Response | None:
        """The answer to what may not pass, or to a token; None where the page answers."""
        headers = Headers(scope=scope)
        if not is_loopback(headers.get("host", "")):
            return PlainTextResponse("the host of a request must be 127.0.0.1, localhost or [::1]\n", 403)
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and scope["method"] in _SAFE and "token" in query:
            return self._enter(query["token"][0], headers)
        if not self._session.knows(_cookie(headers, self._session.cookie_name)):
            return PlainTextResponse(_CLOSED, 401)
        if not _is_own(scope, headers):
            return PlainTextResponse("only this server's own pages may ask for that\n", 403)
        return None

    def _enter(self, token: str, headers: Mapping[str, str]) -> Response:
        """Exchange a token for the cookie, and leave it out of the address."""
        if self._session.knows(_cookie(headers, self._session.cookie_name)):
            return RedirectResponse("/", 303)  # the address was opened again by who has the cookie
        cookie = self._session.redeem(token)
        if cookie is None:
            return PlainTextResponse(_CLOSED, 401)
        near = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        answer = RedirectResponse("/", 303) if near else HTMLResponse(_AGAIN)
        answer.headers["Cache-Control"] = "no-store"
        answer.set_cookie(self._session.cookie_name, cookie, httponly=True, samesite="strict", path="/")
        return answer


def is_loopback(host: str) -> bool:
    """Whether a `Host` header names this machine as itself, with any port: one may be forwarded by ssh."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _cookie(headers: Mapping[str, str], name: str) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


def _is_own(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a page of this server, or, where it changes nothing, from the person.

    Pages of other ports of this machine are of the same site, so that their requests bring the cookie along.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if scope["method"] in _SAFE:
        opened = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        return opened or site in (None, "none", "same-origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return False
    return site == "same-origin" or (site is None and origin is not None)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sending


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """A body of up to `MAX_BODY_BYTES`, whatever is said of its length."""
    stated = Headers(scope=scope).get("content-length", "0")
    got = 0

    async def receiving() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > MAX_BODY_BYTES or not stated.isdigit() or int(stated) > MAX_BODY_BYTES:
            raise HTTPException(413, f"a request may have {MAX_BODY_BYTES} bytes")
        return message

    return receiving
