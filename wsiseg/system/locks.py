"""One run at a time writes an output: a lock of the file system, or, where that has none, a lease that is renewed.

A lease is a folder, since making one either succeeds or finds it there on every file system. Its holder renews it every
`RENEWED_S` seconds; one that was not renewed for `STALE_S`, or whose process on this machine has ended, is taken over.
Machines that have locks and machines that have none on one file system keep each other away: each announces itself
first and looks for the other then.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wsiseg.errors import OutputError

RENEWED_S, STALE_S = 20.0, 300.0

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What file systems say that have no locks; Lustre's default is ENOSYS."""


def lock_path(out: Path) -> Path:
    """The file that a run holds while it writes `out`."""
    return out.parent / f".{out.name}.lock"


def lease_path(out: Path) -> Path:
    """The folder that a run holds instead where files cannot be locked."""
    return out.parent / f".{out.name}.lease"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the lock of an output; where the process ends, however it does, it is released or goes stale.

    Raises:
        OutputError: another run holds it, or its folder cannot be written.
    """
    path = lock_path(out)
    while True:
        there = path.exists()
        descriptor = _open(path, out)
        try:
            free = _try_lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if not there:
                path.unlink(missing_ok=True)
            if error.errno not in _NO_LOCKS:
                raise OutputError(
                    f"cannot lock {out}, its file system says: {error.strerror}; choose a folder on another one"
                ) from error
            with _leased(out):
                yield
            return
        if not free:
            holder = _holder(path)
            os.close(descriptor)
            raise _busy(out, holder)
        with suppress(OSError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        os.close(descriptor)  # its holder removed the file between our two steps
    with ExitStack() as stack:
        # Undone from the last to the first: the file is removed while it is still locked. Closed first, it could be
        # another run's by then.
        stack.callback(os.close, descriptor)
        stack.callback(_unlink, path)
        with suppress(OSError):  # who holds it is a courtesy, for which a full disk may have no room
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _myself().encode())
        stack.enter_context(_renewed(path))
        lease = lease_path(out)
        if lease.is_dir() and not _is_stale(lease):  # of a machine that cannot lock files
            raise _busy(out, _lease_holder(lease))
        yield


def _open(path: Path, out: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        if path.is_symlink():
            raise OutputError(f"{path} is a link, expected a run's lock; remove it") from error
        raise OutputError(f"cannot write into {out.parent}: {error.strerror}; choose another folder") from error


def _try_lock(descriptor: int) -> bool:
    """Whether the lock was free; raises `OSError` where it cannot be told."""
    try:
        if os.name == "nt":
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


@contextmanager
def _leased(out: Path) -> Iterator[None]:
    """Hold an output's lease; raises `OutputError` where another run does."""
    lease = lease_path(out)
    if lease.is_symlink():
        raise OutputError(f"{lease} is a link, expected a run's lease; remove it")
    if not _make(lease, out):
        if not _is_stale(lease):
            raise _busy(out, _lease_holder(lease))
        _take_over(lease, out)
    token = secrets.token_hex(8)
    beat = lease / "holder.json"
    try:
        facts = {"host": socket.gethostname(), "process": os.getpid(), "time": time.time(), "token": token}
        with suppress(OSError):
            beat.write_text(json.dumps(facts), encoding="utf-8")
        # After the lease was made, as machines with locks look for a lease once they hold theirs: of two that begin at
        # the same time at least one sees the other.
        lock = lock_path(out)
        if _holder(lock) and not _is_old(lock, lease):  # of a machine that can lock files
            raise _busy(out, _holder(lock))
        with _renewed(beat):
            yield
    finally:
        if _facts(lease).get("token") in (token, None):  # else somebody took over while this machine was asleep
            shutil.rmtree(lease, ignore_errors=True)


def _make(lease: Path, out: Path) -> bool:
    """Make a lease's folder; false where it is there already."""
    try:
        lease.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"cannot write into {out.parent}: {error.strerror}; choose another folder") from error
    return True


def _take_over(lease: Path, out: Path) -> None:
    """Make a stale lease ours; of several that try at once one succeeds."""
    turn = lease.with_suffix(".takeover")
    if not _make(turn, out):
        if not _is_old(turn, lease.parent):
            raise _busy(out, "")
        with suppress(OSError):
            turn.rmdir()
        if not _make(turn, out):
            raise _busy(out, "")
    try:
        if lease.is_dir() and not _is_stale(lease):  # somebody was here before our turn
            raise _busy(out, _lease_holder(lease))
        shutil.rmtree(lease, ignore_errors=True)
        if not _make(lease, out):
            raise _busy(out, _lease_holder(lease))
    finally:
        with suppress(OSError):
            turn.rmdir()


def _is_stale(lease: Path) -> bool:
    """Whether nobody holds a lease any more: its process on this machine has ended, or it was not renewed."""
    facts = _facts(lease)
    process = facts.get("process")
    if os.name != "nt" and facts.get("host") == socket.gethostname() and isinstance(process, int):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    beat = lease / "holder.json"
    return _is_old(beat if beat.exists() else lease, lease.parent)


def _is_old(path: Path, folder: Path) -> bool:
    """Whether a file was last renewed `STALE_S` ago, by the clock of the file system and not by this machine's."""
    probe = folder / f".{secrets.token_hex(4)}.clock"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        return now - path.stat().st_mtime > STALE_S
    except FileNotFoundError:
        return True
    except OSError:
        return False
    finally:
        _unlink(probe)


@contextmanager
def _renewed(path: Path) -> Iterator[None]:
    """Touch a file every `RENEWED_S` seconds."""
    end = threading.Event()

    def renew() -> None:
        while not end.wait(RENEWED_S):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _facts(lease: Path) -> dict[str, object]:
    try:
        facts = json.loads((lease / "holder.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _lease_holder(lease: Path) -> str:
    facts = _facts(lease)
    return f"process {facts.get('process')} on {facts.get('host')}" if facts else ""


def _holder(lock: Path) -> str:
    """What the holder of a lock wrote into it; empty where there is none."""
    try:
        with lock.open("rb") as file:
            return file.read(200).decode(errors="replace").strip()
    except OSError:
        return ""


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _busy(out: Path, holder: str) -> OutputError:
    return OutputError(
        f"another run is writing {out}{f' ({holder})' if holder else ''}; wait for it, or choose another name"
    )
