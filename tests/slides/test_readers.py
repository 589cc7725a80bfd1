"""One contract that every reader passes, on real slides."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from wsiseg.errors import MissingMppError, SlideError
from wsiseg.geometry import Box, Mpp, Size
from wsiseg.slides import open_slide
from wsiseg.slides.array import ArrayReader

CMU, OS1 = "CMU-1-Small-Region.svs", "OS-1-detail.ome.tif"


class ReaderContract:
    """What holds for every reader; a subclass gives `slide`, and `truth`: level 0 decoded by another library."""

    def test_level_0_is_what_another_library_decodes(self, slide, truth):
        assert slide.size == Size(truth.shape[1], truth.shape[0])
        region = slide.read_level(0, Box.from_size(slide.size))
        assert region.damaged is None
        assert region.pixels.dtype == np.uint8
        assert np.array_equal(region.pixels, truth)

    @pytest.mark.parametrize(
        ("x", "y", "width", "height"), [(0, 0, 1, 1), (239, 239, 3, 2), (517, 301, 333, 411), (701, 13, 256, 1)]
    )
    def test_any_box(self, slide, truth, x, y, width, height):
        pixels = slide.read_level(0, Box(x, y, width, height)).pixels
        assert np.array_equal(pixels, truth[y : y + height, x : x + width])

    def test_outside_is_white(self, slide, truth):
        height, width = truth.shape[:2]
        corner = slide.read_level(0, Box(-30, -20, 100, 90)).pixels
        assert (corner[:20] == 255).all()
        assert (corner[:, :30] == 255).all()
        assert np.array_equal(corner[20:, 30:], truth[:70, :70])
        edge = slide.read_level(0, Box(width - 50, height - 40, 100, 90)).pixels
        assert np.array_equal(edge[:40, :50], truth[-40:, -50:])
        assert (edge[40:] == 255).all()
        assert (edge[:, 50:] == 255).all()
        for box in (Box(width, 0, 5, 7), Box(-500, -500, 9, 3), Box(10**7, 10**7, 4, 4)):
            pixels = slide.read_level(0, box).pixels
            assert pixels.shape == (box.height, box.width, 3)
            assert (pixels == 255).all()

    def test_an_empty_box(self, slide):
        assert slide.read_level(0, Box(5, 5, 0, 9)).pixels.shape == (9, 0, 3)

    def test_what_was_forgotten_is_read_again(self, slide, truth):
        for _ in range(2):
            assert np.array_equal(slide.read_level(0, Box(230, 250, 300, 20)).pixels, truth[250:270, 230:530])
            slide.forget()

    def test_every_level_by_parts_equals_the_whole(self, slide):
        for index, level in enumerate(slide.levels):
            whole = slide.read_level(index, Box.from_size(level.size)).pixels
            parts = np.empty_like(whole)
            for y in range(0, level.size.height, 311):
                for x in range(0, level.size.width, 457):
                    box = Box(x, y, 457, 311).intersect(Box.from_size(level.size))
                    parts[box.slices()] = slide.read_level(index, box).pixels
            assert np.array_equal(parts, whole)

    @pytest.mark.parametrize("mpp", [0.18, 0.5, 0.7, 1, 2, 8])
    def test_reading_by_parts_equals_reading_the_whole_at_any_mpp(self, slide, mpp):
        grid = slide.grid(mpp)
        box = Box(-3, -2, min(600, grid.size.width + 9), min(600, grid.size.height + 7))
        whole = slide.read(grid, box).pixels
        assert whole.shape == (box.height, box.width, 3)
        parts = np.empty_like(whole)
        for y in range(box.y, box.bottom, 97):
            for x in range(box.x, box.right, 131):
                part = Box(x, y, 131, 97).intersect(box)
                parts[part.slices(box)] = slide.read(grid, part).pixels
        assert np.array_equal(parts, whole)

    def test_a_coarse_pixel_is_the_mean_of_those_it_covers(self, slide, truth):
        if len(slide.levels) > 1:
            pytest.skip("read from a level that its scanner made")
        mpp = slide.mpp.x * 4
        grid = slide.grid(mpp)
        assert (grid.level, round(grid.zoom_x, 9)) == (0, 4)
        pixels = slide.read(grid, Box(20, 30, 60, 50)).pixels
        means = truth[120:320, 80:320].reshape(50, 4, 60, 4, 3).mean((1, 3), dtype=np.float64)
        # On a slide whose pixels are not quite square, not quite four rows make one.
        assert np.abs(pixels - means).max() <= (0.5 + 1e-4 if grid.zoom_x == grid.zoom_y else 1)

    def test_threads_read_what_one_reads(self, slide):
        boxes = [Box(x, y, 300, 280) for y in range(0, 900, 210) for x in range(0, 900, 190)]
        alone = [slide.read_level(0, box).pixels for box in boxes]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda box: slide.read_level(0, box).pixels, boxes * 3))
        assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))

    def test_associated_pictures(self, slide):
        for name, size in slide.associated.items():
            assert slide.read_associated(name).shape == (size.height, size.width, 3)
        with pytest.raises(KeyError):
            slide.read_associated("no such picture")

    def test_a_level_that_is_not_there(self, slide):
        with pytest.raises(IndexError):
            slide.read_level(len(slide.levels), Box(0, 0, 1, 1))

    def test_nothing_is_damaged(self, slide):
        slide.read_level(0, Box.from_size(slide.size))
        assert (slide.damaged_tiles, slide.damaged_area, slide.damaged_area_um2) == (0, frozenset(), 0)

    def test_a_closed_slide_cannot_be_read(self, reopened):
        with reopened:
            pass
        with pytest.raises(SlideError, match="was closed"):
            reopened.read_level(0, Box(0, 0, 8, 8))

    def test_the_quick_hash_is_the_files(self, slide, reopened):
        assert slide.quick_hash() == reopened.quick_hash()
        assert len(slide.quick_hash()) == 64
        reopened.close()


@cache
def by_openslide(path):
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


class TestOpenSlide(ReaderContract):
    @pytest.fixture
    def slide(self, sample_data):
        with open_slide(sample_data / CMU) as slide:
            yield slide

    @pytest.fixture
    def reopened(self, sample_data):
        return open_slide(sample_data / CMU)

    @pytest.fixture
    def truth(self, sample_data):
        return by_openslide(sample_data / CMU)

    def test_what_it_records(self, slide):
        assert (slide.reader, slide.vendor, slide.name) == ("OpenSlide", "aperio", CMU)
        assert (slide.mpp, slide.mpp_source, slide.objective) == (Mpp(0.499, 0.499), "openslide.mpp-x", 20)
        assert slide.bounds is None
        assert slide.properties["aperio.AppMag"] == "20"
        assert slide.associated == {
            "label": Size(387, 463), "macro": Size(1280, 431), "thumbnail": Size(574, 768)
        }  # fmt: skip


class TestOpenSlideAlone(TestOpenSlide):
    """Without the raw tiles of a TIFF, as every other format is read."""

    @pytest.fixture
    def slide(self, sample_data):
        with open_slide(sample_data / CMU) as slide:
            slide._tiles = None
            yield slide


class TestOpenSlideWithFractionalLevels(ReaderContract):
    """JPEG 2000, no mpp, and a second level of 2221 from 4443 columns."""

    @pytest.fixture
    def slide(self, shared):
        with open_slide(shared / "data/slides/tcga-cr-7395-01a-01-ts1.svs", mpp=0.5) as slide:
            yield slide

    @pytest.fixture
    def reopened(self, shared):
        return open_slide(shared / "data/slides/tcga-cr-7395-01a-01-ts1.svs", mpp=0.5)

    @pytest.fixture
    def truth(self, shared):
        return by_openslide(shared / "data/slides/tcga-cr-7395-01a-01-ts1.svs")

    def test_a_stated_mpp_is_recorded(self, slide):
        assert (slide.mpp, slide.recorded_mpp, slide.mpp_source) == (Mpp(0.5, 0.5), None, "stated")
        assert [level.downsample for level in slide.levels] == [1, 2]

    def test_without_mpp_the_error_names_the_option(self, shared):
        with (
            open_slide(shared / "data/slides/tcga-cr-7395-01a-01-ts1.svs") as slide,
            pytest.raises(MissingMppError, match="--mpp"),
        ):
            slide.grid(0.5)

    def test_levels_are_exact(self, slide):
        """OpenSlide blurs between two pixels of this level, except at its corner; we do not."""
        with tifffile.TiffFile(slide.path) as tiff:
            level = next(page for page in tiff.pages if page.shape[:2] == (1783, 2221)).asarray()
        assert np.array_equal(slide.read_level(1, Box(1001, 501, 300, 300)).pixels, level[501:801, 1001:1301])

    def test_by_openslide_alone_they_do_not_depend_on_the_box(self, slide):
        slide._tiles = None
        box = Box(900, 900, 250, 200)
        whole = slide.read_level(1, box).pixels
        for part in (Box(911, 917, 113, 80), Box(1001, 1003, 100, 90)):
            assert np.array_equal(slide.read_level(1, part).pixels, whole[part.slices(box)])


class TestTiff(ReaderContract):
    @pytest.fixture
    def slide(self, sample_data):
        with open_slide(sample_data / OS1) as slide:
            yield slide

    @pytest.fixture
    def reopened(self, sample_data):
        return open_slide(sample_data / OS1)

    @pytest.fixture
    def truth(self, sample_data):
        return tifffile.imread(sample_data / OS1)

    def test_what_it_records(self, slide):
        assert (slide.reader, slide.vendor, slide.mpp_source) == ("tifffile", "ome", "OME-XML")
        assert (slide.mpp.x, slide.mpp.y) == pytest.approx((0.22710, 0.22710), abs=1e-5)


class TestTiffSlideAlone(TestTiff):
    @pytest.fixture
    def slide(self, sample_data):
        with open_slide(sample_data / OS1, reader="tiffslide") as slide:
            slide._tiles = None
            yield slide

    def test_what_it_records(self, slide):
        assert (slide.reader, slide.vendor, slide.mpp_source) == ("TiffSlide", "ome", "OME-XML")


class TestTiffSlideOnSvs(TestOpenSlide):
    @pytest.fixture
    def slide(self, sample_data):
        with open_slide(sample_data / CMU, reader="tiffslide") as slide:
            yield slide

    def test_what_it_records(self, slide):
        assert (slide.reader, slide.vendor, slide.mpp, slide.objective) == (
            "TiffSlide", "aperio", Mpp(0.499, 0.499), 20
        )  # fmt: skip


class TestTiffByUrl(TestOpenSlide):
    @pytest.fixture
    def url(self, sample_data):
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.pipe("/slides/cmu.svs", (sample_data / CMU).read_bytes())
        yield "memory://slides/cmu.svs"
        memory.rm("/slides/cmu.svs")

    @pytest.fixture
    def slide(self, url):
        with open_slide(url) as slide:
            yield slide

    @pytest.fixture
    def reopened(self, url):
        return open_slide(url)

    def test_what_it_records(self, slide):
        assert (slide.reader, slide.path, slide.name) == ("tifffile", "memory://slides/cmu.svs", "cmu.svs")
        assert (slide.vendor, slide.mpp, slide.objective) == ("aperio", Mpp(0.499, 0.499), 20)


class TestArray(ReaderContract):
    @pytest.fixture
    def picture(self, sample_data, tmp_path_factory):
        path = tmp_path_factory.mktemp("picture") / "crop.png"
        Image.fromarray(by_openslide(sample_data / CMU)[:1300, :1201]).save(path, dpi=(72, 72))
        return path

    @pytest.fixture
    def slide(self, picture):
        with open_slide(picture, mpp=0.499) as slide:
            yield slide

    @pytest.fixture
    def reopened(self, picture):
        return open_slide(picture, mpp=0.499)

    @pytest.fixture
    def truth(self, picture):
        return np.asarray(Image.open(picture))

    def test_its_dpi_is_not_believed(self, picture):
        with open_slide(picture) as slide:
            assert (slide.reader, slide.vendor, slide.recorded_mpp) == ("Pillow", "png", None)
            with pytest.raises(MissingMppError, match="--mpp"):
                _ = slide.mpp

    def test_what_is_transparent_is_on_white(self, tmp_path):
        pixels = np.zeros((2, 3, 4), np.uint8)
        pixels[0, 0] = (10, 20, 30, 255)
        pixels[0, 1] = (0, 0, 0, 51)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        with open_slide(tmp_path / "a.png") as slide:
            read = slide.read_level(0, Box(0, 0, 3, 2)).pixels
        assert read[0].tolist() == [[10, 20, 30], [204, 204, 204], [255, 255, 255]]

    @pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
    def test_other_arrays_are_refused(self, shape):
        with pytest.raises(SlideError, match="height, width, 3"):
            ArrayReader(np.zeros(shape, np.uint8))
