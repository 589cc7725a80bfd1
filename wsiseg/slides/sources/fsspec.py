"""Ranges of a file wherever else fsspec reaches."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import fsspec

from wsiseg.slides.sources.transport import Answer, Cause, Fault, Retry, Transport, require_all
from wsiseg.system.addresses import without_secrets

_STATES = ("ETag", "etag", "md5", "mtime", "LastModified", "last_modified", "modified", "created")
"""Of what file systems say of a file, what changes with it."""


class FsspecTransport(Transport):
    """A file behind an address that fsspec knows: `memory://`, `sftp://`, `zip://…::…` and others.

    Args:
        address: of the file.
    """

    _one_by_one = threading.Lock()
    """For file systems that are not asynchronous, in all of the process: `memory://` has one position for everybody."""

    def __init__(self, address: str) -> None:
        self._file: Any = None
        self._facts: Mapping[str, Any] | None = None
        try:
            self._fs, self._path = fsspec.core.url_to_fs(address)
        except Exception as error:  # it and its back ends raise whatever they like
            raise _explained(error) from error

    def get(self, start: int, count: int, *, fresh: bool = False) -> Answer:
        """See `Transport.get`."""
        try:
            if fresh or self._facts is None:
                self._fs.invalidate_cache()
                self._facts = self._fs.info(self._path)
            facts = self._facts
            total = int(facts["size"])
            data = self._read(start, min(start + count, total))
        except Exception as error:  # it and its back ends raise whatever they like
            raise _explained(error) from error
        require_all(data, start, count, total)
        state = next((facts[key] for key in _STATES if facts.get(key)), None)
        return Answer(data, total, None if state is None else str(state))

    def _read(self, start: int, end: int) -> bytes:
        """Several at once where the file system can, else one after the other on one open file."""
        if start >= end:
            return b""
        if self._fs.async_impl:
            return bytes(self._fs.cat_file(self._path, start=start, end=end))
        with self._one_by_one:
            if self._file is None:
                self._file = self._fs.open(self._path, "rb", cache_type="none")
            try:
                self._file.seek(start)
                return bytes(self._file.read(end - start))
            except Exception:
                self._drop()
                raise

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def close(self) -> None:
        """See `Transport.close`."""
        with self._one_by_one:
            self._drop()


def _explained(error: Exception) -> Fault:
    stated = (str(getattr(error, "strerror", None) or error).strip().splitlines() or [""])[0]
    reason = without_secrets(stated).partition(" (")[0].rstrip(".")[:150] or "no reason is stated"
    if isinstance(error, FileNotFoundError):
        return Fault(Cause.MISSING, "does not have it", Retry.FEW)
    if isinstance(error, PermissionError):
        return Fault(Cause.DENIED, "does not let it be read", Retry.FEW)
    if isinstance(error, ImportError):
        return Fault(Cause.SERVER, f"needs a package that is not installed ({reason})", Retry.NEVER)
    if isinstance(error, ValueError | TypeError | NotImplementedError | KeyError):
        return Fault(Cause.SERVER, f"cannot be asked ({reason})", Retry.NEVER)
    return Fault(Cause.SERVER, f"failed ({reason})")
