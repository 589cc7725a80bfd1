"""A training of what was labelled, in a process of its own, so that labelling goes on meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsiseg.errors import OptionError
from wsiseg.system.files import cannot_write

END_S = 20.0
_TAIL = 4000


@dataclass(frozen=True, slots=True)
class TrainingState:
    """How a training goes.

    Attributes:
        phase: "none" was started, "running", "done" or "failed".
        model: name of the model's folder.
        said: the last line it said.
        command: what was run, to be repeated in a terminal.
    """

    phase: Literal["none", "running", "done", "failed"]
    model: str
    said: str
    command: str


class Training:
    """Starts `wsiseg train`, one at a time. Its folder of models is beside the data set.

    Args:
        root: the data set.
        options: of `wsiseg train`, beyond the data set and `--out`.
    """

    def __init__(self, root: Path, options: Sequence[str] = ()) -> None:
        self._root = root
        self._options = list(options)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._model = Path()
        self._log = Path()

    def start(self) -> None:
        """Start one.

        Raises:
            OptionError: one is running.
            OutputError: its log cannot be written.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                raise OptionError(f"a training is running already, {self._model.name}")
            self._model = self._free_name()
            self._log = self._root / "labelling" / f"{self._model.name}.log"
            with cannot_write(self._log), self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "wsiseg", "train", str(self._root)),
            *("--out", str(self._model), *self._options),
        ]

    def _free_name(self) -> Path:
        number = 1
        while (path := self._root.with_name(f"{self._root.name}-model-{number}")).exists():
            number += 1
        return path

    def state(self) -> TrainingState:
        """How it goes."""
        with self._lock:
            if self._process is None:
                return TrainingState("none", "", "", "")
            code = self._process.poll()
            phase: Literal["running", "done", "failed"] = (
                "running" if code is None else "done" if code == 0 else "failed"
            )
            command = f"wsiseg train {self._root.name} --out {self._model.name} {' '.join(self._options)}".strip()
            return TrainingState(phase, self._model.name, _last_line(self._log), command)

    def close(self) -> None:
        """End a training that runs; what it did is kept, `wsiseg train --resume` goes on with it."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
                try:
                    self._process.wait(END_S)
                except subprocess.TimeoutExpired:
                    self._process.kill()


def _last_line(path: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else ""
