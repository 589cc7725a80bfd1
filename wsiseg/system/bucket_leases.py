"""A lease in an object store: an object that only one run can make and that its holder renews.

A store makes an object on condition that there is none (`If-None-Match: *`), and replaces it on condition that it is
still the same one (`If-Match`). So of several runs one makes the lease, and of several that take over a stale one, one
succeeds. Whether it is stale is told by watching it, with the watcher's own clock.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime

from wsiseg.errors import LockedError, OutputError
from wsiseg.system import leases
from wsiseg.system.bucket import BucketFolder, Entry
from wsiseg.system.leases import Holder, Watcher


def lease_key(name: str) -> str:
    """The object that a run holds while it writes an output of that name."""
    return hidden(name, "lease")


def hidden(name: str, ending: str) -> str:
    """A hidden name beside an output: `x/a.zarr` and "lease" give `x/.a.zarr.lease`."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}.{last}.{ending}"


class BucketLease:
    """A lease that is held and renewed.

    Args:
        folder: that it lies in.
        name: of the output.
        holder: this process, with the lease's token.
        e_tag: of the lease as it was made.
    """

    def __init__(self, folder: BucketFolder, name: str, holder: Holder, e_tag: str) -> None:
        self._folder, self._name, self._holder, self._e_tag = folder, name, holder, e_tag
        self._beat, self._renewed, self._lost = 0, time.monotonic(), False
        self._ended, self._turn = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `LockedError` where another run has taken the lease over; asks where it was not renewed lately."""
        if not self._lost and time.monotonic() - self._renewed > 2 * leases.RENEWED_S:
            self._write()
        if self._lost:
            raise LockedError(
                f"{self._folder.address(self._name)} was taken over by another run, since this one was not heard of "
                "for a while; repeat the command to go on where that one ends"
            )

    def release(self) -> None:
        """Give the lease back, unless somebody else has it by now; where the store is away, it goes stale."""
        self._ended.set()
        self._thread.join()
        with suppress(OutputError):
            found = _read(self._folder, lease_key(self._name))
            if found is not None and found[0].token == self._holder.token:
                self._folder.remove([lease_key(self._name)])

    def _renew(self) -> None:
        while not (self._lost or self._ended.wait(leases.RENEWED_S)):
            with suppress(OutputError):  # tried again; `check` tells
                self._write()

    def _write(self) -> None:
        with self._turn:
            self._beat += 1
            key = lease_key(self._name)
            made = self._folder.replace(key, _content(self._holder, self._beat), self._e_tag)
            if made is None:  # another's by now; or ours, put by a request whose answer was lost
                found = _read(self._folder, key)
                if found is None or found[0].token != self._holder.token:
                    self._lost = True
                    return
                made = found[1].e_tag
            self._e_tag, self._renewed = made, time.monotonic()


@contextmanager
def held(folder: BucketFolder, name: str, watcher: Watcher | None = None) -> Iterator[BucketLease]:
    """Hold an output of a bucket; where the process is killed, the lease goes stale.

    Args:
        folder: of the output.
        name: of the output in it.
        watcher: remembers what it saw of others' leases; without one, a lease that looks old is watched now.

    Raises:
        LockedError: another run holds it.
        OutputError: the store does not let it be written.
    """
    key, mine = lease_key(name), Holder.myself()
    e_tag = folder.create(key, _content(mine, 0))
    if e_tag is None:
        e_tag = _taken_over(folder, name, mine, watcher)
    lease = BucketLease(folder, name, mine, e_tag)
    try:
        yield lease
    finally:
        lease.release()


def _taken_over(folder: BucketFolder, name: str, mine: Holder, watcher: Watcher | None) -> str:
    key = lease_key(name)
    found = _read(folder, key)
    if found is None:
        made = folder.create(key, _content(mine, 0))
    elif found[0].token == mine.token:  # put by a request whose answer was lost
        made = found[1].e_tag
    elif found[0].has_ended() or is_stale(folder, found[1], watcher):
        made = folder.replace(key, _content(mine, 0), found[1].e_tag)
    else:
        made = None
    if made is None:
        text = found[0].text if found else ""
        out = folder.address(name)
        raise LockedError(
            f"another run is writing {out}{f' ({text})' if text else ''}; wait for it, or choose another name; if its "
            f"machine is gone, `wsiseg unlock {out}`"
        )
    return made


def is_stale(folder: BucketFolder, lease: Entry, watcher: Watcher | None) -> bool:
    """Whether nobody renews a lease; without a watcher, one that looks old is watched now."""
    # The store's clock and ours are compared only to tell how long to watch: three renewals at the least.
    old = (datetime.now(UTC) - lease.modified).total_seconds() > leases.STALE_S
    if watcher is not None:
        return watcher.watched_s(lease.key, lease.e_tag) >= (leases.WATCHED_S if old else leases.STALE_S)
    return old and watched(folder, lease)


def watched(folder: BucketFolder, lease: Entry) -> bool:
    """Watch a lease for `leases.WATCHED_S`; true where nobody renewed it, false as soon as somebody does."""
    watcher = Watcher()
    while watcher.watched_s(lease.key, lease.e_tag) < leases.WATCHED_S:
        time.sleep(leases.RENEWED_S / 4)
        found = folder.get(lease.key)
        if found is None or found[1].e_tag != lease.e_tag:
            return False
    return True


def lease_of(folder: BucketFolder, name: str) -> tuple[Holder, Entry] | None:
    """Who holds an output; None where nobody does."""
    return _read(folder, lease_key(name))


def seems_held(found: tuple[Holder, Entry] | None) -> bool:
    """Whether a lease looks renewed: by a process of this machine that lives, or lately by our clock; never waits."""
    if found is None or found[0].has_ended():
        return False
    return (datetime.now(UTC) - found[1].modified).total_seconds() <= leases.STALE_S


def _read(folder: BucketFolder, key: str) -> tuple[Holder, Entry] | None:
    found = folder.get(key)
    if found is None:
        return None
    try:
        return Holder.from_json(json.loads(found[0])), found[1]
    except ValueError:
        return Holder(), found[1]


def _content(holder: Holder, beat: int) -> bytes:
    return json.dumps({**asdict(holder), "beat": beat}).encode()
