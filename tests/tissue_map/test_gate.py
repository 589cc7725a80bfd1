"""What the gate decided, window by window: places of windows, and what those over a pixel say together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.maps import CLASSES, grid_of
from wsiseg.errors import MapError, OptionError
from wsiseg.geometry import Box, Size
from wsiseg.tissue_map import gate
from wsiseg.tissue_map.gate import NOT_ASKED, OPEN, SHUT, SHUT_ALL_OVER, SHUT_IN_PART, GateGrid, GateWindows
from wsiseg.tissue_map.reader import open_map
from wsiseg.tissue_map.writer import MapWriter

PATCHES = GateGrid(9, 13, 32, 32, 16, 1)
TILES = GateGrid(9, 12, 32, 16, 50, 3)
"""Three windows along a tile's side, which tiles share a part of."""

MUCH_SHARED = GateGrid(9, 12, 32, 16, 20, 3)
"""Tiles that overlap so much that windows do not begin in their order."""


def by_hand(grid: GateGrid, decisions: np.ndarray, box: Box, level: int) -> np.ndarray:
    """Window by window: which of the pixels' middles lie in it."""
    y = (box.y + np.arange(box.height)[:, None] + 0.5) * 2**level
    x = (box.x + np.arange(box.width)[None, :] + 0.5) * 2**level
    asked, shut = np.zeros(box.size.shape, int), np.zeros(box.size.shape, int)
    for row, top in enumerate(grid.starts(grid.rows)):
        for column, left in enumerate(grid.starts(grid.columns)):
            inside = (top <= y) & (y < top + grid.patch_px) & (left <= x) & (x < left + grid.patch_px)
            asked += inside & (decisions[row, column] != NOT_ASKED)
            shut += inside & (decisions[row, column] == SHUT)
    some = np.where(shut == asked, SHUT_ALL_OVER, np.where(shut > 0, SHUT_IN_PART, OPEN))
    return np.where(asked == 0, NOT_ASKED, some)


@pytest.mark.parametrize("grid", [PATCHES, TILES, MUCH_SHARED])
@pytest.mark.parametrize("at_once", [30, 2**21])
def test_pixels_are_what_their_windows_say(grid: GateGrid, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_AT_ONCE", at_once)
    rng = np.random.default_rng(4)
    decisions = rng.choice([NOT_ASKED, OPEN, SHUT, SHUT], (2, grid.rows, grid.columns)).astype(np.uint8)
    decisions[1][decisions[0] == NOT_ASKED] = NOT_ASKED
    windows, seen = GateWindows(grid, decisions), set()
    for box, level in (
        (Box(0, 0, 60, 40), 0),
        (Box(31, 17, 50, 60), 0),
        (Box(3, 5, 40, 30), 2),
        (Box(900, 0, 4, 4), 0),
    ):
        for index in (1, 2):
            found = windows.pixels(index, box, level)
            assert np.array_equal(found, by_hand(grid, decisions[index - 1], box, level))
            seen |= set(np.unique(found).tolist())
        one_at_most = np.where(
            decisions[0] == NOT_ASKED, NOT_ASKED, np.where((decisions == OPEN).sum(axis=0) > 1, OPEN, SHUT)
        )
        assert np.array_equal(windows.pixels(0, box, level), by_hand(grid, one_at_most, box, level))
    assert seen == {NOT_ASKED, OPEN, SHUT_IN_PART, SHUT_ALL_OVER}


def write(path: Path) -> np.ndarray:
    size = Size(700, 600)
    writer = MapWriter(path, CLASSES, grid_of(size), 512, unread=True)
    holes = np.zeros(size.shape, bool)
    holes[100:103, 511:515] = True  # three by four pixels over a border of pieces
    classes, values = np.ones(size.shape, np.uint8), np.zeros((len(CLASSES), *size.shape), np.uint8)
    classes[holes] = 0
    for y in range(0, size.height, 512):
        for x in range(0, size.width, 512):
            box = Box(x, y, 512, 512).intersect(Box.from_size(size))
            part = box.slices()
            writer.write(box, classes[part], values[(slice(None), *part)], holes[part])
    list(writer.write_levels())
    decisions = np.random.default_rng(1).integers(0, 3, (len(CLASSES), 11, 13)).astype(np.uint8)
    writer.write_gate(GateGrid(11, 13, 96, 96, 48, 1), decisions)
    slide = {"name": "s", "quick_hash": "h"}
    writer.write_metadata({"slide": slide, "model": {"hash": "m"}, "parameters": {"gate": True}})
    return decisions


def test_a_map_gives_back_what_was_written(tmp_path: Path) -> None:
    decisions = write(tmp_path / "m.zarr")
    found = open_map(tmp_path / "m.zarr")
    for index in range(1, len(CLASSES) + 1):
        assert np.array_equal(found.gate.decisions(index), decisions[index - 1])
    assert [found.unread(level).compute().sum() for level in (0, 1)] == [12, 6]  # the next level: any of four
    assert found.read_unread(Box(511, 100, 4, 3)).all()
    with pytest.raises(OptionError, match="expected a class from 1 to"):
        found.read_gate(9, Box(0, 0, 2, 2))
    with pytest.raises(OptionError, match="not inside level 0"):
        found.read_gate(1, Box(690, 0, 20, 2))
    labels = json.loads((tmp_path / "m.zarr" / "labels" / "zarr.json").read_text())
    assert labels["attributes"]["ome"]["labels"] == ["tissue", "unread"]


def test_a_map_of_an_earlier_version(tmp_path: Path) -> None:
    """It lacks the arrays and does not speak of them; all else is read as ever."""
    write(tmp_path / "m.zarr")
    root = tmp_path / "m.zarr" / "zarr.json"
    content = json.loads(root.read_text())
    del content["attributes"]["wsiseg"]["records"]
    root.write_text(json.dumps(content))
    found = open_map(tmp_path / "m.zarr")
    assert (found.records_unread, found.records_gate) == (False, False)
    assert found.read(Box(0, 0, 9, 9)).all()
    with pytest.raises(OptionError, match="does not record where the slide could not be read"):
        found.unread()
    with pytest.raises(OptionError, match="does not record where the gate shut"):
        _ = found.gate


@pytest.mark.parametrize(
    "records",
    [
        {"unread": True, "gate": {"rows": 12, "columns": 13, "patch_px": 96, "stride_px": 96, "tile_stride_px": 48,
                                  "per_tile": 1}},
        {"unread": False, "gate": {"rows": 11}},
        {"unread": False, "gate": {"rows": 11, "columns": 13, "patch_px": 10**6, "stride_px": 96, "tile_stride_px": 48,
                                   "per_tile": 1}},
        {"unread": False, "gate": 7},
        [1],
    ],
)  # fmt: skip
def test_records_that_are_none(tmp_path: Path, records: object) -> None:
    write(tmp_path / "m.zarr")
    root = tmp_path / "m.zarr" / "zarr.json"
    content = json.loads(root.read_text())
    content["attributes"]["wsiseg"]["records"] = records
    root.write_text(json.dumps(content))
    with pytest.raises((MapError, OptionError)):
        open_map(tmp_path / "m.zarr")
