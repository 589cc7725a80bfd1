"""Who may use a server: whoever redeemed its token, once, for a cookie."""

from __future__ import annotations

import secrets
import threading


class Session:
    """The token of a server and the cookie that it is exchanged for.

    Browsers do not tell ports apart when they send cookies, so each server's cookie has a name of its own.

    Args:
        port: that the server listens on.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie_name = f"wsiseg-{port}"
        self.token = secrets.token_urlsafe(24)
        self._cookie = secrets.token_urlsafe(32)
        self._redeemed = False
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """What to open in a browser, with the token."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def redeem(self, token: str) -> str | None:
        """The value of the cookie for the right token, the first time that it is given; else None."""
        with self._lock:
            right = secrets.compare_digest(token.encode(), self.token.encode())
            if not right or self._redeemed:
                return None
            self._redeemed = True
            return self._cookie

    def knows(self, cookie: str | None) -> bool:
        """Whether a cookie's value is the one that was given out."""
        return self._redeemed and secrets.compare_digest((cookie or "").encode(), self._cookie.encode())

    def __repr__(self) -> str:
        return f"Session(port={self.port})"  # tokens must not get into messages
