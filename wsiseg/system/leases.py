"""A lease: a folder beside an output that its holder renews, so that runs on other machines keep away.

Making a folder either succeeds or finds it there, on every file system. Its holder writes into it who it is, and counts
on every `RENEWED_S` seconds. A lease may be taken over where its process has ended on this machine, or where nobody
counted on while another process watched it: for `STALE_S`, or for `WATCHED_S` where the file is as old as `STALE_S`
already. Nothing is decided by comparing the clocks of two machines, one of which may be an hour off: the watching is
measured by the watcher's own clock. A holder that was stopped, and taken over, notices before it writes again.
"""

from __future__ import annotations

import getpass
import glob
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from wsiseg.errors import LockedError, OutputError
from wsiseg.system.json_values import JsonObject
from wsiseg.system.printable import printable

RENEWED_S, STALE_S, WATCHED_S = 20.0, 300.0, 70.0

_HOLDER = "holder.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease.

    Attributes:
        host: name of the machine.
        process: number of the process.
        user: who runs it.
        begun: when it took the lease, in ISO 8601, by its own clock: for people.
        token: of this lease, unlike that of any other.
        place: the machine, since when it runs, and its list of processes; empty where the system does not say.
        started: what tells the process from a later one of the same number.
        beat: how often it was renewed.
        has_lock: whether it holds the file system's lock as well, see `wsiseg.system.locks`.
    """

    host: str = ""
    process: int = 0
    user: str = ""
    begun: str = ""
    token: str = ""
    place: str = ""
    started: str = ""
    beat: int = 0
    has_lock: bool = False

    @classmethod
    def myself(cls, *, has_lock: bool = False) -> Holder:
        """This process, with a new token."""
        return cls(
            socket.gethostname(), os.getpid(), _user(), datetime.now(UTC).isoformat(timespec="seconds"),
            secrets.token_hex(8), place(), _started(os.getpid()), has_lock=has_lock,
        )  # fmt: skip

    @classmethod
    def from_json(cls, found: object) -> Holder:
        """The holder as a lease states it; what is not there, or of another kind, stays empty."""
        if not isinstance(found, dict):
            return cls()
        known: JsonObject = {
            name: value
            for name, kind in (("process", int), ("beat", int), ("has_lock", bool), *((name, str) for name in _TEXTS))
            if isinstance(value := found.get(name), kind)
        }
        return cls(**known)

    @property
    def text(self) -> str:
        """For people: the process, its machine, its user and since when; empty where nobody stated anything."""
        if not self.process:
            return ""
        since = f", since {self.begun}" if self.begun else ""
        user = f" of {self.user}" if self.user else ""
        return printable(f"process {self.process} on {self.host}{user}{since}", 200)

    def has_ended(self) -> bool:
        """Whether the process is known to have ended: it ran on this machine, and is not there any more."""
        if not self.process or os.name == "nt" or self.host != socket.gethostname():
            return False
        if self.place and self.place != place():
            return False  # another container, or the machine was started anew: nothing can be told from numbers
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        now = _started(self.process)
        return now == "ended" or bool(self.started and now and now != self.started)


_TEXTS = ("host", "user", "begun", "token", "place", "started")


@cache
def place() -> str:
    """The machine, since when it runs, and the list in which a number means this process; empty off Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process started, as the system counts; "ended" for one that nobody has asked how it ended; else empty."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in "ZX" else fields[19]


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


@dataclass
class Watcher:
    """What this process has seen of the leases of others: how long, by its own clock, one was not renewed.

    Attributes:
        clock: seconds that only grow.
    """

    clock: Callable[[], float] = time.monotonic
    _seen: dict[Hashable, tuple[object, float, float]] = field(default_factory=dict)

    def unchanged_s(self, lease: Path) -> float:
        """Look at a lease that is a folder: seconds in which it was watched and not renewed; see `watched_s`."""
        return self.watched_s(lease, _sign(lease))

    def watched_s(self, lease: Hashable, sign: object) -> float:
        """Look at a lease, which has a new sign each time that it is renewed: seconds in which it was not.

        Between two looks no more than two renewals count: a watcher that was stopped itself, perhaps together with the
        holder, has not watched.
        """
        now = self.clock()
        before, looked, unchanged = self._seen.get(lease, (None, now, 0.0))
        unchanged = unchanged + min(now - looked, 2 * RENEWED_S) if sign == before else 0.0
        self._seen[lease] = (sign, now, unchanged)
        return unchanged


def _sign(lease: Path) -> object:
    """What changes whenever a lease is renewed."""
    holder = holder_of(lease)
    try:
        return holder.token, holder.beat, (lease / _HOLDER).stat().st_mtime_ns
    except OSError:
        return holder.token, holder.beat, None


