"""Addresses of slides (`s3://…`, `https://…`): told from paths, and shown without what is secret in them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""Two letters at least, since Windows' drives have one; `pathlib` makes one slash of two."""

_USER = re.compile(r"(://)[^/?#\s]*@")
_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\")]*")
_FRAGMENT = re.compile(r"(https?://[^\s#'\"]*)#[^\s'\")]*", re.IGNORECASE)


def is_address(path: str | Path) -> bool:
    """Whether a slide is given by an address and not by a path."""
    return "://" in str(path)


def names_elsewhere(path: str | Path) -> bool:
    """Whether an output is given by an address, also one that went through `pathlib`."""
    return is_address(path) or _SCHEME.match(str(path)) is not None


def as_address(path: str | Path) -> str | None:
    """The address that a path means, also one that went through `pathlib`, which makes one slash of two; else None."""
    text = str(path)
    if is_address(text):
        return text
    return text.replace(":/", "://", 1) if names_elsewhere(text) else None


def place_text(path: str | Path) -> str:
    """A path or an address as people write it, without what is secret."""
    return without_secrets(as_address(path) or str(path))


def without_secrets(text: str) -> str:
    """A path, an address or a message without users and passwords, queries (signatures) and fragments of addresses."""
    if "://" not in text:
        return text
    return _FRAGMENT.sub(r"\1", _QUERY.sub(r"\1", _USER.sub(r"\1", text)))


def last_part(path: str) -> str:
    """The name of what a path or an address leads to."""
    name = _last(without_secrets(path))
    if path.lower().startswith(("http://", "https://")):
        plain = _last(unquote(name))
        name = plain if plain.isprintable() and plain else name
    return name


def _last(path: str) -> str:
    return path.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1]


def local_path(path: str) -> str:
    """The path that a `file://` address means; anything else as it is."""
    if not path.lower().startswith("file://"):
        return path
    parts = urlsplit(path.replace("?", "%3F").replace("#", "%23"))  # a file's name may hold both
    host = "" if parts.netloc in ("", "localhost") else f"//{parts.netloc}"
    return host + url2pathname(parts.path)
