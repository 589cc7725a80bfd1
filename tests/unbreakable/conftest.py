"""What the tests of unbreakable runs share."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unbreakable.runs import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "said.txt") as server:
        yield server


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts (again) a file system in memory of some size, as "size=64k" or "remount,ro"; skips where it must not."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("needs mount")
        if done.returncode:
            pytest.skip(f"may not mount a file system here: {done.stderr.strip()}")
        return place

    yield mount
    while place.is_mount() and subprocess.run(["umount", str(place)], check=False).returncode == 0:
        pass
