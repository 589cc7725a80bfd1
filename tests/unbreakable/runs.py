"""Runs that are told where to die, and what is to be said of what they leave."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]


class Run:
    """One run in a process of its own.

    Attributes:
        pid: of the process.
    """

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.pid = int(server.line())

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """The exit code, or minus the number of the signal that ended it."""
        return os.waitstatus_to_exitcode(int(self._server.line()))


class Server:
    """`tests.unbreakable.server`, a context manager."""

    def __init__(self, log: Path) -> None:
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.unbreakable.server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def start(self, arguments: list, **more: object) -> Run:
        assert self._process.stdin is not None
        request = {"arguments": [str(part) for part in arguments], "log": str(self.log), **more}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Run(self)

    def run(self, arguments: list, **more: object) -> tuple[int, str]:
        """Exit code and what it said, of a run left alone."""
        code = self.start(arguments, **more).wait()
        return code, self.log.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the zarr.json that names times: chunks, metadata of arrays, polygons."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and str(path.relative_to(folder)) != "m.zarr/zarr.json"
    }


def facts(store: Path) -> dict:
    """What a map says of itself, apart from times and who computed how much."""
    said = json.loads((store / "zarr.json").read_text())["attributes"]["wsiseg"]
    return {name: value for name, value in said.items() if name != "times"}


def assert_same(folder: Path, whole: Path) -> None:
    """A folder holds exactly what another one does: the map, byte for byte, its polygons, and nothing else."""
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    found, expected = contents(folder), contents(whole)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name
    assert facts(folder / "m.zarr") == facts(whole / "m.zarr")
