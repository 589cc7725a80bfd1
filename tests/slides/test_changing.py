"""A slide that shrinks or changes while it is read: damaged tiles or `SlideError`, never a crash of the process.

In a process of its own, since a memory map of a file that shrinks kills whoever looks at it.
"""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsiseg.errors import WsisegError
from wsiseg.geometry import Box
from wsiseg.slides import open_slide
from wsiseg.slides.openslide import OpenSlideReader

# A process that has loaded the readers and forks for every case: loading takes longer than reading.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.slides.test_changing", "tiffslide", "openslide", "imagecodecs"])


def read(path: Path, reader: str, kept: int, own_tiles: bool, said: Path) -> None:
    """Change a slide after it was opened, read all of it, and write what came of it into `said`.

    Args:
        kept: bytes that are left of the file; -1 for as many as before, with random ones behind its head.
        own_tiles: False has OpenSlide itself read the tiles.
    """
    if not own_tiles:
        OpenSlideReader._tile_source = lambda self: None
    with open_slide(path, mpp=0.5, reader=reader) as slide:
        slide.read_level(0, Box(0, 0, 64, 64))
        if kept < 0:
            with path.open("r+b") as file:
                file.seek(200)
                file.write(os.urandom(path.stat().st_size - 200))
        else:
            os.truncate(path, kept)
        try:
            for number, level in enumerate(slide.levels):
                slide.read_level(number, Box.from_size(level.size))
            for name in slide.associated:
                slide.read_associated(name)
            said.write_text(f"read {slide.damaged_tiles}")
        except WsisegError as error:
            said.write_text(f"refused {error}")


def read_while_it_changes(path: Path, reader: str, kept: int, own_tiles: bool = True) -> str:
    said = path.with_suffix(".said")
    process = PROCESSES.Process(target=read, args=(path, reader, kept, own_tiles, said))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    return said.read_text()


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
def test_where_openslide_reads_it(sample_data: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes((sample_data / "CMU-1-Small-Region.svs").read_bytes())
    said = read_while_it_changes(path, "openslide", kept, own_tiles=False)
    assert said.startswith("refused") or kept == -1 or int(said.split()[1]) > 0


def test_nothing_maps_slides_into_memory() -> None:
    for path in (Path(__file__).parents[2] / "wsiseg" / "slides").glob("*.py"):
        assert "memmap" not in path.read_text(encoding="utf-8"), path
