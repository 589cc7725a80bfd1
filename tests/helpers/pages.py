"""Pages as a browser or an attacker asks for them: a server in its own process, and requests with any headers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

PAGE = {"Sec-Fetch-Site": "same-origin"}
"""What a browser says of requests that a page sends to its own server."""


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A server that runs, and how it is asked."""

    process: subprocess.Popen[str]
    address: str
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=lambda: dict(PAGE))

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0

    @property
    def token(self) -> str:
        return self.address.partition("token=")[2]

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request with exactly these headers; a `Host` among them replaces the usual one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
        for name, value in {**(headers or {}), "Content-Length": str(len(body or b""))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        found = connection.getresponse()
        answer = Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        connection.close()
        return answer

    def enter(self) -> None:
        """Exchange the token for the cookie."""
        answer = self.ask(urlsplit(self.address).path + f"?token={self.token}")
        assert answer.status == 303, answer
        assert answer.headers["location"] == "/"
        self.cookie = answer.headers["set-cookie"].partition(";")[0]

    def get(self, path: str) -> Answer:
        """As the page asks."""
        return self.ask(path, headers={**self.headers, "Cookie": self.cookie})

    def post(self, path: str, value: object) -> Answer:
        """As the page sends."""
        headers = {**self.headers, "Cookie": self.cookie, "Content-Type": "application/json"}
        return self.ask(path, "POST", json.dumps(value).encode(), headers)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End the server by a signal; its exit code and what it said on standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@contextmanager
def served(*command: object, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A command of Python that serves and prints its address first, until the context ends."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address.startswith("http://127.0.0.1:"):
            process.kill()
            raise AssertionError(f"no address but {address!r}: {process.communicate()[1]}")
        yield Server(process, address)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def require_static() -> None:
    """Skip where the libraries of pages are not here and there is no npm to bring them."""
    from wsiseg.server.static import STATIC, _is_whole

    if not _is_whole(STATIC) and shutil.which("npm") is None:
        pytest.skip("needs npm, which brings the libraries of pages")


def chromium() -> Path:
    """The system's Chromium; skips without."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium")
    return Path(found)
