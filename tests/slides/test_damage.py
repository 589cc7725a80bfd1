"""Damaged tiles: found, counted once, left white, and nothing else lost."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from tests.helpers.damage import damaged_copy, no_jpeg, zeros
from wsiseg.geometry import Box, Level, Size
from wsiseg.slides import open_slide
from wsiseg.slides.damage import DamageMap
from wsiseg.slides.tiff.integrity import join_tables, jpeg_fault

CMU = "CMU-1-Small-Region.svs"
TILE, COLUMNS, ROWS = 240, 10, 13
NOISY = [15, 44, 47, 84, 95]
"""Tiles of tissue that are damaged."""


def noise(data, seed):
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(seed).bytes(64) + data[middle + 64 :]


def cells(tiles):
    return {Box(i % COLUMNS * TILE, i // COLUMNS * TILE, TILE, TILE) for i in tiles}


@pytest.fixture(params=["openslide", "openslide without tiles", "tiffslide"])
def opened(request):
    """Opens a slide in each way that a JPEG tile is read."""

    def open_it(path):
        slide = open_slide(path, reader=request.param.split()[0])
        if "without" in request.param:
            slide._tiles = None
        return slide

    return open_it


@pytest.mark.parametrize("damage", [no_jpeg, zeros])
def test_damaged_tiles_are_white_and_the_rest_is_whole(opened, sample_data, tmp_path, damage):
    path = damaged_copy(sample_data / CMU, tmp_path / "bad.svs", NOISY, damage)
    with open_slide(sample_data / CMU) as good:
        truth = good.read_level(0, Box.from_size(good.size)).pixels
    with opened(path) as slide:
        region = slide.read_level(0, Box.from_size(slide.size))
        assert slide.damaged_tiles == len(NOISY)
        assert slide.damaged_area == cells(NOISY)
        assert slide.damaged_area_um2 == pytest.approx(len(NOISY) * TILE**2 * 0.499**2)
    expected = np.zeros(truth.shape[:2], bool)
    for box in cells(NOISY):
        expected[box.slices()] = True
    assert np.array_equal(region.damaged, expected)
    assert (region.pixels[expected] == 255).all()
    assert np.array_equal(region.pixels[~expected], truth[~expected])


def test_noise_that_decoders_pass_over_is_found(sample_data):
    """64 bytes of noise in a tile: OpenSlide finds 114 of these 130, most decoders 24 (`benchmarks/damage.py`)."""
    with tifffile.TiffFile(sample_data / CMU) as tiff:
        page, found = tiff.pages[0], 0
        for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            tiff.filehandle.seek(offset)
            data = noise(tiff.filehandle.read(count), index)
            found += jpeg_fault(join_tables(data, page.jpegtables)) is not None
    assert found >= 118


def test_damage_is_counted_once_however_it_is_met(opened, sample_data, tmp_path):
    path = damaged_copy(sample_data / CMU, tmp_path / "bad.svs", NOISY[:2], no_jpeg)
    with opened(path) as slide, ThreadPoolExecutor(4) as pool:
        boxes = [Box(x, y, 150, 130) for y in range(200, 1100, 90) for x in range(900, 1300, 110)]
        for box, region in zip(boxes, pool.map(lambda box: slide.read_level(0, box), boxes), strict=True):
            touched = [b.intersect(box) for b in cells(NOISY[:2])]
            expected = np.zeros(box.size.shape, bool)
            for part in touched:
                expected[part.slices(box)] = not part.is_empty
            assert np.array_equal(np.zeros_like(expected) if region.damaged is None else region.damaged, expected)
        assert slide.damaged_tiles == 2


def test_a_map_pixel_is_damaged_as_soon_as_one_under_it_is(sample_data, tmp_path):
    path = damaged_copy(sample_data / CMU, tmp_path / "bad.svs", [44], no_jpeg)
    with open_slide(path) as slide:
        grid = slide.grid(0.499 * 7)  # 240 is no multiple of 7
        region = slide.read(grid, Box.from_size(grid.size))
    rows, columns = np.nonzero(region.damaged)
    left, top = 44 % COLUMNS * TILE, 44 // COLUMNS * TILE
    assert (columns.min(), columns.max()) == (left // 7, (left + TILE - 1) // 7)
    assert (rows.min(), rows.max()) == (top // 7, (top + TILE - 1) // 7)
    assert region.damaged.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_a_corner_of_one_pixel_is_enough(sample_data, tmp_path):
    path = damaged_copy(sample_data / CMU, tmp_path / "bad.svs", [44], no_jpeg)
    with open_slide(path) as slide:
        grid = slide.grid(0.499 * 47)
        box = Box(0, 0, 40, 40)
        step = grid.step_x
        region = slide.read(grid, box)
    rows, columns = np.nonzero(region.damaged)
    assert (columns.min(), columns.max()) == (int(960 / step), int((1200 - 1e-6) / step))
    assert region.damaged.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


def test_every_sound_tile_passes(sample_data):
    with tifffile.TiffFile(sample_data / CMU) as tiff:
        page = tiff.pages[0]
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            tiff.filehandle.seek(offset)
            assert jpeg_fault(join_tables(tiff.filehandle.read(count), page.jpegtables)) is None


def test_what_is_wrong_is_said(sample_data):
    with tifffile.TiffFile(sample_data / CMU) as tiff:
        page = tiff.pages[0]
        tiff.filehandle.seek(page.dataoffsets[44])
        data = join_tables(tiff.filehandle.read(page.databytecounts[44]), page.jpegtables)
    half = len(data) // 2
    assert jpeg_fault(data[:half] + b"\xff\xd9") == "ends early"
    start = data.index(b"\xff\xda")
    header = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    # A third of the coded data once more, between a byte's borders: too many blocks.
    assert jpeg_fault(data[:-2] + data[header:half] + b"\xff\xd9") == "has data left over"
    assert "cannot be decoded" in jpeg_fault(b"\0" * 100)
    assert "cannot be decoded" in jpeg_fault(data[:30])
    assert "cannot be decoded" in jpeg_fault(b"\xff\xd8\xff\xc0\x00")


def test_a_writer_that_always_ends_early_is_trusted(sample_data, tmp_path):
    """If more than half of a level's tiles look damaged, that is how its writer ends them; one alone is damage."""

    def without_its_end(data):  # the last coded bytes made padding, as a careless writer might leave them
        return data[:-6] + b"\xff\xd9" * 3

    every = damaged_copy(sample_data / CMU, tmp_path / "every.svs", range(COLUMNS * ROWS), without_its_end)
    with open_slide(every) as slide:
        region = slide.read_level(0, Box.from_size(slide.size))
        assert (region.damaged, slide.damaged_tiles) == (None, 0)
    one = damaged_copy(sample_data / CMU, tmp_path / "one.svs", [44], without_its_end)
    with open_slide(one) as slide:
        slide.read_level(0, Box.from_size(slide.size))
        assert slide.damaged_area == cells([44])


