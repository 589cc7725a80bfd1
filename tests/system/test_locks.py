"""One run at a time, with locks of the file system and without."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsiseg.errors import OutputError
from wsiseg.system.locks import STALE_S, lease_path, lock_path, locked

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
def test_a_lease_of_another_machine_goes_stale(tmp_path: Path, age_s: float, free: bool) -> None:
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
