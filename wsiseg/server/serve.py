"""Serve an application to the browser of this machine until the person ends it."""

from __future__ import annotations

import html
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool

from wsiseg.errors import OptionError
from wsiseg.server.session import Session

MAX_PORT = 65535
END_S = 3
"""How long answers that are under way may take once the server is to end."""


def serve(build: Callable[[Session], Starlette], *, port: int, browser: bool, announce: Callable[[str], None]) -> None:
    """Serve on 127.0.0.1 until Ctrl-C or SIGTERM.

    Args:
        build: makes the application; called when the port is taken, before anything is served.
        port: to listen on; 0 takes any that is free.
        browser: open the page in the browser, if this machine shows one.
        announce: told the address, with its token, as soon as it answers.

    Raises:
        OptionError: the port cannot be had.
    """
    with _listening(port) as listener:
        session = Session(listener.getsockname()[1])
        app = build(session)
        config = uvicorn.Config(
            app, access_log=False, log_level="warning", server_header=False, ws="none",
            timeout_graceful_shutdown=END_S,
        )  # fmt: skip
        opener = Opener() if browser and has_browser() else None

        def ready() -> None:
            announce(session.address)
            if opener is not None:
                opener.open(session.address)

        try:
            with _interrupted_by_sigterm():
                _Server(config, ready).run(sockets=[listener])
        except KeyboardInterrupt:
            pass  # the server has ended in order and passes the signal on
        finally:
            if opener is not None:
                opener.close()


class _Server(uvicorn.Server):
    """A server that says when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server.startup`."""
        await super().startup(sockets)
        if self.started:
            self._ready()
            await run_in_threadpool(time.sleep, 0)  # what threads take is loaded while the browser starts


class Opener:
    """Opens an address in the browser by way of a file that only its owner reads.

    The browser is a program that is started with what it shall open, and all users of a machine see that.
    """

    def __init__(self) -> None:
        self._path: Path | None = None

    def open(self, address: str) -> None:
        """Show it; where no browser starts, the printed address is there still."""
        handle, name = tempfile.mkstemp(prefix="wsiseg-", suffix=".html")  # for its owner alone
        self._path = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(
                f"<!doctype html><title>wsiseg</title><meta http-equiv=refresh content='0; url={html.escape(address)}'>"
            )
        webbrowser.open(self._path.as_uri())

    def close(self) -> None:
        """Remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def has_browser() -> bool:
    """Whether a browser would be seen: on Linux, whether there is a display; one in the terminal is of no use."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the program in order, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listening(port: int) -> socket.socket:
    """A socket on the loopback address. There is no way to choose another one."""
    if not 0 <= port <= MAX_PORT:
        raise OptionError(f"--port must be from 0 (any that is free) to {MAX_PORT}, got {port}")
    # By name: asyncio sends small answers at once only over sockets that are known to be TCP; else each waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise OptionError(
            f"port {port} cannot be used ({error.strerror or error}); give another one by --port, or 0 for any"
        ) from error
    return listener