def holder_of(lease: Path) -> Holder:
    """Who holds a lease; an empty one where it does not say."""
    for _ in range(3):
        try:
            return Holder.from_json(json.loads((lease / _HOLDER).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            break
        except OSError:  # a file on a network drive that was replaced while it was opened
            time.sleep(0.05)
    return Holder()


class Lease:
    """A lease that is held and renewed.

    Args:
        path: of its folder.
        out: the output that it is for, as messages name it.
        holder: this process, with the lease's token.
    """

    def __init__(self, path: Path, out: Path, holder: Holder) -> None:
        self.path, self.out, self._holder = path, out, holder
        self._ended = threading.Event()
        self._write(0)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `LockedError` where another process has taken the lease over, so that this one must not write."""
        found = holder_of(self.path)
        if found.token != self._holder.token and (found.token or not self.path.is_dir()):
            by = f" by {found.text}" if found.text else ""
            raise LockedError(
                f"{self.out} was taken over{by}, since this run was not heard of for a while; repeat the command to go "
                "on where that one ends"
            )

    def release(self) -> None:
        """Give the lease back, unless somebody else has it by now."""
        self._ended.set()
        self._thread.join()
        if holder_of(self.path).token not in (self._holder.token, ""):
            return
        gone = self.path.with_name(f"{self.path.name}.{self._holder.token}")
        with suppress(OSError):  # in one step: half a lease would keep others away
            self.path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _renew(self) -> None:
        beat = 0
        while not self._ended.wait(RENEWED_S):
            if holder_of(self.path).token not in (self._holder.token, ""):
                return  # taken over: it is another's now
            beat += 1
            self._write(beat)

    def _write(self, beat: int) -> None:
        """State the holder; under another name first, since on network drives a file is known by when it was opened."""
        facts = {**asdict(self._holder), "beat": beat}
        temporary = self.path / f"{self._holder.token}.partial"
        with suppress(OSError):  # a full disk has room for the folder, if not for the file
            temporary.write_text(json.dumps(facts), encoding="utf-8")
            temporary.replace(self.path / _HOLDER)


def take(
    lease: Path, out: Path, watcher: Watcher | None = None, *, has_lock: bool = False, alone: bool = False
) -> Lease:
    """Take a lease, also one that is stale.

    Args:
        lease: its folder.
        out: the output that it is for.
        watcher: remembers what it saw of leases that others hold; with one, nothing is waited for.
        has_lock: this process holds the file system's lock of the output.
        alone: so no other process that had the lock can hold the lease.

    Raises:
        LockedError: another run holds it.
        OutputError: its folder cannot be written.
    """
    if lease.is_symlink():
        raise OutputError(f"{lease} is a link, expected a run's lease; remove it")
    if not _make(lease, out):
        before = holder_of(lease)
        if not ((alone and _had_lock(lease, before)) or before.has_ended() or _is_stale(lease, watcher)):
            raise busy(out, before.text)
        _succeed(lease, out, before)
    _remove_rests(lease)
    return Lease(lease, out, Holder.myself(has_lock=has_lock))


def _had_lock(lease: Path, before: Holder) -> bool:
    """Whether a lease was one of a process with a lock; one that does not say belongs to nobody who lives."""
    return before.has_lock or (not before.token and watched(lease, 1.0))


def busy(out: Path, holder: str) -> LockedError:
    """The error of an output that another run is writing."""
    return LockedError(
        f"another run is writing {out}{f' ({holder})' if holder else ''}; wait for it, or choose another name; if its "
        f"machine is gone, `wsiseg unlock {out}`"
    )


def seems_held(lease: Path) -> bool:
    """Whether a lease is there that looks renewed: by a process of this machine that lives, or lately; never waits."""
    return lease.is_dir() and not holder_of(lease).has_ended() and _age_s(lease / _HOLDER) <= STALE_S


def _make(path: Path, out: Path) -> bool:
    """Make a folder; false where it is there already."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        if path.parent != out.parent and isinstance(error, FileNotFoundError):  # a lease that was given back meanwhile
            raise busy(out, "") from error
        raise OutputError(f"cannot write into {out.parent}: {error.strerror}; choose another folder") from error
    return True


def _succeed(lease: Path, out: Path, before: Holder) -> None:
    """Take over a stale lease; of several that try at once one succeeds, since one can make a folder of that name."""
    turn = lease / f"after-{before.token}"
    if not _make(turn, out):
        if _age_s(turn) <= STALE_S:
            raise busy(out, holder_of(lease).text)
        turn.touch()  # whoever made it was killed on the spot
    now = holder_of(lease)
    if (now.token, now.beat) != (before.token, before.beat):  # somebody was here before our turn
        with suppress(OSError):
            turn.rmdir()
        raise busy(out, now.text)
    with suppress(OSError):  # from here on the one before may not write, nor anybody else take this over
        (lease / _HOLDER).unlink()


def _remove_rests(lease: Path) -> None:
    """Take away what those before left who were killed while they took a lease, or gave it back."""
    for path in (*lease.glob("after-*"), *lease.glob("*.partial"), *lease.parent.glob(f"{glob.escape(lease.name)}.*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_stale(lease: Path, watcher: Watcher | None) -> bool:
    """Whether nobody renews a lease; without a watcher, one that looks old is watched now."""
    old = _age_s(lease / _HOLDER if (lease / _HOLDER).exists() else lease) > STALE_S
    needed = WATCHED_S if old else STALE_S
    if watcher is not None:
        return watcher.unchanged_s(lease) >= needed
    if not old:
        return False
    return watched(lease, WATCHED_S)


def watched(lease: Path, seconds: float) -> bool:
    """Watch a lease for so long; true where nobody renewed it, false as soon as somebody does."""
    watcher, sign = Watcher(), _sign(lease)
    while _sign(lease) == sign:
        if watcher.unchanged_s(lease) >= seconds:
            return True
        time.sleep(min(RENEWED_S, seconds) / 4)
    return False


def _age_s(path: Path) -> float:
    """How long ago a file was renewed, by the clock that its file system stamps with; 0 where that cannot be told."""
    probe = path.parent / f".{secrets.token_hex(4)}.clock"
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0
    finally:
        with suppress(OSError):
            probe.unlink()
