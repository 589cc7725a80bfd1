"""Ranges of a file over HTTP."""

from __future__ import annotations

import re
import socket
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    LocationParseError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from wsiseg.slides.sources.transport import Answer, Cause, Fault, Retry, Transport, of_status, require_all

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_MOST_WAIT_S = 30.0


class HttpTransport(Transport):
    """A file behind an `http://` or `https://` address, which may hold a user, a password and a signature.

    Args:
        address: of the file.
        try_s: seconds to wait for a connection, and for each part of an answer.
        connections: that are kept open.
    """

    def __init__(self, address: str, try_s: float, connections: int) -> None:
        parts = urlsplit(address)
        host = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit((parts.scheme.lower(), host, parts.path or "/", parts.query, ""))
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "wsiseg"}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers |= urllib3.make_headers(basic_auth=user)
        # Tries are counted elsewhere; only redirections are followed here.
        again = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)
        options: dict[str, Any] = {
            "maxsize": connections, "retries": again, "timeout": urllib3.Timeout(connect=try_s, read=try_s),
        }  # fmt: skip
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme.lower())
        self._pool = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)

    def get(self, start: int, count: int, *, fresh: bool = False) -> Answer:
        """See `Transport.get`."""
        headers = {**self._headers, "Range": f"bytes={start}-{start + count - 1}"}
        try:
            response = self._pool.request("GET", self._url, headers=headers, preload_content=False)
        except (HTTPError, OSError, ValueError) as error:
            raise _explained(error) from error
        whole = False
        try:
            answer = _answer(response, start, count)
            whole = True
        except (HTTPError, OSError, ValueError) as error:
            raise _explained(error) from error
        finally:
            if not whole:
                response.close()  # what is left of it would be taken for the next answer
            response.release_conn()
        return answer

    def close(self) -> None:
        """See `Transport.close`."""
        self._pool.clear()


def _answer(response: urllib3.BaseHTTPResponse, start: int, count: int) -> Answer:
    headers = response.headers
    version = headers.get("ETag") or headers.get("Last-Modified")
    if response.status == 200:
        if headers.get("Content-Type", "").startswith("text/html"):
            raise Fault(Cause.NO_RANGES, "answers with a web page (a login, an error?)", Retry.FEW)
        length = headers.get("Content-Length", "")
        if start == 0 and length.isdigit() and int(length) <= count:  # all of a small file
            data = response.read()
            require_all(data, 0, count, int(length))
            return Answer(data, int(length), version)
        raise Fault(Cause.NO_RANGES, "gives files as a whole only, no ranges of bytes", Retry.FEW)
    if response.status != 206:
        wait = headers.get("Retry-After", "")
        raise of_status(response.status, min(_MOST_WAIT_S, float(wait)) if wait.isdigit() else 0.0)
    stated = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if stated is None:
        raise Fault(Cause.NO_RANGES, "does not say which range of the file it sends", Retry.FEW)
    first, last, total = (int(value) for value in stated.groups())
    if first != start or last != min(start + count, total) - 1:
        raise Fault(Cause.SERVER, f"sent bytes {first} to {last} where {start} to {start + count - 1} were asked for")
    data = response.read()
    require_all(data, start, count, total)
    return Answer(data, total, version)


_SAID: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, Retry], ...] = (
    (NewConnectionError, "refuses the connection, or cannot be reached", Retry.LONG),
    (ConnectTimeoutError, "does not answer (connecting took too long)", Retry.LONG),
    ((ReadTimeoutError, TimeoutError), "does not answer (it hangs)", Retry.LONG),
    (IncompleteRead, "ended an answer early", Retry.LONG),
    ((LocationParseError, ValueError), "has an address that cannot be right, or its answer is not HTTP", Retry.FEW),
    ((ProtocolError, ConnectionError), "ended the connection", Retry.LONG),
)
"""What the library's errors mean, the first that fits."""


def _explained(error: Exception) -> Fault:
    """A failed try in our own words; the library's name the address with what is secret in it."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, NameResolutionError):
        lasting = isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno == socket.EAI_NONAME
        return Fault(Cause.SERVER, "has a name that is not known (DNS)", Retry.FEW if lasting else Retry.LONG)
    if isinstance(error, SSLError):
        certificate = "CERTIFICATE" in str(error).upper()
        text = "has a TLS certificate that is not trusted" if certificate else "does not agree on TLS (https)"
        return Fault(Cause.SERVER, text, Retry.FEW)
    said = ((text, retry) for kinds, text, retry in _SAID if isinstance(error, kinds))
    return Fault(Cause.SERVER, *next(said, ("cannot be reached", Retry.LONG)))
