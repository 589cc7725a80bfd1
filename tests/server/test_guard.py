"""Attacks: from other hosts, other pages, other users of the machine, and by what is sent."""

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.helpers.pages import PAGE, Server, require_static, served

CODE = """
import asyncio
from starlette.responses import JSONResponse
from starlette.routing import Route
from wsiseg.errors import OptionError
from wsiseg.server.app import json_body, make_app
from wsiseg.server.serve import serve

async def echo(request):
    return JSONResponse(await json_body(request))

def bad(request):
    raise OptionError("expected <b>this</b>")

routes = [Route("/echo", echo, methods=["POST"]), Route("/bad", bad)]
serve(lambda session: make_app(session, "view", routes), port=0, browser=False, announce=lambda a: print(a, flush=True))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    require_static()
    with served("-c", CODE) as running:
        assert running.ask("/").status == 401
        running.enter()
        yield running


def test_only_this_machine_can_reach_it(server: Server) -> None:
    shown = subprocess.run(["ss", "-Hltn", f"sport = :{server.port}"], capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip("needs ss")
    assert f"127.0.0.1:{server.port}" in shown.stdout
    assert len(shown.stdout.splitlines()) == 1


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"])
def test_other_hosts_are_refused(server: Server, host: str) -> None:
    """DNS rebinding: a name of the attacker's that leads to this machine."""
    answer = server.ask("/", headers={**PAGE, "Host": host, "Cookie": server.cookie})
    assert answer.status == 403


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost", "[::1]:8000"])
def test_names_of_this_machine_are_not(server: Server, host: str) -> None:
    """Whatever the port: ssh forwards it under another one."""
    assert server.ask("/", headers={**PAGE, "Host": host, "Cookie": server.cookie}).status == 200


@pytest.mark.parametrize("cookie", ["", "wsiseg=1", "wsiseg-{port}=", "wsiseg-{port}=x; a=b", "=;;\x01\xff"])
@pytest.mark.parametrize("path", ["/", "/pages/common/dom.js", "/static/openseadragon.min.js", "/bad", "/nothing"])
def test_without_the_cookie_there_is_nothing(server: Server, cookie: str, path: str) -> None:
    answer = server.ask(path, headers={**PAGE, "Cookie": cookie.format(port=server.port)})
    assert answer.status == 401
    assert server.token.encode() not in answer.body


def test_the_token_works_once(server: Server) -> None:
    assert server.ask(f"/?token={server.token}").status == 401
    assert server.ask("/?token=wrong").status == 401
    again = server.ask(f"/?token={server.token}", headers={"Cookie": server.cookie})
    assert (again.status, again.headers["location"]) == (303, "/")
    assert "set-cookie" not in again.headers


def test_the_cookie_is_not_for_scripts_nor_for_other_sites() -> None:
    require_static()
    with served("-c", CODE) as running:
        # A click in a page of another site: browsers keep a strict cookie back on the redirection that follows.
        answer = running.ask(f"/?token={running.token}", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 200
        assert "url=/'" in answer.body.decode()
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"wsiseg-{running.port}=")
        assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "none"},
        {},
    ],
)
def test_other_pages_cannot_change_anything(server: Server, headers: dict[str, str]) -> None:
    sent = {**headers, "Cookie": server.cookie, "Content-Type": "application/json"}
    assert server.ask("/echo", "POST", b"{}", sent).status == 403


def test_its_own_page_can(server: Server) -> None:
    assert server.post("/echo", {"a": "é"}).json == {"a": "é"}
    host = f"127.0.0.1:{server.port}"
    old = {"Origin": f"http://{host}", "Host": host, "Cookie": server.cookie, "Content-Type": "application/json"}
    assert server.ask("/echo", "POST", b"{}", old).json == {}  # browsers without fetch metadata


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_cannot_read(server: Server, site: str) -> None:
    """Pages of other ports of this machine are of the same site, so their requests bring the cookie."""
    headers = {"Cookie": server.cookie, "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    assert server.ask("/pages/common/dom.js", headers=headers).status == 403
    assert server.ask("/", headers=headers).status == 403
    # A person may follow a link to the page itself.
    assert server.ask("/", headers={**headers, "Sec-Fetch-Mode": "navigate"}).status == 200


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "TRACE"])
def test_other_methods(server: Server, method: str) -> None:
    headers = {"Cookie": server.cookie, "Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = server.ask("/echo", method, None, headers)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        *("/pages/../../errors.py", "/pages/%2e%2e/%2e%2e/errors.py", "/pages/..%2f..%2ferrors.py", "/static/../pages"),
        *("/pages//etc/passwd", "/pages/package.json", "/pages/common/", "/pages/label/..%00", "/nothing"),
        "/static/openseadragon.LICENSE.txt",
    ],
)
def test_no_path_leads_out(server: Server, path: str) -> None:
    assert server.get(path).status == 404


def test_bodies_are_bounded(server: Server) -> None:
    headers = {**PAGE, "Cookie": server.cookie, "Content-Type": "application/json"}
    assert server.ask("/echo", "POST", b'{"a": "' + b"x" * 60_000 + b'"}', headers).status == 200
    assert server.ask("/echo", "POST", b'{"a": "' + b"x" * 70_000 + b'"}', headers).status == 413
    for body, status in ((b"[]", 400), (b"{", 400), (b"[" * 50_000, 400)):
        assert server.ask("/echo", "POST", body, headers).status == status
    form = {**headers, "Content-Type": "text/plain"}
    assert server.ask("/echo", "POST", b"{}", form).status == 415


def test_every_answer_is_closed(server: Server) -> None:
    """No other origin may read it, frame it, or run anything in it."""
    refused = server.ask("/", headers={"Host": "evil.example"})
    for answer in (server.get("/"), server.get("/bad"), server.get("/nothing"), refused):
        policy = answer.headers["content-security-policy"]
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert part in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


def test_bad_input_is_text_for_people(server: Server) -> None:
    answer = server.get("/bad")
    assert (answer.status, answer.json) == (400, {"error": "expected <b>this</b>"})
    assert answer.headers["content-type"] == "application/json"


def test_no_page_has_script_in_it(server: Server) -> None:
    body = server.get("/").body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=\"/)", body)
    assert not re.search(r"\son\w+=|style=|https?://", body)


def test_other_users_do_not_see_the_token(server: Server) -> None:
    shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "make_app" in shown  # the server is there
    assert server.token not in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(number: int) -> None:
    require_static()
    with served("-c", CODE) as running:
        running.enter()
        assert running.end(number) == (0, "")
