"""One run at a time, with locks of the file system and without."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsiseg.errors import LockedError, OutputError
from wsiseg.system.leases import RENEWED_S, STALE_S, Watcher
from wsiseg.system.locks import lease_path, lock_path, locked

fcntl = pytest.importorskip("fcntl")

HOLD = """
import errno, fcntl, sys
from pathlib import Path
from wsiseg.system.locks import locked
def refuse(*_): raise OSError(errno.ENOSYS, "Function not implemented")
if sys.argv[2] == "none": fcntl.flock = refuse
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(out: Path, locks: str) -> subprocess.Popen[str]:
    """Another process that holds the output until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out), locks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture(params=[errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_lease_is_held_and_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "map.zarr"
    with locked(out):
        facts = json.loads((lease_path(out) / "holder.json").read_text())
        assert facts["process"] == os.getpid()
        assert facts["host"]
        assert not lock_path(out).exists()
        with pytest.raises(OutputError, match=f"another run is writing .*process {os.getpid()}"), locked(out):
            pass
        assert lease_path(out).is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("theirs", "ours"), [("flock", "flock"), ("flock", "none"), ("none", "flock")])
def test_two_processes_keep_each_other_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str, ours: str
) -> None:
    out = tmp_path / "map.zarr"
    process = holder(out, theirs)
    try:
        if ours == "none":

            def refuse(*_: object) -> None:
                raise OSError(errno.ENOSYS, "Function not implemented")

            monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(OutputError, match=f"another run is writing .*process {process.pid}"), locked(out):
            pass
    finally:
        process.communicate("\n")
    with locked(out):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_locks")
def test_a_lease_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    out = tmp_path / "map.zarr"
    process = holder(out, "none")
    process.kill()
    process.wait()
    assert lease_path(out).is_dir()
    with locked(out):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(("age_s", "free"), [(STALE_S / 2, False), (STALE_S + 10, True)])
def test_a_lease_of_another_machine_goes_stale(
    tmp_path: Path, age_s: float, free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsiseg.system.leases.WATCHED_S", 0.5)
    out = tmp_path / "map.zarr"
    lease_path(out).mkdir()
    beat = lease_path(out) / "holder.json"
    beat.write_text(json.dumps({"host": "elsewhere.example", "process": 1, "time": 0, "token": "a"}))
    then = tmp_path.stat().st_mtime - age_s
    os.utime(beat, (then, then))
    if free:
        with locked(out):
            assert json.loads(beat.read_text())["process"] == os.getpid()
        assert not lease_path(out).exists()
    else:
        with pytest.raises(OutputError, match=r"process 1 on elsewhere\.example"), locked(out):
            pass
        assert beat.exists()


def test_other_errors_of_locking_are_told_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputError, match="cannot lock"), locked(tmp_path / "map.zarr"):
        pass
    assert list(tmp_path.iterdir()) == []


ELSEWHERE = """
import fcntl, os, socket, sys, time
from pathlib import Path
from wsiseg.errors import LockedError
from wsiseg.system import leases, locks
host, skew = sys.argv[2], float(sys.argv[3])
socket.gethostname = lambda: host
fcntl.flock = lambda *_: None  # a network drive that each machine locks for itself
locks._on_local_disk = lambda _: False
leases.RENEWED_S, leases.STALE_S, leases.WATCHED_S = 0.1, 2.0, 1.0
write = leases.Lease._write
def stamped(self, beat):
    write(self, beat)
    os.utime(self.path / "holder.json", (time.time() + skew,) * 2)
leases.Lease._write = stamped  # a file system that stamps with the clocks of its clients
with locks.locked(Path(sys.argv[1])) as lease:
    print("held", flush=True)
    while line := sys.stdin.readline():
        try:
            lease.check()
            print("still", flush=True)
        except LockedError as error:
            print(error, flush=True)
            break
"""


class Node:
    """A process on another machine, as far as anybody can tell, whose clock is off by so many seconds."""

    def __init__(self, out: Path, host: str, skew_s: float = 0.0) -> None:
        command = [sys.executable, "-c", ELSEWHERE, str(out), host, str(skew_s)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def asked(self) -> str:
        """What it says when it looks after its lease."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process on the same network drive; leases go stale within seconds."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr("wsiseg.system.locks._on_local_disk", lambda _: False)
    for name, seconds in (("RENEWED_S", 0.1), ("STALE_S", 2.0), ("WATCHED_S", 1.0)):
        monkeypatch.setattr(f"wsiseg.system.leases.{name}", seconds)


def taken(out: Path, watcher: Watcher) -> bool:
    """Whether the output is free for this process now."""
    try:
        with locked(out, watcher):
            return True
    except LockedError:
        return False


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("skew_s", [0.0, -3600.0, 3600.0])
def test_where_locks_exclude_nothing_the_lease_does_whatever_the_clocks_say(tmp_path: Path, skew_s: float) -> None:
    out, watcher = tmp_path / "map.zarr", Watcher()
    node = Node(out, "node7", skew_s)
    until = time.monotonic() + 4  # twice as long as a lease lasts that nobody renews
    while time.monotonic() < until:
        assert not taken(out, watcher)
        time.sleep(0.1)
    with pytest.raises(LockedError, match=rf"process {node.process.pid} on node7.*wsiseg unlock"), locked(out):
        pass
    assert node.asked() == "still\n"
    node.process.kill()
    node.process.communicate()
    begun = time.monotonic()
    while not taken(out, watcher):
        time.sleep(0.1)
    assert 0.5 < time.monotonic() - begun < 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_who_was_stopped_and_taken_over_notices_and_takes_nothing_away(tmp_path: Path) -> None:
    out, watcher = tmp_path / "map.zarr", Watcher()
    node = Node(out, "node7")
    node.process.send_signal(signal.SIGSTOP)
    while not taken(out, watcher):
        time.sleep(0.1)
    with locked(out, watcher) as ours:
        node.process.send_signal(signal.SIGCONT)
        assert f"taken over by process {os.getpid()}" in node.asked()
        node.end()
        ours.check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_of_many_that_take_over_a_dead_lease_one_gets_it(tmp_path: Path) -> None:
    out = tmp_path / "map.zarr"
    node = Node(out, "node7")
    node.process.kill()
    node.process.communicate()
    code = ELSEWHERE.replace(
        "with locks.locked(Path(sys.argv[1])) as lease:",
        """watcher, kept = leases.Watcher(), []
def take():
    while True:
        try:
            kept.append(locks.locked(Path(sys.argv[1]), watcher))  # else collected, and released with that
            return kept[-1].__enter__()
        except LockedError:
            time.sleep(0.02)
            if Path(sys.argv[4]).exists(): sys.exit()
if lease := take():
    with open(sys.argv[4], "x"): pass""",
    )
    command = [sys.executable, "-c", code, str(out)]
    nodes = [
        subprocess.Popen(
            [*command, f"node{n}", "0", str(tmp_path / "won")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    said = [node.communicate("?\n")[0] for node in nodes]
    assert sorted(said) == ["", "", "", "held\nstill\n"]


def test_a_watcher_that_was_stopped_itself_has_not_watched(tmp_path: Path) -> None:
    now = [0.0]
    watcher, lease = Watcher(lambda: now[0]), tmp_path / "lease"
    lease.mkdir()
    assert watcher.unchanged_s(lease) == 0
    now[0] = 3600.0
    assert watcher.unchanged_s(lease) == 2 * RENEWED_S
    (lease / "holder.json").write_text('{"token": "a", "beat": 1}')
    assert watcher.unchanged_s(lease) == 0
