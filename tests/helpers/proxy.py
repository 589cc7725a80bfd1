"""A small reverse proxy that counts requests and bytes, delays answers, and breaks them as networks do.

As a program, for benchmarks: `python -m tests.helpers.proxy HOST:PORT DELAY` prints its own port, and a JSON object of
what went through once its standard input ends.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DROPPED = ("connection", "transfer-encoding", "keep-alive")


@dataclass
class Fault:
    """What is broken.

    Attributes:
        kind: a status as text; "reset", "hang", "drop", "short", "long", "total", "plain" or "length".
        after: whole answers that are let through before it.
        count: how many times it comes; the answers after it are whole again.
        ranged: whether only requests with a range count.
        method: of the requests that count.
        path: what must be in their path.
    """

    kind: str
    after: int = 0
    count: int = 10**9
    ranged: bool = False
    method: str = "GET"
    path: str = ""


@dataclass(frozen=True)
class Request:
    """One that came in: its method, path and range, the status and bytes that went out, and the fault."""

    method: str
    path: str
    range: str
    status: int
    sent: int
    fault: str


class Proxy:
    """Passes everything on to `host`:`port`; a context manager.

    Attributes:
        port: where it listens on this machine.
        delay_s: seconds before each answer.
        fault: what is broken, None for nothing.
        requests: all that came in.
    """

    def __init__(self, host: str, port: int, delay_s: float = 0.0) -> None:
        self.target = (host, port)
        self.delay_s = delay_s
        self.fault: Fault | None = None
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(request.sent for request in self.requests)

    def clear(self) -> None:
        """Forget what came in, and break nothing."""
        with self._lock:
            self.requests, self.fault = [], None

    def note(self, request: Request) -> None:
        """Remember a request."""
        with self._lock:
            self.requests.append(request)

    def next_fault(self, method: str, path: str, ranged: bool) -> str:
        """What befalls a request, "" for nothing."""
        with self._lock:
            fault = self.fault
            if fault is None or fault.count <= 0 or method != fault.method or fault.path not in path:
                return ""
            if fault.ranged and not ranged:
                return ""
            if fault.after > 0:
                fault.after -= 1
                return ""
            fault.count -= 1
            return fault.kind


class _Server(ThreadingHTTPServer):
    proxy: Proxy
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are this program's business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        proxy = self.server.proxy
        asked = self.headers.get("Range", "")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if proxy.delay_s:
            time.sleep(proxy.delay_s)
        fault = proxy.next_fault(self.command, self.path, bool(asked))
        if fault == "hang":
            proxy.note(Request(self.command, self.path, asked, 0, 0, fault))
            proxy.closing.wait(600)
            self.close_connection = True
        elif fault == "reset":
            proxy.note(Request(self.command, self.path, asked, 0, 0, fault))
            self._reset()
        elif fault.isdigit():
            text = f"<Error><Code>Code{fault}</Code><Message>made by a test</Message></Error>".encode()
            self._answer(int(fault), {"Content-Type": "application/xml"}, text, fault)
        else:
            self._pass_on(body, fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _pass_on(self, body: bytes, fault: str) -> None:
        headers = {key: value for key, value in self.headers.items() if key.lower() not in DROPPED}
        if fault == "plain":
            headers = {key: value for key, value in headers.items() if key.lower() != "range"}
        target = http.client.HTTPConnection(*self.server.proxy.target, timeout=60)
        try:
            target.request(self.command, self.path, body or None, headers)
            came = target.getresponse()
            data = came.read()
        finally:
            target.close()
        sent = {key.title(): value for key, value in came.getheaders() if key.lower() not in DROPPED}
        if fault == "short":
            data = data[: len(data) // 2]
        elif fault == "long":
            data += b"x" * 1000
        elif fault == "total" and "Content-Range" in sent:
            sent["Content-Range"] = sent["Content-Range"].rpartition("/")[0] + "/1234567890123"
        self._answer(came.status, sent, data, fault)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, fault: str) -> None:
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        if fault == "length":
            length = "many"
        kept = data[: len(data) // 2] if fault == "drop" else data
        asked = self.headers.get("Range", "")
        self.server.proxy.note(Request(self.command, self.path, asked, status, len(kept), fault))
        self.send_response_only(status)
        for key, value in headers.items():
            if key.lower() != "content-length":
                self.send_header(key, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(kept)
        if fault == "drop":
            self._reset()

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def main() -> None:
    host, port = sys.argv[1].rsplit(":", 1)
    with Proxy(host, int(port), float(sys.argv[2])) as proxy:
        print(proxy.port, flush=True)
        for _ in sys.stdin:  # a line asks for what went through since the last one
            print(json.dumps({"requests": len(proxy.requests), "bytes": proxy.sent}), flush=True)
            proxy.clear()


if __name__ == "__main__":
    main()
