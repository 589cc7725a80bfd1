"""Tissue on real slides, made paler and drawn upon; masks of one's own; answers in map pixels."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from wsiseg.errors import MissingMppError, OptionError
from wsiseg.geometry import Box, Grid, Mpp, Size
from wsiseg.slides import open_slide
from wsiseg.slides.array import ArrayReader
from wsiseg.slides.overview import read_overview
from wsiseg.tiling.grid import TileGrid
from wsiseg.tissue.bit_mask import BitMask
from wsiseg.tissue.find import tissue_mask
from wsiseg.tissue.mask import TissueMask
from wsiseg.tissue.stain import find_glass, pen, stained

CMU = "CMU-1-Small-Region.svs"
MPP = Mpp(0.499, 0.499)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def cmu(sample_data):
    """Pixels of CMU-1 at four times its size, (741, 555, 3): enough for an overview, quick to draw on."""
    with open_slide(sample_data / CMU) as slide:
        grid = slide.grid(0.499 * 4)
        return slide.read(grid, Box(0, 0, 555, 741)).pixels


def slide_of(pixels):
    return ArrayReader(pixels, stated_mpp=MPP.times(4))


@pytest.fixture(scope="module")
def tissue(cmu):
    return tissue_mask(slide_of(cmu)).mask.pixels()


def test_a_real_slide(sample_data):
    with open_slide(sample_data / CMU) as slide:
        found = tissue_mask(slide)
    assert found.method == "otsu"
    assert found.mask.shape == (186, 139)  # 8 um
    assert 0.38 < found.share < 0.44
    # By eye: epidermis and dermis, the glass left and right of them.
    level0 = Grid(slide.size, MPP, 1, 1, 0, 1.0, 1.0)
    for x, y, expected in [(900, 1500, True), (1500, 2600, True), (200, 1500, False), (2100, 200, False)]:
        assert found.rows(level0, Box(x, y, 1, 1))[0, 0] == expected


def test_a_slide_that_is_all_tissue(sample_data):
    with open_slide(sample_data / "OS-1-detail.ome.tif") as slide:
        assert tissue_mask(slide).share > 0.99


def test_against_a_mask_of_the_slide(shared):
    folder = shared / "data/slides"
    with open_slide(folder / "colon-section.tif", mpp=0.5) as slide:
        found = tissue_mask(slide)
        truth = tissue_mask(slide, folder / "colon-section_tissue_8x.png")
        grid = slide.grid(4.0)
        box = Box.from_size(grid.size)
        assert dice(found.rows(grid, box), truth.rows(grid, box)) > 0.955


@pytest.mark.parametrize("strength", [0.3, 0.2])
def test_pale_tissue_does_not_vanish(cmu, tissue, strength):
    pale = np.rint(244 - (244 - cmu.astype(float)) * strength).clip(0, 255).astype(np.uint8)
    found = tissue_mask(slide_of(pale)).mask.pixels()
    assert (found & tissue).sum() > 0.8 * tissue.sum()
    assert (found & ~ndimage.binary_dilation(tissue, iterations=3)).sum() < 0.01 * tissue.sum()


def test_pale_tissue_beside_strong_tissue_does_not_vanish(cmu, tissue):
    mixed = cmu.copy()
    mixed[370:] = np.rint(244 - (244 - cmu[370:].astype(float)) * 0.25).clip(0, 255)
    found = tissue_mask(slide_of(mixed)).mask.pixels()
    assert dice(found[100:], tissue[100:]) > 0.93


@pytest.mark.parametrize(
    ("ink", "strength"),
    [((40, 60, 160), 0.9), ((30, 140, 70), 0.9), ((25, 25, 30), 1), ((220, 35, 45), 0.9), ((20, 25, 90), 0.4)],
    ids=["blue", "green", "black", "red", "thin dark blue"],
)
def test_pen_marks_do_not_become_tissue(cmu, tissue, ink, strength):
    drawing = Image.new("L", (cmu.shape[1], cmu.shape[0]))
    draw = ImageDraw.Draw(drawing)
    draw.line([(470, 20), (530, 250), (500, 700)], fill=255, width=95, joint="curve")  # 190 um wide
    draw.line([(20, 90), (10, 550)], fill=255, width=70)
    share = ndimage.gaussian_filter(np.asarray(drawing) / 255 * strength, 1.5)[..., None]
    marked = np.rint(cmu * (np.array(ink) / 245) ** share).astype(np.uint8)  # Beer and Lambert
    found = tissue_mask(slide_of(marked)).mask.pixels()
    on_pen = np.asarray(drawing.resize(found.shape[::-1])) > 0
    assert (found & on_pen & ~tissue).sum() < 0.01 * on_pen.sum()
    assert dice(found & ~on_pen, tissue & ~on_pen) > 0.96


def test_without_a_pen_none_is_found(cmu):
    assert not pen(cmu, find_glass(cmu).level, MPP.x * 4).any()


def test_brown_is_tissue(cmu, tissue):
    """Melanin, or DAB, absorbs blue most; no pen is meant."""
    brown = cmu.copy()
    brown[300:600, 200:330] = (105, 70, 45)
    assert tissue_mask(slide_of(brown)).mask.pixels()[76:149, 51:82].all()


def test_frames_are_not_tissue(cmu, tissue):
    framed = np.zeros((941, 755, 3), np.uint8)  # black around it, as some scanners write
    framed[100:-100, 100:-100] = cmu
    found = tissue_mask(slide_of(framed)).mask.pixels()
    assert dice(found[25:-25, 25:-25][: tissue.shape[0], : tissue.shape[1]], tissue) > 0.95
    assert found[:24].sum() + found[-24:].sum() + found[:, :24].sum() + found[:, -24:].sum() == 0
    framed[:] = 255
    framed[100:-100, 100:-100] = cmu
    assert dice(tissue_mask(slide_of(framed)).mask.pixels()[25:210, 25:164], tissue) > 0.97


@pytest.mark.parametrize("value", [0, 255, 244, 128])
def test_a_slide_without_tissue(value):
    assert not stained(np.full((90, 80, 3), value, np.uint8), 8).any()
    noise = np.random.default_rng(0).normal(value, 2, (200, 200, 3)).clip(0, 255).astype(np.uint8)
    if value > 200:
        assert tissue_mask(ArrayReader(noise, stated_mpp=Mpp(8, 8))).share == 0


def test_the_result_does_not_depend_on_the_bands(cmu, monkeypatch):
    whole = stained(cmu, 2)
    monkeypatch.setattr("wsiseg.tissue.stain._ROWS", 100)
    assert np.array_equal(stained(cmu, 2), whole)


def test_an_overview_is_read_in_blocks(sample_data, monkeypatch):
    with open_slide(sample_data / CMU) as slide:
        grid, whole = read_overview(slide)
        monkeypatch.setattr("wsiseg.slides.overview._BAND_PIXELS", 100_000)
        assert np.array_equal(read_overview(slide)[1], whole)
        assert whole.shape == (*grid.size.shape, 3)


def blobs():
    """A picture with a speck and a hole, at 8 um per pixel: tissue of 100 x 100, a hole of 6 x 6, a speck of 5 x 5."""
    pixels = np.full((400, 400, 3), 244, np.uint8)
    pixels[50:150, 50:150] = (200, 120, 180)
    pixels[90:96, 90:96] = 244
    pixels[300:305, 300:305] = (200, 120, 180)
    return ArrayReader(pixels, stated_mpp=Mpp(8, 8))


def test_specks_and_holes_go_by_their_area():
    slide = blobs()
    found = tissue_mask(slide).mask.pixels()
    assert found[50:150, 50:150].all()
    assert not found[200:].any()
    kept = tissue_mask(slide, min_tissue_um2=0, min_hole_um2=0).mask.pixels()
    assert not kept[92:94, 92:94].any()
    assert kept[300:305, 300:305].all()
    # The speck is 5 x 5 pixels of 64 um2, and one more around it by smoothing.
    assert tissue_mask(slide, min_tissue_um2=25 * 64).mask.pixels()[302, 302]
    assert not tissue_mask(slide, min_tissue_um2=81 * 64).mask.pixels()[302, 302]


def test_a_tiny_picture_keeps_its_tissue(cmu):
    """224 px at 0.5 um are 0.0125 mm2, less than a speck."""
    patch = ArrayReader(np.ascontiguousarray(cmu[400:624, 180:404]), stated_mpp=Mpp(0.5, 0.5))
    assert tissue_mask(patch).share > 0.9


def test_none_is_all_of_the_slide(sample_data):
    with open_slide(sample_data / CMU) as slide:
        mask = tissue_mask(slide, "none")
        grid = slide.grid(0.7)
        assert (mask.share, mask.area_px) == (1, slide.size.area)
        assert mask.rows(grid, Box.from_size(grid.size)).all()
        beyond = mask.rows(grid, Box(-5, -7, grid.size.width + 12, grid.size.height + 13))
        assert beyond.sum() == grid.size.area
        assert not mask.rows(grid, Box(-50, 0, 50, 100)).any()


# ---- of one's own


def feature(*rings):
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [*rings]}, "properties": {}}


def ring(x, y, width, height):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]


def test_areas_from_qupath(sample_data, tmp_path):
    path = tmp_path / "own.geojson"
    areas = [feature(ring(400, 800, 1000, 600), ring(600, 1000, 200, 200)), feature(ring(-100, -100, 300, 300))]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": areas}))
    with open_slide(sample_data / CMU) as slide:
        mask = tissue_mask(slide, path)
        assert mask.method == "own.geojson"
        assert mask.area_px == pytest.approx(1000 * 600 - 200 * 200 + 200 * 200, rel=0.02)
        at = Grid(slide.size, MPP, 1, 1, 0, 1.0, 1.0)
        inside = [mask.rows(at, Box(x, y, 1, 1))[0, 0] for x, y in [(410, 810), (700, 1100), (190, 190), (210, 210)]]
        assert inside == [True, False, True, False]


def test_areas_that_miss_the_slide(sample_data, tmp_path):
    path = tmp_path / "own.geojson"
    path.write_text(json.dumps(feature(ring(5000, 5000, 100, 100))))
    with open_slide(sample_data / CMU) as slide, pytest.raises(OptionError, match="no area inside the slide"):
        tissue_mask(slide, path)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "zeros and ones"])
def test_a_png_of_ones_own(sample_data, tmp_path, mode):
    pixels = np.zeros((297, 222), np.uint8)
    pixels[100:150, 50:90] = 1 if mode == "zeros and ones" else 255
    image = Image.fromarray(pixels)
    (image if mode == "zeros and ones" else image.convert(mode)).save(tmp_path / "own.png")
    with open_slide(sample_data / CMU) as slide:
        mask = tissue_mask(slide, tmp_path / "own.png")
        assert (mask.step_x, mask.step_y) == (10, 2967 / 297)
        assert np.array_equal(mask.mask.pixels(), pixels > 0)
        assert mask.area_px == pytest.approx(40 * 50 * 10 * 2967 / 297)


def test_pngs_that_do_not_fit(sample_data, tmp_path):
    with open_slide(sample_data / CMU) as slide:
        Image.new("L", (297, 222)).save(tmp_path / "turned.png")
        with pytest.raises(OptionError, match=r"297 x 222.*aspect"):
            tissue_mask(slide, tmp_path / "turned.png")
        Image.new("RGB", (222, 297), "red").save(tmp_path / "red.png")
        with pytest.raises(OptionError, match="colours"):
            tissue_mask(slide, tmp_path / "red.png")
        (tmp_path / "no.png").write_text("no")
        with pytest.raises(OptionError, match="cannot be read"):
            tissue_mask(slide, tmp_path / "no.png")
        for name in ("missing.png", "missing.geojson", "otsuu"):
            with pytest.raises(OptionError):
                tissue_mask(slide, tmp_path / name)


def test_no_mpp_no_tissue(cmu):
    with pytest.raises(MissingMppError, match="--mpp"):
        tissue_mask(ArrayReader(cmu))


# ---- in map pixels

PIXELS = ndimage.gaussian_filter(np.random.default_rng(3).random((60, 50)), 2) > 0.5
MASK = TissueMask(BitMask(PIXELS), 16.0, 16.0, Size(795, 950), "otsu")


def reference(mask, grid, box):
    """Bilinear interpolation pixel by pixel, written another way."""
    out = np.zeros((box.height, box.width), bool)
    for row in range(box.height):
        for column in range(box.width):
            x, y = column + box.x, row + box.y
            if x < 0 or y < 0 or x * grid.step_x >= mask.slide_size.width or y * grid.step_y >= mask.slide_size.height:
                continue
            at = [[(y + 0.5) * grid.step_y / mask.step_y - 0.5], [(x + 0.5) * grid.step_x / mask.step_x - 0.5]]
            value = ndimage.map_coordinates(mask.mask.pixels().astype(float), at, order=1, mode="nearest")[0]
            out[row, column] = value >= 0.5
    return out


def test_rows_are_the_bilinear_mask():
    grid = Grid(Size(331, 395), Mpp(1.2, 1.2), 2.4, 2.4, 0, 2.4, 2.4)
    for box in (Box(-3, -4, 50, 40), Box(100, 120, 60, 30), Box(310, 370, 40, 40)):
        ours, theirs = MASK.rows(grid, box), reference(MASK, grid, box)
        assert (ours != theirs).mean() < 1e-3  # exactly a half may fall to either side


@given(
    st.floats(0.3, 60), st.integers(-40, 300), st.integers(-40, 300), st.integers(1, 90), st.integers(1, 90), st.data()
)
def test_an_answer_does_not_depend_on_the_box(step, x, y, width, height, data):
    grid = Grid(Size(1000, 1000), Mpp(step, step), step, step, 0, step, step)
    box = Box(x, y, width, height)
    whole = MASK.rows(grid, box)
    part = Box(
        x + data.draw(st.integers(0, width - 1)), y + data.draw(st.integers(0, height - 1)), width, height
    ).intersect(box)
    assert np.array_equal(MASK.rows(grid, part), whole[part.slices(box)])


def test_wide_bands_are_answered_in_pieces(monkeypatch):
    grid = Grid(Size(795, 950), Mpp(1, 1), 1, 1, 0, 1.0, 1.0)
    whole = MASK.rows(grid, Box(0, 300, 795, 64))
    monkeypatch.setattr("wsiseg.tissue.mask._CHUNK", 100)
    assert np.array_equal(MASK.rows(grid, Box(0, 300, 795, 64)), whole)
    assert MASK.rows(grid, Box(0, 0, 0, 5)).shape == (5, 0)
    assert MASK.rows(grid, Box(0, 0, 5, 0)).shape == (0, 5)


def test_a_mask_pixel_is_its_level_0_pixels():
    """One mask pixel of tissue between others: a diamond around its centre, where the interpolation is a half."""
    single = np.zeros((3, 3), bool)
    single[1, 1] = True
    mask = TissueMask(BitMask(single), 16, 16, Size(48, 48), "otsu")
    found = mask.rows(Grid(Size(48, 48), Mpp(1, 1), 1, 1, 0, 1.0, 1.0), Box(0, 0, 48, 48))
    assert found[24, 16:32].all()
    assert not found[24, :16].any()
    assert not found[17, 17]
    assert mask.area_px == 256


@pytest.mark.parametrize(("mpp", "patch", "overlap"), [(0.5, 96, 0.25), (1, 224, 0.5), (3, 40, 0), (7.7, 33, 0.9)])
def test_selecting_patches_at_once_is_asking_for_each(sample_data, mpp, patch, overlap):
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        grid, mask = slide.grid(mpp), tissue_mask(slide)
    tiles = TileGrid.from_share(grid.size, patch, overlap)
    one_by_one = tiles.select(lambda box: bool(mask.rows(grid, box).any()))
    assert 0 < one_by_one.sum() < one_by_one.size
    assert np.array_equal(mask.select(grid, tiles), one_by_one)


@given(
    st.integers(1, 12), st.integers(1, 12), st.floats(0.3, 0.99), st.integers(0, 2**32 - 1), st.floats(0.4, 20),
    st.floats(0.4, 20), st.integers(1, 90), st.floats(0, 0.9),
)  # fmt: skip
def test_selecting_patches_of_any_mask(rows, columns, density, seed, step_x, step_y, patch, overlap):
    """Masks of noise, with patches from a pixel to all of it, and map pixels smaller or larger than the mask's."""
    pixels = np.random.default_rng(seed).random((rows, columns)) < density
    size = Size(max(1, int(columns * step_x)), max(1, int(rows * step_y)))
    mask = TissueMask(BitMask(pixels), step_x, step_y, size, "otsu")
    grid = Grid(size, Mpp(1, 1), 1, 1, 0, 1.0, 1.0)
    tiles = TileGrid.from_share(size, patch, overlap)
    one_by_one = tiles.select(lambda box: bool(mask.rows(grid, box).any()))
    assert np.array_equal(mask.select(grid, tiles), one_by_one)
