"""Files that save time when a command is repeated, in the user's cache folder; losing them costs nothing but time."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

_DIGEST_BYTES = 32


def cache_folder() -> Path | None:
    """The user's folder for such files, as the system has it (`XDG_CACHE_HOME/wsiseg`); None without a home."""
    from platformdirs import user_cache_path  # noqa: PLC0415  (what keeps no file has no need of it)

    folder = user_cache_path("wsiseg", appauthor=False)
    return folder if folder.is_absolute() else None


class Cache:
    """A folder of files by name, of bounded size, that several processes may use at once.

    A file is whole or not there, and one that was altered, or that another user may have written, is not read. Where
    the folder cannot be read or written, nothing is kept.

    Args:
        folder: made when something is kept; None keeps nothing.
        most_bytes: of all files together; beyond it those go first that were used longest ago.
    """

    def __init__(self, folder: Path | None, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes

    def read(self, name: str) -> bytes | None:
        """The bytes kept under a name; None where there are none, or they are not as they were written."""
        if self.folder is None or not _own(self.folder):
            return None
        path = self.folder / name
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        content = stored[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != stored[:_DIGEST_BYTES]:
            return None
        with suppress(OSError):
            os.utime(path)  # used now
        return content

    def write(self, name: str, content: bytes) -> None:
        """Keep something under a name, if that is possible and it does not fill more than half of the cache."""
        if self.folder is None or len(content) > self.most_bytes // 2:
            return
        temporary = self.folder / f".{secrets.token_hex(8)}.partial"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _own(self.folder):
                return
            try:
                temporary.write_bytes(hashlib.sha256(content).digest() + content)
                temporary.replace(self.folder / name)
            finally:
                temporary.unlink(missing_ok=True)
            self._prune(self.folder / name)
        except OSError:
            return  # a full disk, or a home that is read-only: the next run does the work again

    def forget(self, name: str) -> None:
        """Remove what turned out to be of no use."""
        if self.folder is not None:
            with suppress(OSError):
                (self.folder / name).unlink()

    def _prune(self, newest: Path) -> None:
        assert self.folder is not None
        files = []
        for path in self.folder.iterdir():
            with suppress(OSError):  # another process was quicker
                state = path.stat()
                files.append((path == newest, state.st_mtime, state.st_size, path))
        room = self.most_bytes
        for _, _, size, path in sorted(files, reverse=True):
            room -= size
            if room < 0:
                with suppress(OSError):
                    path.unlink()


def _own(folder: Path) -> bool:
    """Whether nobody else can have put files there."""
    try:
        state = folder.stat()
    except OSError:
        return False
    if not hasattr(os, "geteuid"):
        return True
    return state.st_uid == os.geteuid() and not state.st_mode & 0o022
