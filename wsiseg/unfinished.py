"""A run that may die: its unfinished store, and the lock that keeps a second run away.

Beside an output `map.zarr` a run keeps the folder `.map.zarr.unfinished`: the store under its own name, its journal,
and scratch.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wsiseg.errors import OutputError
from wsiseg.geojson import SUFFIXES
from wsiseg.journal import Fingerprint, Journal, read_journal
from wsiseg.outputs import check_file, check_map


class UnfinishedRun:
    """The folder of a run that is under way or was cut short.

    Attributes:
        out: the final name of the store.
        folder: beside it.
        store: the unfinished store.
        journal: what is done.
        resumed: whether an earlier run had begun it.
    """

    def __init__(self, out: Path, fingerprint: Fingerprint) -> None:
        self.out = out
        self.folder = unfinished_folder(out)
        self.store = self.folder / out.name
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.folder / "journal.jsonl", fingerprint)
        self.resumed = bool(self.journal.steps)

    @property
    def committed(self) -> bool:
        """Whether the store has its final name already, so that only what is made from it may be missing."""
        return bool(self.journal.of("commit")) and not self.store.exists() and self.out.is_dir()

    def remove(self) -> None:
        """Forget the run: it is finished, or nothing of it is worth keeping."""
        self.journal.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def unfinished_folder(out: Path) -> Path:
    """Where a run that writes `out` keeps what it has."""
    return out.parent / f".{out.name}.unfinished"


def pending_commit(out: Path) -> bool:
    """Whether a run gave `out` its name and was cut short before all that belongs to it was written."""
    folder = unfinished_folder(out)
    _, steps, _ = read_journal(folder / "journal.jsonl")
    named = any(step.get("step") == "commit" for step in steps)
    return named and out.is_dir() and not (folder / out.name).exists()


def begun_drawing(out: Path) -> bool:
    """Whether that run had begun to write polygons, so that those that are there are its own."""
    _, steps, _ = read_journal(unfinished_folder(out) / "journal.jsonl")
    return any(step.get("step") == "vectors" for step in steps)


@contextmanager
def unfinished_run(out: Path, fingerprint: Fingerprint, *, restart: bool = False) -> Iterator[UnfinishedRun]:
    """Begin a run that writes `out`, or go on with one that was cut short; a second one at the same time is refused.

    Left with an error, what was journaled is kept; where nothing was, nothing is left.

    Args:
        out: the final name of the store.
        fingerprint: of this run.
        restart: forget an earlier run instead of going on with it.

    Raises:
        OutputError: another run is writing the same output, or an earlier one began it with another slide, model or
            parameter, which is named; or the folder cannot be written.
    """
    with _locked(out):
        folder = unfinished_folder(out)
        if folder.is_symlink():
            raise OutputError(f"{folder} is a link, expected the folder of an unfinished run; remove it")
        if restart:
            shutil.rmtree(folder, ignore_errors=True)
        before = read_journal(folder / "journal.jsonl")[0]
        if before is None:
            shutil.rmtree(folder, ignore_errors=True)  # nothing that could be gone on with
        else:
            _require_same(out, before, fingerprint)
        try:
            run = UnfinishedRun(out, fingerprint)
        except OSError as error:
            raise OutputError(f"cannot write into {out.parent}: {error.strerror}; choose another folder") from error
        try:
            yield run
        except BaseException:  # an interrupt as well
            if run.journal.steps:
                run.journal.close()
            else:
                run.remove()
            raise
        run.remove()


def _require_same(out: Path, before: Fingerprint, now: Fingerprint) -> None:
    now = json.loads(json.dumps(dict(now)))
    for name in [*now, *before]:
        if before.get(name) != now.get(name):
            raise OutputError(
                f"an unfinished run into {out} had {name} {_shown(before.get(name))}, this one has "
                f"{_shown(now.get(name))}; repeat its command to go on, or begin anew with --restart"
            )


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:12] + "…"


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the lock of an output; the system releases it when the process ends, however it does."""
    path = out.parent / f".{out.name}.lock"
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            raise OutputError(f"cannot write into {out.parent}: {error.strerror}; choose another folder") from error
        if not _try_lock(descriptor):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() if hasattr(os, "pread") else ""
            os.close(descriptor)
            raise OutputError(
                f"another run is writing {out}{f' ({holder})' if holder else ''}; wait for it, or choose another name"
            )
        with suppress(OSError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        os.close(descriptor)  # its holder removed the file between our two steps
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def check_outputs(out: Path, geojson: str | Path | None, *, overwrite: bool, restart: bool = False) -> None:
    """Refuse outputs that could not be written, before any work; those of a run that was cut short are its own.

    Raises:
        OptionError, OutputError: see `check_map` and `check_file`.
    """
    going_on = not restart and pending_commit(out)
    check_map(out, overwrite or going_on)
    if geojson is not None:
        check_file(Path(geojson), SUFFIXES, overwrite or (going_on and begun_drawing(out)))
