"""TIFFs of every kind, written here from known pixels: read exactly as they are, or refused by name."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsiseg.errors import OptionError, SlideError
from wsiseg.geometry import Box, Mpp, Size
from wsiseg.slides import open_slide
from wsiseg.slides.tiff.ome_xml import length_um
from wsiseg.slides.tiff.pyramid import Candidate, fit_levels

TILED = {"tile": (128, 128), "photometric": "rgb"}
GREY_TILED = {"tile": (128, 128), "photometric": "minisblack"}


@pytest.fixture(scope="module")
def pixels(sample_data):
    """(400, 500, 3): tissue and glass."""
    return np.ascontiguousarray(tifffile.imread(sample_data / "CMU-1-Small-Region.svs")[900:1300, 700:1200])


def half(pixels):
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    return pixels[: height * 2, : width * 2].reshape(height, 2, width, 2, 3).mean((1, 3)).astype(np.uint8)


def planes(pixels):
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def write_ome(path: Path, pixels, axes: str, *, levels=(), **options) -> Path:
    metadata = {"axes": axes, **options.pop("metadata", {})}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(pixels, subifds=len(levels), metadata=metadata, **options)
        for level in levels:
            writer.write(level, subfiletype=1, **options)
    return path


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a"><Image ID="Image:0"><Pixels '
    'ID="Pixels:0" DimensionOrder="XYCZT" SizeC="3" SizeT="1" SizeZ="1" SizeX="500" SizeY="400" Type="uint8" {size}>'
    "{channels}{data}</Pixels></Image></OME>"
)
ONE = '<Channel ID="Channel:0" SamplesPerPixel="3"/>'
HALF_UM = 'PhysicalSizeX="0.5" PhysicalSizeY="0.5"'


def write_xml(path: Path, pixels, *, size=HALF_UM, channels=ONE, data="<TiffData/>", encode=str.encode, **options):
    text = encode(OME.format(size=size, channels=channels, data=data))
    tifffile.imwrite(path, pixels, description=text, metadata=None, **{**TILED, **options})
    return path


def in_memory(path: Path) -> str:
    """The address of a copy of a file that is no path."""
    fsspec.filesystem("memory").pipe(f"/{path.parent.name}/{path.name}", path.read_bytes())
    return f"memory://{path.parent.name}/{path.name}"


def require_pixels(path: Path, *levels) -> None:
    """The slide has these levels, pixel by pixel, by path and by address."""
    for place in (path, in_memory(path)):
        with open_slide(place, mpp=0.5) as slide:
            assert slide.reader == "tifffile"
            assert len(slide.levels) == len(levels), slide.left_out
            for index, (level, expected) in enumerate(zip(slide.levels, levels, strict=True)):
                assert level.size.shape == expected.shape[:2]
                read = slide.read_level(index, Box(-3, -3, level.size.width + 6, level.size.height + 6)).pixels
                assert np.array_equal(read[3:-3, 3:-3], expected)
                assert (read[:3] == 255).all()
            assert slide.damaged_tiles == 0


def refused(path: Path, **options) -> str:
    with pytest.raises(SlideError) as caught:
        open_slide(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(path.name)
    assert "may be damaged" not in message
    return message


LAYOUTS = {
    "tiles": {"tile": (128, 128)},
    "strips": {"rowsperstrip": 48},
    "strips of a row": {"rowsperstrip": 1},
    "one strip": {"rowsperstrip": 400},
    "planar tiles": {"tile": (128, 128), "planarconfig": "separate"},
    "planar strips": {"rowsperstrip": 30, "planarconfig": "separate"},
    "planar, one strip": {"rowsperstrip": 400, "planarconfig": "separate"},
}
CODECS = [None, "lzw", "deflate", "zstd", "packbits", "jpeg2000", "jpegxl", "png"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_codecs(tmp_path, pixels, layout):
    for codec in CODECS:
        path = tmp_path / f"{codec}.tif"
        stored = planes(pixels) if "planar" in layout else pixels
        tifffile.imwrite(path, stored, photometric="rgb", compression=codec, **LAYOUTS[layout])
        require_pixels(path, pixels)


@pytest.mark.parametrize(
    "options",
    [
        {"byteorder": ">", "bigtiff": True},
        {"predictor": True, "compression": "lzw"},
        {"compression": "webp", "compressionargs": {"lossless": True}},
    ],
)
def test_byte_order_predictor_and_webp(tmp_path, pixels, options):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **TILED, **options)
    require_pixels(tmp_path / "a.tif", pixels)


@pytest.mark.parametrize("layout", ["tiles", "strips", "planar strips"])
def test_jpeg_is_what_tifffile_decodes(tmp_path, pixels, layout):
    path = tmp_path / "a.tif"
    stored = planes(pixels) if "planar" in layout else pixels
    tifffile.imwrite(path, stored, photometric="rgb", compression="jpeg", **LAYOUTS[layout])
    truth = tifffile.imread(path)
    require_pixels(path, truth.transpose(1, 2, 0) if "planar" in layout else truth)


@pytest.mark.parametrize("made", [lambda p: p.astype(np.uint16) * 257, lambda p: p.astype(np.uint16) << 8])
@pytest.mark.parametrize("options", [TILED, {"photometric": "rgb"}, {"photometric": "rgb", "byteorder": ">"}])
def test_16_bits_that_are_made_use_of(tmp_path, pixels, made, options):
    tifffile.imwrite(tmp_path / "a.tif", made(pixels), **options)
    require_pixels(tmp_path / "a.tif", pixels)


def test_a_palette(tmp_path, pixels):
    image = Image.fromarray(pixels).quantize(64)
    image.save(tmp_path / "a.tif")
    require_pixels(tmp_path / "a.tif", np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_what_is_transparent_is_on_white(tmp_path, pixels, kind):
    alpha = np.full((400, 500, 1), 255, np.uint8)
    alpha[:100] = 0
    stored = np.concatenate([pixels, alpha], axis=-1)
    if kind == "assocalpha":
        stored[:100] = 0
    tifffile.imwrite(tmp_path / "a.tif", stored, extrasamples=[kind], **TILED)
    expected = pixels.copy()
    expected[:100] = 255
    require_pixels(tmp_path / "a.tif", expected)


@pytest.mark.parametrize("codec", [None, "lzw", "zstd", "jpeg", "jpeg2000"])
def test_tiles_that_are_left_out_are_white(tmp_path, pixels, codec):
    def tiles():
        for y in range(0, 400, 128):
            for x in range(0, 500, 128):
                tile = np.full((128, 128, 3), 255, np.uint8)
                part = pixels[y : y + 128, x : x + 128]
                tile[: part.shape[0], : part.shape[1]] = part
                yield None if (y, x) == (128, 256) else tile

    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tiles(), shape=pixels.shape, dtype=np.uint8, compression=codec, **TILED)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].databytecounts[6] == 0
    expected = pixels.copy() if codec != "jpeg" else tifffile.imread(path)
    expected[128:256, 256:384] = 255
    require_pixels(path, expected)


@pytest.mark.parametrize("layout", [{}, {"tile": (128, 128)}], ids=["strips", "tiles"])
def test_pixels_that_are_not_read(tmp_path, pixels, layout):
    grey = pixels[..., 0]
    path = tmp_path / "a.tif"
    for stored, photometric, expected in (
        (grey, "minisblack", "got grey, one channel"),
        (grey, "miniswhite", "got grey (white is zero), one channel"),
        (grey > 99, "minisblack", "type bool"),
        ((pixels / 255).astype(np.float32), "rgb", "floating point (float32)"),
        (pixels.astype(np.uint16) * 16, "rgb", "none of which is above 4095"),
        (pixels.astype(np.int8), "rgb", "type int8"),
        (np.concatenate([pixels, pixels[..., :2]], axis=-1), "rgb", "5 channels"),
    ):
        planar = {"planarconfig": "contig"} if stored.ndim == 3 else {}
        tifffile.imwrite(path, stored, photometric=photometric, **layout, **planar)
        message = refused(path)
        assert expected in message
        assert "convert it" in message


def test_a_picture_stored_turned_is_refused(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=[(274, 3, 1, 6, True)], **TILED)
    assert "orientation 6" in refused(tmp_path / "a.tif")


class TestOme:
    """OME-TIFF, also where OpenSlide takes it for any TIFF."""

    def test_three_channels_are_red_green_and_blue(self, tmp_path, pixels):
        """Read in grey once: an empty map."""
        for options in (GREY_TILED, {"photometric": "minisblack"}):
            write_ome(tmp_path / "a.ome.tif", planes(pixels), "CYX", levels=[planes(half(pixels))], **options)
            require_pixels(tmp_path / "a.ome.tif", pixels, half(pixels))

    def test_channels_are_taken_by_their_names(self, tmp_path, pixels):
        names = {"Channel": {"Name": ["Blue", "Green", "Red"]}}
        write_ome(tmp_path / "a.ome.tif", planes(pixels[..., ::-1]), "CYX", metadata=names, **GREY_TILED)
        require_pixels(tmp_path / "a.ome.tif", pixels)

    def test_planar_strips_with_levels(self, tmp_path, pixels):
        options = {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 64, "compression": "lzw"}
        write_ome(tmp_path / "a.ome.tif", planes(pixels), "SYX", levels=[planes(half(pixels))], **options)
        require_pixels(tmp_path / "a.ome.tif", pixels, half(pixels))

    @pytest.mark.parametrize("channels", [1, 2, 4, 5])
    def test_other_numbers_of_channels(self, tmp_path, pixels, channels):
        write_ome(tmp_path / "a.ome.tif", np.stack([pixels[..., 0]] * channels), "CYX", **GREY_TILED)
        assert ("grey" if channels == 1 else f"{channels} channels") in refused(tmp_path / "a.ome.tif")

    @pytest.mark.parametrize(
        "channel", [{"Name": ["DAPI", "FITC", "Cy3"]}, {"EmissionWavelength": [450, 520, 580]}], ids=["names", "waves"]
    )
    def test_fluorescence(self, tmp_path, pixels, channel):
        write_ome(tmp_path / "a.ome.tif", planes(pixels), "CYX", metadata={"Channel": channel}, **GREY_TILED)
        assert "got fluorescence" in refused(tmp_path / "a.ome.tif")

    def test_three_dark_channels_without_a_name(self, tmp_path, pixels):
        write_ome(tmp_path / "a.ome.tif", planes((255 - pixels) // 3), "CYX", **GREY_TILED)
        assert "mostly dark" in refused(tmp_path / "a.ome.tif")

    @pytest.mark.parametrize(("axes", "expected"), [("ZYXS", "z-stack of 3"), ("TYXS", "time series of 3")])
    def test_stacks(self, tmp_path, pixels, axes, expected):
        write_ome(tmp_path / "a.ome.tif", np.stack([pixels] * 3), axes, **TILED)
        message = refused(tmp_path / "a.ome.tif")
        assert expected in message
        assert "bfconvert" in message

    @pytest.mark.parametrize(
        "encode",
        [
            lambda text: b"\xef\xbb\xbf" + text.encode(),
            lambda text: ('<?xml version="1.0" encoding="UTF-16"?>' + text).encode("utf-16"),
            lambda text: (
                text.replace("<", "<ome:").replace("<ome:/", "</ome:").replace("xmlns=", "xmlns:ome=").encode()
            ),
        ],
        ids=["byte order mark", "UTF-16", "prefix"],
    )
    def test_xml_in_other_forms(self, tmp_path, pixels, encode):
        with open_slide(write_xml(tmp_path / "a.ome.tif", pixels, encode=encode)) as slide:
            assert (slide.vendor, slide.mpp, slide.mpp_source) == ("ome", Mpp(0.5, 0.5), "OME-XML")

    def test_the_xml_counts_where_the_tags_disagree(self, tmp_path, pixels):
        path = write_xml(tmp_path / "a.ome.tif", pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
        with open_slide(path) as slide:
            assert slide.mpp == Mpp(0.5, 0.5)
            assert "the OME-XML counts" in slide.notes[0]

    def test_a_unit_that_is_no_length(self, tmp_path, pixels):
        size = 'PhysicalSizeX="0.5" PhysicalSizeXUnit="pixel" PhysicalSizeY="0.5" PhysicalSizeYUnit="pixel"'
        with open_slide(write_xml(tmp_path / "a.ome.tif", pixels, size=size)) as slide:
            assert slide.recorded_mpp is None

    def test_planes_in_other_files(self, tmp_path, pixels):
        block = '<TiffData IFD="0" FirstC="{0}" PlaneCount="1"><UUID FileName="{1}.tif">urn:uuid:{1}</UUID></TiffData>'
        path = write_xml(tmp_path / "a.ome.tif", pixels, data=block.format(0, "b"))
        assert "lies in b.tif" in refused(path)
        channels = "".join(f'<Channel ID="Channel:{i}"/>' for i in range(3))
        data = "".join(block.format(i, "abc"[i]) for i in range(3))
        path = write_xml(path, pixels[..., 0], channels=channels, data=data, photometric="minisblack")
        assert "2 lie in other files" in refused(path)

    def test_a_renamed_file_is_still_itself(self, tmp_path, pixels):
        data = '<TiffData IFD="0" PlaneCount="1"><UUID FileName="before.tif">urn:uuid:a</UUID></TiffData>'
        require_pixels(write_xml(tmp_path / "a.ome.tif", pixels, data=data), pixels)

    def test_metadata_in_a_companion(self, tmp_path, pixels):
        space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
        text = f'<OME xmlns="{space}"><BinaryOnly MetadataFile="a.companion.ome"/></OME>'
        tifffile.imwrite(tmp_path / "a.ome.tif", pixels, description=text, metadata=None, **TILED)
        with open_slide(tmp_path / "a.ome.tif") as slide:
            assert "a.companion.ome, which is not read" in slide.notes[0]
            assert slide.recorded_mpp is None


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        *[("0.25", unit, 0.25) for unit in (None, "um", "\u00b5m", "\u03bcm", "\u200bµm ", "micron", "Âµm")],
        *[("250", "nm", 0.25), ("2500", "Å", 0.25), ("2500", "A\u030a", 0.25), ("0.00025", "mm", 0.25)],
        *[("0.000025", "cm", 0.25), ("2.5e-7", "m", 0.25), ("250000", "pm", 0.25), ("1e-5", "inch", 0.254)],
        *[
            ("1", "pixel", None),
            ("1", "reference frame", None),
            ("0", "um", None),
            ("-1", "um", None),
            ("x", "um", None),
        ],
    ],
)
def test_lengths(value, unit, expected):
    assert length_um(value, unit) == (None if expected is None else pytest.approx(expected))


class TestSeveralImages:
    @pytest.fixture
    def path(self, tmp_path, pixels):
        """A label, a scan at half the resolution, the slide, and a macro that has more pixels than it."""
        path = tmp_path / "a.ome.tif"
        um = [{"Name": name, "PhysicalSizeX": x, "PhysicalSizeY": x} for name, x in (("coarse", 1.0), ("fine", 0.5))]
        with tifffile.TiffWriter(path, ome=True) as writer:
            writer.write(pixels[:99, :80], metadata={"axes": "YXS", "Name": "label"}, photometric="rgb")
            writer.write(half(pixels), metadata={"axes": "YXS", **um[0]}, **TILED)
            writer.write(pixels, metadata={"axes": "YXS", **um[1]}, **TILED)
            writer.write(np.tile(pixels, (2, 1, 1)), metadata={"axes": "YXS", "Name": "macro image"}, **TILED)
        return path

    def test_the_largest_at_the_finest_resolution_is_the_slide(self, path, pixels):
        with open_slide(path) as slide:
            assert (slide.size, slide.mpp) == (Size(500, 400), Mpp(0.5, 0.5))
            assert np.array_equal(slide.read_level(0, Box.from_size(slide.size)).pixels, pixels)
            assert [image.role for image in slide.images] == ["label", "image", "slide", "macro"]
            assert slide.associated == {"label": Size(80, 99), "macro": Size(500, 800)}
            assert np.array_equal(slide.read_associated("label"), pixels[:99, :80])
            assert "--series" in slide.notes[0]

    @pytest.mark.parametrize("series", [1, "1", "coarse", "Coarse"])
    def test_another_by_number_or_name(self, path, pixels, series):
        with open_slide(path, series=series) as slide:
            assert (slide.size, slide.mpp) == (Size(250, 200), Mpp(1, 1))
            assert np.array_equal(slide.read_level(0, Box.from_size(slide.size)).pixels, half(pixels))

    @pytest.mark.parametrize("series", [4, -1, "none"])
    def test_one_that_is_not_there(self, path, series):
        with pytest.raises(OptionError, match=r"2 \(fine\)"):
            open_slide(path, series=series)

    def test_pictures_of_one_size_are_no_slide(self, tmp_path, pixels):
        tifffile.imwrite(tmp_path / "a.tif", np.stack([pixels] * 3), metadata=None, **TILED)
        assert "--series" in refused(tmp_path / "a.tif")
        with open_slide(tmp_path / "a.tif", series=2) as slide:
            assert slide.size == Size(500, 400)


class TestLevels:
    def test_pages_without_a_word(self, tmp_path, pixels):
        """In any order, with a macro and a grey picture between them that are no levels."""
        quarter = half(half(pixels))
        for order in ((pixels, half(pixels), quarter), (quarter, half(pixels), pixels)):
            with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
                for level in order:
                    writer.write(level, metadata=None, **TILED)
                writer.write(pixels[:200, :440], metadata=None, **TILED)
                writer.write(quarter[::2, ::2, 0], metadata=None, **GREY_TILED)
            require_pixels(tmp_path / "a.tif", pixels, half(pixels), quarter)
            with open_slide(tmp_path / "a.tif") as slide:
                assert len(slide.left_out) == 2
                assert "440 x 200 px" in " ".join(slide.left_out)

    def test_levels_filled_up_to_whole_tiles(self, tmp_path, pixels):
        levels = [pixels, half(pixels), half(half(pixels))]
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for level in levels:
                fill = [(0, -side % 128) for side in level.shape[:2]] if level is not pixels else [(0, 0), (0, 0)]
                stored = np.pad(level, [*fill, (0, 0)], constant_values=0)
                writer.write(stored, metadata=None, **TILED)
        require_pixels(tmp_path / "a.tif", *levels)
        with open_slide(tmp_path / "a.tif", mpp=0.5) as slide:
            assert [level.downsample for level in slide.levels] == [1, 2, 4]
            assert "filled up to whole tiles" in slide.notes[0]

    def test_the_shared_samples_map_to_the_same_pixels(self, shared):
        folder = shared / "cases" / "slides"
        with (
            open_slide(folder / "levels_padded_to_tiles.tif") as padded,
            open_slide(folder / "levels_not_padded_reference.tif") as plain,
        ):
            assert padded.levels == plain.levels
            for index, level in enumerate(plain.levels):
                box = Box.from_size(level.size)
                assert np.array_equal(padded.read_level(index, box).pixels, plain.read_level(index, box).pixels)

    def test_a_tiled_label_of_an_svs_is_no_level(self, tmp_path, pixels):
        about = "Aperio Image Library v11\r\n{}|AppMag = 20|MPP = 0.5"
        options = {**TILED, "tile": (240, 240), "compression": "jpeg", "metadata": None}
        with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
            writer.write(pixels, description=about.format("500x400"), **options)
            writer.write(pixels[::4, ::4], description=about.format("thumbnail"), photometric="rgb", metadata=None)
            writer.write(half(pixels), description=about.format("250x200"), **options)
            writer.write(pixels[:150, :140], description="Aperio Image Library v11\r\nlabel 140x150", **options)
        opened = [open_slide(place) for place in (tmp_path / "a.svs", in_memory(tmp_path / "a.svs"))]
        assert [slide.reader for slide in opened] == ["OpenSlide", "tifffile"]
        for slide in opened:
            assert [level.size for level in slide.levels] == [Size(500, 400), Size(250, 200)]
            assert (slide.mpp, slide.objective, slide.bounds, slide.vendor) == (Mpp(0.5, 0.5), 20, None, "aperio")
            assert slide.left_out == ("a picture of 140 x 150 px called label, which is not a level",)
        regions = [slide.read_level(1, Box(-5, -5, 300, 300)).pixels for slide in opened]
        assert np.array_equal(*regions)
        assert np.array_equal(*[slide.read_associated("thumbnail") for slide in opened])
        for slide in opened:
            slide.close()

    def test_the_shipped_svs_by_path_and_by_address(self, sample_data):
        path = sample_data / "CMU-1-Small-Region.svs"
        with open_slide(path) as one, open_slide(in_memory(path)) as other:
            for name in ("levels", "mpp", "objective", "bounds", "associated", "vendor", "left_out", "notes"):
                assert getattr(one, name) == getattr(other, name)
            assert one.quick_hash() == other.quick_hash()
            for name in one.associated:
                assert np.array_equal(one.read_associated(name), other.read_associated(name))
            box = Box(1500, 2000, 1000, 1200)
            assert np.array_equal(one.read_level(0, box).pixels, other.read_level(0, box).pixels)


def test_an_scn_is_not_read_by_address(tmp_path, pixels):
    scn = '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"></scn>'
    tifffile.imwrite(tmp_path / "a.scn", pixels, description=scn, metadata=None, **TILED)
    with pytest.raises(SlideError, match="Leica SCN slide, which is read only from this machine's disks"):
        open_slide(in_memory(tmp_path / "a.scn"))


@pytest.mark.parametrize(
    ("sizes", "tile", "expected"),
    [
        ([(1000, 800), (500, 400), (333, 267)], 256, [1, 2, 3]),
        ([(1000, 1000), (512, 512), (256, 256)], 256, [1, 2, 4]),
        ([(1024, 896), (512, 512), (256, 256), (128, 128), (128, 128)], 128, [1, 2, 4, 8, 16]),
        ([(5000, 3000), (1280, 768), (512, 256)], 256, [1, 4, 16]),
        ([(1000, 800), (500, 300)], 250, [1]),
        ([(1000, 800), (1000, 800), (1200, 960)], None, [1]),
        ([(1000, 800), (387, 310)], None, [1, 1000 / 387]),
        ([(2220, 2967), (574, 768), (1280, 431)], None, [1, 2220 / 574]),
    ],
)
def test_which_are_levels(sizes, tile, expected):
    candidates = [Candidate(Size(*size), None if tile is None else Size(tile, tile)) for size in sizes]
    levels, out = fit_levels(candidates)
    assert [fit.level.downsample_x for fit in levels] == pytest.approx(expected)
    assert len(levels) + len(out) == len(sizes)
