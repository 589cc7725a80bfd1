"""A slide that shrinks or changes while it is read: damaged tiles or `SlideError`, never a crash of the process.

In a process of its own, since a memory map of a file that shrinks kills whoever looks at it.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

READ = """
import os, sys
from wsiseg.errors import WsisegError
from wsiseg.geometry import Box
from wsiseg.slides import open_slide

path, reader, kept = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_slide(path, mpp=0.5, reader=reader) as slide:
    width, height = slide.size.width, slide.size.height
    slide.read_level(0, Box(0, 0, 64, 64))
    if kept < 0:
        with open(path, "r+b") as file:
            file.seek(200)
            file.write(os.urandom(os.path.getsize(path) - 200))
    else:
        os.truncate(path, kept)
    try:
        for level in range(len(slide.levels)):
            size = slide.levels[level].size
            slide.read_level(level, Box(0, 0, size.width, size.height))
        for name in slide.associated:
            slide.read_associated(name)
        print("read", slide.damaged_tiles)
    except WsisegError as error:
        print("refused", error)
"""


def read_while_it_changes(path: Path, reader: str, kept: int) -> str:
    command = [sys.executable, "-c", READ, str(path), reader, str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout


@pytest.fixture
def striped(tmp_path: Path) -> Path:
    """A slide that no reader takes tile by tile, so that the libraries themselves read it."""
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, rowsperstrip=16, photometric="rgb")
    return tmp_path / "a.tif"


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
@pytest.mark.parametrize("kept", [0, 1000, 400_000, 1_500_000, -1])
def test_a_slide_that_changes_while_it_is_read(sample_data: Path, tmp_path: Path, reader: str, kept: int) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes((sample_data / "CMU-1-Small-Region.svs").read_bytes())
    said = read_while_it_changes(path, reader, kept)
    assert said.startswith("refused") or int(said.split()[1]) > 0


@pytest.mark.parametrize("kept", [0, 1000, 100_000, -1])
def test_where_a_library_reads_it(striped: Path, kept: int) -> None:
    assert read_while_it_changes(striped, "tiffslide", kept)


@pytest.mark.parametrize("kept", [0, 1000, 400_000, -1])
def test_where_openslide_reads_it(
    sample_data: Path, tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes((sample_data / "CMU-1-Small-Region.svs").read_bytes())
    without = "import wsiseg.slides.openslide as o\no.OpenSlideReader._tile_source = lambda self: None\n"
    monkeypatch.setattr(sys.modules[__name__], "READ", without + READ)
    said = read_while_it_changes(path, "openslide", kept)
    assert said.startswith("refused") or kept == -1 or int(said.split()[1]) > 0


def test_nothing_maps_slides_into_memory() -> None:
    for path in (Path(__file__).parents[2] / "wsiseg" / "slides").glob("*.py"):
        assert "memmap" not in path.read_text(encoding="utf-8"), path
