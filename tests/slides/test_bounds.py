"""A slide whose scan is a part of its level 0: a Leica SCN, written here, read by OpenSlide's Leica driver."""

import numpy as np
import pytest
import tifffile

from wsiseg.geometry import Box, Level, Mpp, Size
from wsiseg.slides import open_slide

NM, WIDTH, HEIGHT, OFFSET_X, OFFSET_Y = 500, 2000, 1600, 334, 218

IMAGE = """<image name="{name}" uuid="{name}"><creationDate>2011-01-01T00:00:00Z</creationDate>
<device model="Leica SCN400" version="1"/><pixels sizeX="{width}" sizeY="{height}">{levels}</pixels>
<view sizeX="{view_x}" sizeY="{view_y}" offsetX="{x}" offsetY="{y}" spacingZ="0"/><scanSettings><objectiveSettings>
<objective>{power}</objective></objectiveSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"""


def description():
    """The XML that an SCN's first directory holds: a macro picture of all, and a scan of 800 x 640 within."""
    macro = IMAGE.format(
        name="macro", width=320, height=256, view_x=WIDTH * NM, view_y=HEIGHT * NM, x=0, y=0, power=0.6,
        levels='<dimension sizeX="320" sizeY="256" r="0" ifd="0"/>',
    )  # fmt: skip
    levels = (
        '<dimension sizeX="800" sizeY="640" r="0" ifd="1"/>'
        '<dimension sizeX="400" sizeY="320" r="1" ifd="2"/>'
    )  # fmt: skip
    scan = IMAGE.format(
        name="scan", width=800, height=640, view_x=800 * NM, view_y=640 * NM, x=OFFSET_X * NM, y=OFFSET_Y * NM,
        power=20, levels=levels,
    )  # fmt: skip
    namespace = "http://www.leica-microsystems.com/scn/2010/10/01"
    return (
        f'<?xml version="1.0"?><scn xmlns="{namespace}"><collection name="c" uuid="u" sizeX="{WIDTH * NM}" '
        f'sizeY="{HEIGHT * NM}"><barcode></barcode>{macro}{scan}</collection></scn>'
    )


@pytest.fixture(scope="module")
def path(sample_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("leica") / "bounds.scn"
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        pixels = slide.read_level(0, Box(700, 900, 800, 640)).pixels
    half = pixels.reshape(320, 2, 400, 2, 3).mean((1, 3)).astype(np.uint8)
    options = {"tile": (128, 128), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    options |= {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(np.full((256, 320, 3), 200, np.uint8), description=description(), **options)
        writer.write(pixels, **options)
        writer.write(half, subfiletype=1, **options)
    return path


def test_coordinates_begin_at_the_bounds(path):
    with tifffile.TiffFile(path) as tiff:
        truth = [page.asarray() for page in tiff.pages[1:]]
    with open_slide(path) as slide:
        assert (slide.reader, slide.vendor, slide.mpp) == ("OpenSlide", "leica", Mpp(0.5, 0.5))
        assert slide.bounds == Box(OFFSET_X, OFFSET_Y, 800, 640)
        assert slide.levels == (Level(Size(800, 640), 1, 1), Level(Size(400, 320), 2, 2))
        for index, pixels in enumerate(truth):
            height, width = pixels.shape[:2]
            assert np.array_equal(slide.read_level(index, Box(0, 0, width, height)).pixels, pixels)
            around = slide.read_level(index, Box(-9, -8, width + 20, height + 20)).pixels
            assert np.array_equal(around[8 : 8 + height, 9 : 9 + width], pixels)
            around[8 : 8 + height, 9 : 9 + width] = 255
            assert (around == 255).all()
        assert slide.grid(1.0).size == Size(400, 320)


def test_a_damaged_tile_within_bounds(path, tmp_path):
    """OpenSlide says neither where its tiles lie here nor which one failed: the area around is halved until it is."""
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[1]
        truth = page.asarray()
        index = 2 * 7 + 3  # row 2, column 3: pixels 384 to 512, 256 to 384
        content[page.dataoffsets[index] : page.dataoffsets[index] + page.databytecounts[index]] = bytes(
            page.databytecounts[index]
        )
    (tmp_path / "bad.scn").write_bytes(content)
    with open_slide(tmp_path / "bad.scn") as slide:
        region = slide.read_level(0, Box.from_size(slide.size))
        assert region.damaged[256:384, 384:512].all()
        assert (region.pixels[region.damaged] == 255).all()
        assert np.array_equal(region.pixels[~region.damaged], truth[~region.damaged])
        assert region.damaged.sum() <= 9 * 256 * 256
        found = slide.damaged_tiles
        again = slide.read_level(0, Box.from_size(slide.size))
        assert np.array_equal(again.damaged, region.damaged)
        assert slide.damaged_tiles == found
