"""What `open_slide` refuses, always with one line that says what to do."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsiseg.choices import READERS
from wsiseg.errors import MissingMppError, OptionError, SlideError
from wsiseg.geometry import Box, Mpp
from wsiseg.slides import _OPENERS, open_slide

CMU = "CMU-1-Small-Region.svs"


def refused(path, **options):
    """The message, on one line."""
    with pytest.raises(SlideError) as caught:
        open_slide(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_file(tmp_path):
    assert "does not exist" in refused(tmp_path / "no.svs")


def test_a_folder(tmp_path):
    assert "is a folder" in refused(tmp_path)


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.svs").touch()
    assert "is empty (0 bytes)" in refused(tmp_path / "empty.svs")


@pytest.mark.parametrize(
    "content", [b"not a slide\n" * 50, bytes(range(256)) * 40, b"II", b"II*\0", b"MM\0+\0\x08\0\0"]
)
@pytest.mark.parametrize("name", ["a.svs", "a.png", "a.dat"])
def test_what_is_no_slide(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name).startswith(name)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.65, 0.7, 0.8, 0.95, 0.99])
def test_a_slide_that_was_cut_off(tmp_path, sample_data, share):
    whole = (sample_data / CMU).read_bytes()
    (tmp_path / "cut.svs").write_bytes(whole[: int(len(whole) * share)])
    assert "is cut off" in refused(tmp_path / "cut.svs")


def test_a_picture_that_was_cut_off(tmp_path, sample_data):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    assert "cut off or damaged" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("magic", [b"II*\0\x08\0\0\0", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"])
def test_directories_in_a_circle(tmp_path, magic):
    """A hostile TIFF whose directory names itself as the next."""
    body = b"\0\0\x08\0\0\0" if magic[2:3] == b"*" else b"\0" * 8 + b"\x10\0\0\0\0\0\0\0"
    (tmp_path / "loop.tif").write_bytes(magic + body)
    refused(tmp_path / "loop.tif")


def test_missing_tiles_are_damage_where_the_directory_is_whole(tmp_path, sample_data):
    """The directory lies before the last tiles here, so that the file opens; what is missing is told."""
    with open_slide(sample_data / CMU) as slide:
        pixels = slide.read_level(0, Box(0, 0, 512, 512)).pixels
    path = tmp_path / "front.tif"
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="deflate")
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert page.offset < page.dataoffsets[0]
        path.write_bytes(content[: page.dataoffsets[3] + 10])
    with open_slide(path, mpp=0.5) as slide:
        region = slide.read_level(0, Box.from_size(slide.size))
        assert (slide.damaged_tiles, slide.damaged_area) == (1, {Box(256, 256, 256, 256)})
    assert region.damaged.sum() == 256 * 256
    assert np.array_equal(region.pixels[~region.damaged], pixels[~region.damaged])


@pytest.mark.parametrize("url", ["memory://no/such.tif", "no-such-protocol://a/b.svs"])
def test_urls_that_lead_nowhere(url):
    refused(url)


def test_what_is_not_rgb(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((5, 300, 300), np.uint16))
    assert "8-bit red, green and blue" in refused(tmp_path / "a.ome.tif")


def test_a_picture_too_large_for_memory(tmp_path):
    """100 kB that unpack to 1.2 GB."""
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    assert "too large for a plain picture" in refused(tmp_path / "bomb.png")


@pytest.mark.parametrize("mpp", [0.049, 20.1, 0, -1, float("nan"), float("inf")])
def test_an_implausible_mpp(sample_data, mpp):
    with pytest.raises(OptionError, match=r"0\.05 to 20"):
        open_slide(sample_data / CMU, mpp=mpp)


def test_a_stated_mpp_wins(sample_data):
    with open_slide(sample_data / CMU, mpp=0.25) as slide:
        assert (slide.mpp, slide.mpp_source, slide.recorded_mpp) == (Mpp(0.25, 0.25), "stated", Mpp(0.499, 0.499))


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20000, 20000), "CENTIMETER", 0.5),
        ((50800, 50800), "INCH", 0.5),
        ((72, 72), "INCH", None),
        ((2, 2), "NONE", None),
    ],
)
@pytest.mark.parametrize("tile", [None, (256, 256)])
def test_a_resolution_counts_where_it_is_one(tmp_path, resolution, unit, expected, tile):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((600, 600, 3), np.uint8), resolution=resolution, resolutionunit=unit, tile=tile
    )
    with open_slide(tmp_path / "a.tif") as slide:
        if expected is None:
            with pytest.raises(MissingMppError, match="--mpp"):
                _ = slide.mpp
        else:
            assert slide.mpp.x == pytest.approx(expected)


def test_every_reader_can_be_named():
    assert set(_OPENERS) == set(READERS)


def test_readers_by_name(sample_data):
    with pytest.raises(OptionError, match="openslide, tiff, image, tiffslide"):
        open_slide(sample_data / CMU, reader="bioformats")
    assert "not in a format that image reads" in refused(sample_data / CMU, reader="image")
    assert "not in a format that openslide reads" in refused(sample_data / "OS-1-detail.ome.tif", reader="openslide")
    with pytest.raises(OptionError, match="tiffslide"):
        open_slide("memory://a.svs", reader="openslide")


def test_importing_the_readers_loads_no_library():
    code = (
        "import sys, wsiseg.slides; libraries = 'openslide tifffile tiffslide fsspec PIL scipy torch'.split(); "
        "print([name for name in libraries if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
