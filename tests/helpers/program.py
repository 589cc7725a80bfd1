"""Commands of the program, one after the other, in one process of its own: torch is loaded once for all of them.

For what pytest's process cannot show: streams of another encoding, packages that are not installed.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 1000

HIDING = """
import sys
from importlib.machinery import PathFinder

hidden = set()

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
"""Code after which the packages in `hidden` do not exist."""

CODE = (
    HIDING
    + """
import json, os
from wsiseg.cli.main import main

for number, (names, arguments) in enumerate(json.load(sys.stdin)):
    hidden.clear()
    hidden.update(names)
    loaded = {name.partition(".")[0] for name in sys.modules} & hidden
    assert not loaded, f"loaded by a command before: {loaded}"
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        file = os.open(f"{sys.argv[1]}/{number}.{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream.fileno())
        os.close(file)
    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = stop.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    with open(f"{sys.argv[1]}/{number}.code", "w") as file:
        file.write(str(code))
"""
)


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: bytes
    err: bytes


@dataclass(frozen=True)
class Command:
    """Arguments of the program, and the packages that do not exist for it."""

    arguments: Sequence[object]
    hidden: Collection[str] = ()


def run_all(commands: Sequence[Command], environment: Mapping[str, str] | None = None) -> list[Said]:
    """Run commands one after the other in a process of their own; an AssertionError where that process breaks."""
    wanted = [(sorted(command.hidden), [str(part) for part in command.arguments]) for command in commands]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", CODE, folder], input=json.dumps(wanted), encoding="ascii", capture_output=True,
            env={**os.environ, **(environment or {})}, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr or _printed(Path(folder))
        return [_said(Path(folder) / str(number)) for number in range(len(commands))]


def _said(path: Path) -> Said:
    code, out, err = (path.with_suffix(ending).read_bytes() for ending in (".code", ".out", ".err"))
    return Said(int(code), out, err)


def _printed(folder: Path) -> str:
    """What the last command said before the process broke."""
    files = sorted(folder.glob("*.err"), key=lambda path: int(path.stem))
    return files[-1].read_text("utf-8", "replace") if files else "it did not begin"
