"""The streamed file of exact outlines: equal to what is made in memory, whole or not there, in bounded memory."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tests.helpers.class_maps import CHECKERBOARD, MAPS, SHAPES, TABLE, Map, blobs
from tests.helpers.full_disk import largest_file
from tests.helpers.geojson import IDENTITY, WRITTEN_ONCE, grid_of
from tests.helpers.qupath_rules import check_qupath
from wsiseg.errors import OptionError, OutputError, SlideError
from wsiseg.geojson.write import Written, write_geojson
from wsiseg.geojson.write_outlines import write_outlines
from wsiseg.geometry import Box, Size
from wsiseg.polygons.class_map import ArrayMap, ClassMapSource
from wsiseg.polygons.outlines.reader import trace_outlines
from wsiseg.polygons.simplify import exact_polygons


class Repeated:
    """A class map of copies of one, side by side and below one another."""

    def __init__(self, classes: Map, across: int, down: int) -> None:
        self.classes, (height, width) = classes, classes.shape
        self.size = Size(width * across, height * down)

    def read(self, box: Box) -> Map:
        height, width = self.classes.shape
        rows, columns = np.arange(box.y, box.bottom) % height, np.arange(box.x, box.right) % width
        return self.classes[np.ix_(rows, columns)]


def stream(path: Path, source: ClassMapSource, step: float = 2.0, block: int = 2048) -> Written:
    grid = grid_of(np.zeros(source.size.shape, np.uint8), step)
    with trace_outlines(source, len(TABLE), block, path.parent) as outlines:
        return write_outlines(path, outlines, TABLE, grid, identity=IDENTITY, overwrite=True)


@WRITTEN_ONCE
@given(classes=MAPS, step=st.sampled_from([1.0, 2.0, 2.004008, 0.37, 16.0]), block=st.integers(1, 16))
def test_the_stream_is_what_is_made_in_memory(tmp_path: Path, classes: Map, step: float, block: int) -> None:
    streamed, plain = tmp_path / "streamed.geojson", tmp_path / "plain.geojson"
    written = stream(streamed, ArrayMap(classes), step, block)
    grid = grid_of(classes, step)
    expected = write_geojson(
        plain, exact_polygons(ArrayMap(classes), TABLE), TABLE, grid, identity=IDENTITY, overwrite=True
    )
    assert (written.annotations, written.vertices) == (expected.annotations, expected.vertices)
    features = check_qupath(streamed)
    others = check_qupath(plain)
    for feature, other in zip(features, others, strict=True):
        index = TABLE.names.index(feature["properties"]["classification"]["name"]) + 1
        # By pixels, not by rounded coordinates.
        area = (classes == index).sum() * grid.mpp.pixel_area_um2
        assert written.area_um2[index] == pytest.approx(area)
        assert feature == other


@pytest.mark.parametrize("name", SHAPES)
def test_difficult_shapes_give_the_same_bytes_at_any_block(tmp_path: Path, name: str) -> None:
    whole, cut = tmp_path / "whole.geojson.gz", tmp_path / "cut.geojson"
    stream(whole, ArrayMap(SHAPES[name]))
    stream(cut, ArrayMap(SHAPES[name]), block=2)
    check_qupath(cut)
    assert gzip.decompress(whole.read_bytes()) == cut.read_bytes()


def spiral(side: int) -> Map:
    """One path of class 1, one pixel wide, from a corner to the middle: a single ring of some 4 * side / 2 vertices."""
    turns = np.zeros((side, side), np.uint8)
    x = y = 0
    dx, dy, length = 1, 0, side
    turns[0, 0] = 1
    for leg in range(side):
        for _ in range(length - 1 if leg == 0 else length):
            x, y = x + dx, y + dy
            turns[y, x] = 1
        dx, dy = -dy, dx
        length -= (leg % 2 == 0) + (leg % 2 == 0) * (leg > 0)
        if length <= 0:
            break
    return turns


def comb(teeth: int, height: int) -> Map:
    """A ring round the whole map whose inside is cut by many teeth, and 0 in between."""
    classes = np.ones((height, 2 * teeth + 1), np.uint8)
    classes[1:-1, 1::2] = 0
    classes[1, 1:-1] = 0
    return classes


@pytest.mark.parametrize(
    "classes",
    [spiral(101), comb(150, 90), np.tile(CHECKERBOARD[:8, :10], (9, 12)), np.tile(CHECKERBOARD[:8, :10] - 1, (9, 12))],
    ids=["spiral", "comb", "checkerboard", "checkerboard on 0"],
)
@pytest.mark.parametrize("block", [3, 16])
def test_outlines_over_many_blocks(tmp_path: Path, classes: Map, block: int) -> None:
    path = tmp_path / "m.geojson"
    stream(path, ArrayMap(classes), 1.0, block)
    for feature in check_qupath(path):
        index = TABLE.names.index(feature["properties"]["classification"]["name"]) + 1
        area = shapely.geometry.shape(feature["geometry"])
        assert area.area == (classes == index).sum()
        assert len(area.geoms) == ndimage.label(classes == index)[1]
    again = {i: multi.wkb for i, multi in exact_polygons(ArrayMap(classes), TABLE).items()}
    assert again == {i: multi.wkb for i, multi in exact_polygons(ArrayMap(classes), TABLE, block).items()}


def test_memory_depends_on_the_block_not_on_the_map(tmp_path: Path) -> None:
    def peak_mb(copies: int) -> float:
        tracemalloc.start()
        try:
            stream(tmp_path / "m.geojson", Repeated(blobs(256, 4, 3.0), 2, copies), block=64)
            return tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()

    peak_mb(1)
    assert peak_mb(32) < 1.5 * peak_mb(4)


@pytest.mark.parametrize("bytes_a_vertex", [0.1, 7.0, 10.0])  # at once, in the temporary file, in the text
def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, bytes_a_vertex: float) -> None:
    source, path = ArrayMap(blobs(128, 2)), tmp_path / "m.geojson"
    vertices = stream(path, source, 2.004008, 16).vertices
    path.unlink()
    with (
        largest_file(int(vertices * bytes_a_vertex)),
        pytest.raises(OutputError, match=r"cannot (use a temporary file|write)"),
    ):
        stream(path, source, 2.004008, 16)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_outlines_are_traced_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from tests.geojson.test_write_outlines import Repeated, blobs, stream
class Deadly(Repeated):
    def read(self, box):
        if box.y > 200:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(box)
stream(Path({str(tmp_path)!r}) / "m.geojson", Deadly(blobs(64, 1), 2, 8), block=16)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_source_stay_what_they_are(tmp_path: Path) -> None:
    class Damaged(Repeated):
        def read(self, box: Box) -> Map:
            raise SlideError("the map is damaged")

    with pytest.raises(SlideError, match="is damaged"):
        stream(tmp_path / "m.geojson", Damaged(blobs(16, 1), 1, 1))
    assert list(tmp_path.iterdir()) == []


def test_pixels_too_small_for_the_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="too small for coordinates"):
        stream(tmp_path / "m.geojson", ArrayMap(blobs(16, 1)), 0.004)
    assert list(tmp_path.iterdir()) == []
