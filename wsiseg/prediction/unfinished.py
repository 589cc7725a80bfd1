"""A run that may die: its unfinished store, and the lock that keeps a second run away.

Beside an output `map.zarr` a run keeps the folder `.map.zarr.unfinished`: the store under its own name, its journal,
and scratch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from wsiseg.errors import LockedError, OutputError
from wsiseg.geojson.write import SUFFIXES
from wsiseg.prediction.journal import Fingerprint, Journal, read_journal
from wsiseg.system.files import cannot_write, check_file, check_map, is_tissue_map, retired_name
from wsiseg.system.leases import Lease
from wsiseg.system.locks import lease_path, lock_path, locked

RECORDED = ("threads", "processor")
"""What of a fingerprint may change while a run is resumed: last bits depend on it, and the map records it."""


class UnfinishedRun:
    """The folder of a run that is under way or was cut short.

    Attributes:
        out: the final name of the store.
        folder: beside it.
        store: the unfinished store.
        journal: what is done.
        resumed: whether an earlier run had begun it.
    """

    def __init__(self, out: Path, fingerprint: Fingerprint, held: Lease) -> None:
        self.out = out
        self.folder = unfinished_folder(out)
        self.store = self.folder / out.name
        self.scratch = self.folder / "scratch"
        with cannot_write(self.folder):
            self.scratch.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.folder / "journal.jsonl", fingerprint, held.check)
        self.resumed = bool(self.journal.steps)
        for cut in self.folder.rglob("*.partial"):  # what a kill left of a file that was being written
            cut.unlink(missing_ok=True)

    @property
    def committed(self) -> bool:
        """Whether the store has its final name already, so that only what is made from it may be missing."""
        return bool(self.journal.of("commit")) and not self.store.exists() and self.out.is_dir()

    def remove(self) -> None:
        """Forget the run: it is finished, or nothing of it is worth keeping.

        The journal goes last, so that a kill on the way leaves a run that can be gone on with.
        """
        self.journal.close()
        with suppress(OSError):
            for entry in list(self.folder.iterdir()):
                if entry != self.journal.path:
                    _remove(entry)
            self.journal.path.unlink(missing_ok=True)
            self.folder.rmdir()


def unfinished_folder(out: Path) -> Path:
    """Where a run that writes `out` keeps what it has."""
    return out.parent / f".{out.name}.unfinished"


def pending_commit(out: Path) -> bool:
    """Whether a run gave `out` its name and was cut short before all that belongs to it was written."""
    folder = unfinished_folder(out)
    _, steps, _ = read_journal(folder / "journal.jsonl")
    named = any(step.get("step") == "commit" for step in steps)
    return named and out.is_dir() and not (folder / out.name).exists()


def begun_drawing(out: Path, geojson: Path) -> bool:
    """Whether the unfinished run of `out` had begun to write these polygons, so that those on the disk are its own."""
    _, steps, _ = read_journal(unfinished_folder(out) / "journal.jsonl")
    return any(step.get("step") == "vectors" and step.get("file") == str(geojson.absolute()) for step in steps)


@contextmanager
def unfinished_run(
    out: Path, fingerprint: Fingerprint, *, restart: bool = False, held: Lease | None = None
) -> Iterator[UnfinishedRun]:
    """Begin a run that writes `out`, or go on with one that was cut short; a second one at the same time is refused.

    Left with an error, what was journaled is kept; where nothing was, nothing is left.

    Args:
        out: the final name of the store.
        fingerprint: of this run.
        restart: forget an earlier run instead of going on with it.
        held: the lease of the output, where the caller holds it already.

    Raises:
        OutputError: another run is writing the same output, or an earlier one began it with another slide, model or
            parameter, which is named; or the folder cannot be written.
    """
    with locked(out) if held is None else nullcontext(held) as lease:
        folder = unfinished_folder(out)
        refuse_links(folder)
        before = None if restart else read_journal(folder / "journal.jsonl")[0]
        if before is None:  # nothing that could be gone on with
            _give_back_retired(out)  # first: what it gives back lies in that folder
            _remove(folder)
            if folder.exists():
                raise OutputError(f"cannot remove {folder}; remove it, or choose another name")
        else:
            _require_same(out, before, fingerprint)
        run = UnfinishedRun(out, fingerprint, lease)
        try:
            yield run
        except LockedError:  # what lies there is another run's by now
            run.journal.close()
            raise
        except BaseException:  # an interrupt as well
            if run.journal.steps:
                run.journal.close()
            else:
                run.remove()
            raise
        run.remove()


def refuse_links(folder: Path) -> None:
    """Raise `OutputError` where an unfinished run's folder is a link or holds one: it could lead out of there."""
    found = [folder] if folder.is_symlink() else []
    if not found and folder.is_dir():
        found = [path for path in folder.rglob("*") if path.is_symlink()]
    if found:
        raise OutputError(f"{found[0]} is a link, which an unfinished run has none of; remove {folder} and begin anew")


def _give_back_retired(out: Path) -> None:
    """Return a map that was about to be replaced when its run was killed between two renames."""
    retired = retired_name(unfinished_folder(out) / out.name)
    if retired.is_dir() and not out.exists():
        with cannot_write(out):
            retired.rename(out)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _require_same(out: Path, before: Fingerprint, now: Fingerprint) -> None:
    now = json.loads(json.dumps(dict(now)))
    for name in [*now, *before]:
        if name not in RECORDED and before.get(name) != now.get(name):
            raise OutputError(
                f"an unfinished run into {out} had {name} {_shown(before.get(name))}, this one has "
                f"{_shown(now.get(name))}; repeat its command to go on, or begin anew with --restart"
            )


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:12] + "…"


def check_outputs(out: Path, geojson: str | Path | None, *, overwrite: bool, restart: bool = False) -> None:
    """Refuse outputs that could not be written, before any work; those of a run that was cut short are its own.

    Raises:
        OptionError, OutputError: see `check_map` and `check_file`.
    """
    going_on = not restart and pending_commit(out)
    if out.exists() and not going_on:
        _tidy(out)
    replaceable = overwrite or going_on
    if geojson is not None and not replaceable and is_tissue_map(out) and not Path(geojson).exists():
        raise OutputError(
            f"{out} exists; draw its polygons with `wsiseg export {out} --geojson {geojson}`, or replace it with "
            "--overwrite"
        )
    check_map(out, replaceable)
    if geojson is not None:
        check_file(Path(geojson), SUFFIXES, overwrite or (going_on and begun_drawing(out, Path(geojson))))


def _tidy(out: Path) -> None:
    """Take away what a run leaves that was killed in its very last steps: an empty folder and a lock."""
    folder = unfinished_folder(out)
    if folder.is_dir() or lock_path(out).exists() or lease_path(out).exists():
        with suppress(OutputError), locked(out), suppress(OSError):
            folder.rmdir()