class TestDamageMap:
    levels = (Level(Size(1000, 900), 1, 1), Level(Size(500, 450), 2, 2))

    def test_cells_and_boxes(self):
        damage = DamageMap(self.levels, [Size(256, 256)] * 2)
        assert list(damage.cells(0, Box(255, 0, 2, 256))) == [(0, 0), (1, 0)]
        assert damage.cell_box(0, (3, 3)) == Box(768, 768, 232, 132)
        assert damage.mask(0, Box(0, 0, 10, 10)) is None

    def test_cells_begin_where_the_bounds_do_not(self):
        damage = DamageMap(self.levels, [Size(256, 256)] * 2, [(100, 10), (50, 5)])
        assert damage.cell_box(0, (0, 0)) == Box(0, 0, 156, 246)
        assert damage.cell_box(0, (1, 0)) == Box(156, 0, 256, 246)
        assert list(damage.cells(0, Box(155, 245, 2, 2))) == [(0, 0), (1, 0), (0, 1), (1, 1)]

    def test_overlapping_levels_count_once(self):
        damage = DamageMap(self.levels, [Size(256, 256)] * 2)
        damage.mark(0, (0, 0))
        damage.mark(0, (0, 0))
        damage.mark(0, (3, 3))
        assert (damage.count, damage.area_px) == (2, 256 * 256 + 232 * 132)
        damage.mark(1, (0, 0))
        assert (damage.count, damage.area_px) == (3, 512 * 512 + 232 * 132)
        assert damage.boxes == {Box(0, 0, 256, 256), Box(768, 768, 232, 132), Box(0, 0, 512, 512)}
