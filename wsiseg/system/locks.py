"""One run at a time writes an output: it holds a lease and, where the file system has them, a lock.

A lock ends with its process, however that ends, so it is asked first and tells at once that nobody else on this machine
writes. Beyond this machine it tells nothing: a network drive may have locks that each machine keeps to itself (NFS
mounted `nolock`), or none at all. There the lease decides, see `wsiseg.system.leases`.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wsiseg.errors import OutputError
from wsiseg.system import leases
from wsiseg.system.files import cannot_write
from wsiseg.system.leases import Holder, Lease, Watcher, busy, holder_of, take, watched

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What file systems say that have no locks; Lustre's default is ENOSYS."""

_LOCAL = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "ntfs3", "overlay", "ramfs", "tmpfs", "vfat", "xfs", "zfs"}
"""File systems of one machine, where a lock is proof enough."""


def lock_path(out: Path) -> Path:
    """The file that a run locks while it writes `out`."""
    return out.parent / f".{out.name}.lock"


def lease_path(out: Path) -> Path:
    """The folder that a run holds meanwhile."""
    return out.parent / f".{out.name}.lease"


@contextmanager
def locked(out: Path, watcher: Watcher | None = None) -> Iterator[Lease]:
    """Hold an output; where the process ends, however it does, it is released or goes stale.

    Args:
        out: what is about to be written.
        watcher: remembers what it saw of others' leases, so that nothing is waited for; without one, a lease that looks
            stale is watched now, for up to `wsiseg.system.leases.WATCHED_S`.

    Returns:
        The lease; its `check` tells whether it is still held.

    Raises:
        LockedError: another run holds it.
        OutputError: its folder cannot be written.
    """
    with ExitStack() as stack:
        has_lock = _lock(out, stack)
        alone = has_lock and _on_local_disk(out.parent)
        lease = take(lease_path(out), out, watcher, has_lock=has_lock, alone=alone)
        stack.callback(lease.release)
        yield lease


def _lock(out: Path, stack: ExitStack) -> bool:
    """Lock an output's file until the stack is unwound; false where the file system has no locks."""
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
            return False
        if not free:
            holder = _holder(path)
            os.close(descriptor)
            raise busy(out, holder)
        with suppress(OSError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        os.close(descriptor)  # its holder removed the file between our two steps
    # Undone from the last to the first: the file is removed while it is still locked. Closed first, it could be
    # another run's by then.
    stack.callback(os.close, descriptor)
    stack.callback(_unlink, path)
    with suppress(OSError):  # who holds it is a courtesy, for which a full disk may have no room
        os.ftruncate(descriptor, 0)
        os.write(descriptor, Holder.myself().text.encode())
    return True


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


def is_locked(out: Path) -> bool:
    """Whether a process of this machine holds the lock of an output; false also where the file system has none."""
    path = lock_path(out)
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        return not _try_lock(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def what_is_locked(path: Path) -> list[Path]:
    """The outputs that somebody holds, or held when it was killed: a path itself, or what lies in a folder."""
    if lock_path(path).exists() or lease_path(path).exists():
        return [path]
    if not path.is_dir():
        return []
    names = {
        found.with_name(found.name[1 : -len(ending)])
        for ending in (".lease", ".lock")
        for found in path.glob(f"**/.*{ending}")
    }
    return sorted(names)


def unlock(out: Path, *, force: bool = False) -> tuple[str, bool]:
    """Free an output whose run is gone.

    Args:
        out: the output.
        force: do not watch for a sign of life. Even then a run of this machine that lives keeps its lock.

    Returns:
        Who held it, for people, and whether it is free now.

    Raises:
        OutputError: it cannot be freed.
    """
    lease = lease_path(out)
    holder = holder_of(lease)
    said = holder.text or _holder(lock_path(out))
    if is_locked(out):
        return said, False
    if lease.is_dir():
        if not (force or holder.has_ended() or watched(lease, leases.WATCHED_S)):
            return said, False
        with cannot_write(lease):
            shutil.rmtree(lease)
    _unlink(lock_path(out))
    return said, True


def _on_local_disk(folder: Path) -> bool:
    """Whether no other machine can write into a folder, as far as the system says (Linux)."""
    try:
        device = folder.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, AttributeError):
        return False
    for fields in map(str.split, mounts):
        if fields[2] == wanted and "-" in fields:
            return fields[fields.index("-") + 1] in _LOCAL
    return False


def _holder(lock: Path) -> str:
    """What the holder of a lock wrote into it; empty where there is none."""
    try:
        with lock.open("rb") as file:
            return file.read(200).decode(errors="replace").strip()
    except OSError:
        return ""


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
