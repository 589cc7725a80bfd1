"""`--log FILE`: what a run did and when, a line of JSON an event, for programs and for the day after.

Every line has a time (UTC) and an event's name, and is on its way to the disk before the run continues: a run that is
killed leaves all but the last. See `docs/running.md` for the events.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from wsiseg.errors import OutputError, WsisegError
from wsiseg.system.addresses import without_secrets
from wsiseg.system.files import refuse_address

if TYPE_CHECKING:
    from wsiseg.cli.time_left import TimeLeft
    from wsiseg.prediction.result import Prediction

PROGRESS_S = 1.0
"""At most one line of progress in this time."""


class RunLog:
    """The log of one run.

    Args:
        path: of the file, which is appended to; None keeps no log.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: IO[str] | None = None
        self._phase, self._since = "", 0.0
        self._told = (0.0, -1)
        self._resumed = False
        if path is None:
            return
        refuse_address(path)
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1)
            if _cut(path):
                self._file.write("\n")
        except OSError as error:
            raise OutputError(f"cannot write the log {path}: {error.strerror}; name another file") from error

    def event(self, name: str, **values: Any) -> None:
        """Write a line. A log that can no longer be written ends, and says so; the run continues."""
        if self._file is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            self._file.write(json.dumps({"time": now, "event": name, **values}, default=str) + "\n")
        except OSError as error:
            self._file = None
            click.echo(f"wsiseg: the log ends here: {error.strerror}", err=True)

    def progress(self, phase: str, done: int, total: int, left: TimeLeft) -> None:
        """Begin and end of phases, and how far they are: at most once a second and once a percent."""
        if phase == "plan":
            return
        now = time.monotonic()
        if phase != self._phase:
            self.end_phase()
            self._phase, self._since, self._told = phase, now, (now, -1)
            self.event("begin", phase=phase)
            if phase in ("gate", "tiles") and done:
                self.resumed(done / total)
        percent = 100 * done // max(1, total)
        if now - self._told[0] >= PROGRESS_S and percent > self._told[1]:
            self._told = (now, percent)
            seconds = left.seconds()
            rounded = None if seconds is None else round(seconds, 1)
            self.event("progress", phase=phase, done=done, total=total, seconds_left=rounded)

    def end_phase(self) -> None:
        """Log the end of the phase that is under way, with its seconds."""
        if self._phase:
            self.event("end", phase=self._phase, seconds=round(time.monotonic() - self._since, 3))
            self._phase = ""

    def next_slide(self, slide: str) -> None:
        """Log that another slide begins; what follows is about that one."""
        self._resumed = False
        self.event("slide", slide=without_secrets(slide))

    def resumed(self, share: float) -> None:
        """An earlier run had done a share of the patches; told once."""
        if share and not self._resumed:
            self._resumed = True
            self.event("resumed", share=round(share, 4))

    def finished(self, result: Prediction) -> None:
        """Log a slide's result: damage, notes, areas and times."""
        self.end_phase()
        self.resumed(result.resumed)
        if result.damage.tiles:
            self.event("damage", tiles=result.damage.tiles, area_mm2=result.damage.area_mm2)
        for note in result.notes:
            self.event("note", text=note)
        self.event(
            "finished",
            map=str(result.map_path),
            geojson=None if result.geojson_path is None else str(result.geojson_path),
            areas_mm2={area.name: area.area_mm2 for area in result.areas},
            tissue_mm2=result.tissue_mm2,
            white_mm2=result.white_mm2,
            unread_mm2=result.unread_mm2,
            patches=result.counts.read,
            seconds={name: round(value, 3) for name, value in result.seconds.items()},
            waited_s=round(result.waited_s, 3),
            **used(),
        )


def _cut(path: Path) -> bool:
    """Whether a file ends within a line, as that of a run that was killed may."""
    if not path.is_file():  # a device, which may have no end
        return False
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - 1))
        return file.read(1) not in (b"", b"\n")


@contextmanager
def run_log(path: Path | None, **start: Any) -> Iterator[RunLog]:
    """The log of a run: what it was asked first, an error last where it ends with one.

    Args:
        path: see `RunLog`.
        **start: slide, output, model and options.
    """
    log = RunLog(path)
    if path is not None:
        from wsiseg.system.versions import software

        log.event("start", **start, versions=software())
    try:
        yield log
    except WsisegError as error:
        _failed(log, error, str(error), 2)
        raise
    except click.ClickException as error:
        _failed(log, error, error.format_message(), 2)
        raise
    except (KeyboardInterrupt, click.Abort) as error:
        _failed(log, error, "interrupted", 130)
        raise
    except BaseException as error:
        _failed(log, error, str(error), 1)
        raise


def _failed(log: RunLog, error: BaseException, message: str, code: int) -> None:
    log.end_phase()
    log.event("error", kind=type(error).__name__, message=" ".join(message.split()), exit_code=code, **used())


def used() -> dict[str, int | None]:
    """Most memory that was taken, and bytes read and written, None where the system does not tell."""
    found: dict[str, int | None] = {"peak_memory": None, "bytes_read": None, "bytes_written": None}
    try:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["peak_memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    except ImportError:  # Windows
        pass
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return found
    counted = dict(line.split(": ") for line in lines)
    return {**found, "bytes_read": int(counted["rchar"]), "bytes_written": int(counted["wchar"])}
