"""Nothing of one system's own is taken for granted where a module is loaded (docs/platforms.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PACKAGE = Path(__file__).parents[1] / "wsiseg"
FILES = sorted(PACKAGE.rglob("*.py"))

POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
WINDOWS_MODULES = {"msvcrt", "nt", "winreg", "_winapi"}

POSIX_NAMES = {
    *("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "chown", "fchown", "fork", "geteuid", "getuid", "getpgid", "killpg"),
    *("mkfifo", "sched_getaffinity", "setsid", "statvfs", "sysconf"),
}
"""Names of `os` that Windows lacks, and macOS some of them."""


def attributes(tree: ast.AST, module: str) -> list[ast.Attribute]:
    """Every `module.name` in the code."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_of_one_system_are_imported_where_they_are_used(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        names: set[str | None] = set()
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module}
        assert not names & (POSIX_MODULES | WINDOWS_MODULES), f"{path.name} imports {names} where it is loaded"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_of_one_system_are_asked_for_first(path: Path) -> None:
    """By `getattr` or `hasattr` in the same file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    for node in attributes(tree, "signal"):
        if node.attr.startswith("SIG") and node.attr not in {"SIGINT", "SIGTERM", "SIG_DFL", "SIG_IGN"}:
            pytest.fail(f"{path.name} takes signal.{node.attr}, which Windows lacks")
    for node in attributes(tree, "os"):
        if node.attr in POSIX_NAMES:
            assert f'hasattr(os, "{node.attr}")' in text, f"{path.name} takes os.{node.attr}, which Windows lacks"


def test_it_runs_where_posix_is_missing(tmp_path: Path) -> None:
    """A process that lacks what Windows lacks reads a picture; and has no /proc, as macOS."""
    Image.fromarray(np.full((300, 300, 3), (150, 60, 120), np.uint8)).save(tmp_path / "p.png")
    code = f"""
import os, signal, sys, pathlib
for name in {sorted(POSIX_MODULES - {"posix"})!r}: sys.modules[name] = None
for name in {sorted(POSIX_NAMES)!r}: vars(os).pop(name, None)
for name in ("SIGHUP", "SIGUSR1", "SIGKILL", "SIGALRM"): vars(signal).pop(name, None)
plain = pathlib.Path.read_text
def read_text(path, *arguments, **named):
    if str(path).startswith(("/proc", "/sys")): raise FileNotFoundError(2, "No such file or directory", str(path))
    return plain(path, *arguments, **named)
pathlib.Path.read_text = read_text
from wsiseg.system import memory
memory.give_back_memory(), memory.keep_little_freed_memory(), memory.default_max_memory()
assert memory.resident_bytes() == 0
from wsiseg.cli.log import used
assert set(used().values()) == {{None}}
from wsiseg.cli.main import main
main(["info", sys.argv[1], "--mpp", "0.5"])
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "p.png"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "300 x 300" in done.stdout
