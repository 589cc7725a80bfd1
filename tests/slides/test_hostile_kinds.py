"""Files of strangers: what looked right and was read wrongly, made from known pixels."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import fsspec
import imagecodecs
import numpy as np
import pytest
import tifffile

from tests.helpers.dicom_files import HTJ2K, JPEG, JPEGLS, RAW, RLE, Kind, header, write_level, write_slide
from wsiseg.errors import OptionError, SlideError
from wsiseg.geometry import Box, Mpp, Size
from wsiseg.slides import open_slide
from wsiseg.slides.damage import UnreadableError
from wsiseg.slides.dicom.codecs import decode
from wsiseg.slides.tiff.aperio import aperio_size
from wsiseg.slides.tiff.ome_xml import ome_text
from wsiseg.slides.tiff.pyramid import Candidate, fit_levels
from wsiseg.system.files import refuse_address

TILED = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
APERIO = "Aperio Image Library v11.2.1 \r\n"


@pytest.fixture(scope="module")
def pixels(sample_data):
    """(640, 800, 3): tissue with structure."""
    return np.ascontiguousarray(tifffile.imread(sample_data / "CMU-1-Small-Region.svs")[900:1540, 700:1500])


def reduced(pixels, factor):
    height, width = (side // factor * factor for side in pixels.shape[:2])
    parts = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return parts.mean((1, 3)).round().astype(np.uint8)


def turned(pixels):
    return np.ascontiguousarray(pixels[::-1, ::-1])


def tiles(pixels, encode):
    for y in range(0, pixels.shape[0], 128):
        for x in range(0, pixels.shape[1], 128):
            tile = np.full((128, 128, 3), 255, np.uint8)
            part = pixels[y : y + 128, x : x + 128]
            tile[: part.shape[0], : part.shape[1]] = part
            yield encode(tile)


def write(path: Path, *pages, **options) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for page, own in pages:
            writer.write(page, **{**TILED, **options, **own})
    return path


def address(path: Path) -> str:
    fsspec.filesystem("memory").pipe(f"/{path.parent.name}/{path.name}", path.read_bytes())
    return f"memory://{path.parent.name}/{path.name}"


def read(path) -> np.ndarray:
    with open_slide(path) as slide:
        found = slide.read_level(0, Box.from_size(slide.levels[0].size)).pixels
        assert slide.damaged_tiles == 0
        return found


def refused(path, **options) -> str:
    with pytest.raises(SlideError) as caught:
        open_slide(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "may be damaged" not in message
    return message


def test_a_fourth_sample_that_is_no_alpha_hides_nothing(tmp_path, pixels):
    rest = np.zeros((*pixels.shape[:2], 1), np.uint8)
    path = write(tmp_path / "a.tif", (np.concatenate([pixels, rest], -1), {"extrasamples": ["unspecified"]}))
    assert np.array_equal(read(path), pixels)


def to_ycbcr(rgb):
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    stored = np.stack([light, (blue - light) / 1.772 + 128, (red - light) / 1.402 + 128], -1)
    return np.rint(stored).clip(0, 255).astype(np.uint8)


def test_ycbcr_that_no_decoder_converts(tmp_path, pixels):
    stored = to_ycbcr(pixels)
    same = {"photometric": "ycbcr", "subsampling": (1, 1)}
    planes = np.ascontiguousarray(stored.transpose(2, 0, 1))
    planar = write(tmp_path / "p.tif", (planes, {**same, "planarconfig": "separate", "compression": "jpeg"}))
    assert np.abs(read(planar).astype(int) - pixels).mean() < 4
    for number, (data, transform) in enumerate(((stored, False), (pixels, True))):
        path = tmp_path / f"{number}.tif"
        encoded = tiles(data, lambda t, mct=transform: imagecodecs.jpeg2k_encode(t, codecformat="j2k", mct=mct))
        tifffile.imwrite(path, encoded, shape=pixels.shape, dtype=np.uint8, compression=34712, **{**TILED, **same})
        assert np.abs(read(path).astype(int) - pixels).max() <= 1


def test_j2k_ycbcr_of_aperio_by_address(tmp_path, pixels):
    encoded = tiles(to_ycbcr(pixels), lambda t: imagecodecs.jpeg2k_encode(t, codecformat="j2k", mct=False))
    path, text = tmp_path / "a.svs", f"{APERIO}800x640 (128x128) J2K/YUV16|AppMag = 20|MPP = 0.4990"
    options = {**TILED, "compression": 33003, "description": text}
    tifffile.imwrite(path, encoded, shape=pixels.shape, dtype=np.uint8, **options)
    assert np.abs(read(address(path)).astype(int) - pixels).max() <= 1
    assert np.abs(read(path).astype(int) - pixels).max() <= 2


def test_bits_in_reverse_order_are_refused(tmp_path, pixels):
    path = write(tmp_path / "a.tif", (pixels, {"extratags": [(65010, 3, 1, 2, True)]}))
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[65010].offset
    data = bytearray(path.read_bytes())
    data[place : place + 2] = (266).to_bytes(2, "little")
    path.write_bytes(data)
    assert "FillOrder" in refused(path)


def test_padded_levels_of_odd_factors_are_left_out_rather_than_guessed():
    base, tile = Size(2220, 2967), Size(128, 128)
    sizes = [Size(896, 1280), Size(384, 512), Size(256, 256)]  # 2.5, 6.25, 15.6, filled up
    fitted, out = fit_levels([Candidate(base, tile), *(Candidate(size, tile) for size in sizes)])
    assert [fit.index for fit in fitted] == [0]
    assert all("cannot be told" in why for why in out.values())
    assert len(out) == 3


@pytest.mark.parametrize("by", [Path, address])
def test_a_picture_of_something_else_is_no_level(tmp_path, pixels, by):
    path = write(tmp_path / "a.tif", (pixels, {}), (reduced(pixels, 2), {}), (reduced(turned(pixels), 4), {}))
    with open_slide(by(path), mpp=0.5) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2]
        assert any("shows something else" in line for line in slide.left_out)


def test_a_picture_of_something_else_is_no_level_of_an_svs(tmp_path, pixels):
    text = f"{APERIO}800x640 [0,0 800x640] (128x128) JPEG/RGB Q=90|AppMag = 20|MPP = 0.4990"
    pages = ((pixels, {"description": text}), (reduced(pixels, 4), {"description": f"{APERIO}800x640 -> 200x160"}))
    stranger = (reduced(turned(pixels), 2), {"description": f"{APERIO}800x640 -> 400x320"})
    path = write(tmp_path / "a.svs", *pages, stranger)
    with open_slide(path) as slide:
        assert [level.downsample for level in slide.levels] == [1, 4]
        assert any("shows something else" in line for line in slide.left_out)


def test_several_planes_in_an_svs_are_refused(tmp_path, pixels):
    text = f"{APERIO}800x640 (128x128) J2K|AppMag = 20|MPP = 0.4990|OffsetZ = 1"
    path = write(tmp_path / "a.svs", (pixels, {"description": text}), (turned(pixels), {"description": text}))
    assert "z-stack of 2 planes" in refused(path)
    assert "z-stack of 2 planes" in refused(address(path))


@pytest.mark.parametrize("by", [Path, address])
def test_a_description_of_another_size_gives_no_resolution(tmp_path, pixels, by):
    text = f"{APERIO}1600x1280 [0,0 1600x1280] (128x128) JPEG/RGB Q=90|AppMag = 20|MPP = 0.4990"
    svs = write(tmp_path / "a.svs", (pixels, {"description": text}))
    xml = OME.format(width=1600, height=1280, rest='PhysicalSizeX="0.5" PhysicalSizeY="0.5"', data="<TiffData/>")
    ome = write(tmp_path / "b.ome.tif", (pixels, {"description": xml}))
    for path in (svs, ome):
        with open_slide(by(path)) as slide:
            assert slide.recorded_mpp is None
            assert any("resized or cut" in note for note in slide.notes)


def test_the_size_that_a_description_states():
    crop = (
        "46000x32914 [42673,5576 2220x2967] (240x240) JPEG;Aperio v10\r\n46920x33014 [0,100 46000x32914] -> 1x1|MPP = 1"
    )
    assert aperio_size(APERIO + crop) == Size(2220, 2967)
    assert aperio_size(f"{APERIO}4443x3567 (256x256) -> 2221x1783 J2K") == Size(2221, 1783)
    assert aperio_size("Aperio") is None


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYCZT" SizeC="3" SizeT="1" SizeZ="1" SizeX="{width}" SizeY="{height}" Type="uint8" {rest}>'
    '<Channel ID="Channel:0" Name="CD3" SamplesPerPixel="3"/>{data}</Pixels></Image></OME>'
)


def test_the_largest_is_the_slide_also_without_resolution(tmp_path, pixels):
    fine = {"resolution": (20000, 20000), "resolutionunit": 3}
    path = write(tmp_path / "a.tif", (pixels, {}), (turned(pixels)[:300, :700], fine))
    with open_slide(path, mpp=0.5) as slide:
        assert slide.size == Size(800, 640)


@pytest.mark.parametrize("unit", ["mm", "cm", "inch"])
@pytest.mark.parametrize("tag", [None, 2, 3])
def test_the_unit_of_imagej_counts(tmp_path, pixels, unit, tag):
    per = {"mm": 2000, "cm": 20000, "inch": 50800}[unit]
    options = {} if tag is None else {"resolutionunit": tag}
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        imagej=True,
        photometric="rgb",
        resolution=(per, per),
        metadata={"unit": unit},
        **options,
    )
    with open_slide(tmp_path / "a.tif") as slide:
        assert (slide.mpp.x, slide.mpp.y) == pytest.approx((0.5, 0.5))


def test_ome_xml_however_it_begins(tmp_path, pixels):
    plain = OME.format(width=800, height=640, rest='PhysicalSizeX="0.5" PhysicalSizeY="0.5"', data="<TiffData/>")
    for start in ('<?xml version="1.0"?><?xml-stylesheet href="a"?>', '<!DOCTYPE OME [<!ENTITY a "b">]>', "<!-- a -->"):
        path = write(tmp_path / "a.ome.tif", (pixels, {"description": start + plain}))
        with open_slide(path) as slide:
            assert slide.vendor == "ome"
            assert slide.mpp == Mpp(0.5, 0.5)
    assert ome_text(plain.encode("utf-16-be") + b"\0") == plain
    bomb = '<!DOCTYPE OME [<!ENTITY a0 "aaaaaaaaaa">'
    bomb += "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10)) + "]>"
    path = write(tmp_path / "b.ome.tif", (pixels, {"description": bomb + plain.replace("CD3", "&a9;")}))
    assert "OME-XML that cannot be read" in refused(path)


def test_planes_that_a_companion_describes_are_refused(tmp_path, pixels):
    companion = '<BinaryOnly MetadataFile="a.companion.ome"/>'
    xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{companion}</OME>'
    path = write(tmp_path / "a.ome.tif", (pixels, {"description": xml}), (turned(pixels), {}))
    assert "--series" in refused(path)


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.czi", b"ZISRAWFILE", "Zeiss CZI slide, which is read only from this machine's disks"),
        ("a.svs", b"ZISRAWFILE", "Zeiss CZI slide"),
        ("a.vsi", None, "Olympus VSI slide, which is not read"),
        ("a.scn", None, "Leica SCN slide"),
        ("a.ndpi", None, "Hamamatsu NDPI slide"),
        ("a.svs", b"<!DOCTYPE html><html>", "web page"),
        ("a.svs", b"version https://git-lfs.github.com/spec/v1\n", "git-LFS"),
    ],
)
def test_vendors_by_address_are_told_by_name_and_content(sample_data, tmp_path, name, head, expected):
    path = tmp_path / name
    path.write_bytes((sample_data / "CMU-1-Small-Region.svs").read_bytes() if head is None else head + b" " * 500)
    assert expected in refused(address(path))


def test_stitched_tiffs_by_address_are_refused(tmp_path, pixels):
    path = write(tmp_path / "a.tif", (pixels, {"software": "MedScan", "description": "OverlapsXY=4 4;"}))
    assert "Trestle" in refused(address(path))


def test_a_png_of_12_bits_in_16_is_refused(tmp_path, pixels):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels.astype(np.uint16) * 16))
    assert "made use of" in refused(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(pixels.astype(np.uint16) * 257))
    assert np.array_equal(read(tmp_path / "b.png"), pixels)


# --- DICOM -----------------------------------------------------------------------------------------------------------


def implicit(path: Path) -> None:
    found = header(path)
    if found.file_meta.TransferSyntaxUID == RAW:
        found.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
        found.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)


def planar(path: Path) -> None:
    found = header(path)
    if found.file_meta.TransferSyntaxUID == RAW:
        size = int(found.NumberOfFrames) * found.Rows * found.Columns * 3
        samples = np.frombuffer(found.PixelData, np.uint8)[:size].reshape(-1, found.Rows, found.Columns, 3)
        found.PixelData, found.PlanarConfiguration = samples.transpose(0, 3, 1, 2).tobytes(), 1
        found.save_as(path)


@pytest.mark.parametrize("change", [implicit, planar])
@pytest.mark.parametrize("sparse", [False, True])
def test_uncompressed_dicom_however_it_is_laid_out(tmp_path, pixels, change, sparse):
    for path in write_slide(tmp_path / "a", pixels, Kind(RAW, "RGB", sparse=sparse)):
        change(path)
    assert np.array_equal(read(tmp_path / "a"), pixels)


def test_htj2k_of_dicom(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(imagecodecs, "jpeg2k_encode", lambda rgb, **_: imagecodecs.htj2k_encode(rgb, reversible=True))
    write_level(tmp_path, pixels, 0.5, Kind(HTJ2K, "YBR_RCT"))
    assert np.array_equal(read(tmp_path), pixels)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind(RAW, "YBR_FULL_422", stored="YBR_FULL"), "YBR_FULL_422"),
        (Kind(RLE, "YBR_RCT"), "YBR_RCT"),
        (Kind(JPEGLS, "YBR_ICT"), "YBR_ICT"),
        (Kind(RAW, "RGB", changes={"PixelRepresentation": 1}), "signed"),
    ],
)
def test_dicom_colours_that_are_not_known_are_refused_not_damage(tmp_path, pixels, kind, expected):
    write_level(tmp_path, pixels, 0.5, kind)
    assert expected in refused(tmp_path)


def test_jpeg_with_less_colour_than_light_is_ybr(tmp_path, pixels):
    write_level(tmp_path, pixels, 0.5, Kind(JPEG, "RGB", stored="YBR_FULL_422"))
    assert np.abs(read(tmp_path).astype(int) - pixels).mean() < 5


def test_a_dicom_image_of_something_else_is_no_level(tmp_path, pixels):
    write_slide(tmp_path, pixels, Kind(RAW, "RGB"))
    flavor = ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")
    write_level(tmp_path, reduced(turned(pixels), 2), 1.0, Kind(RAW, "RGB"), number=9, flavor=flavor)
    with open_slide(tmp_path) as slide:
        assert [level.downsample for level in slide.levels] == [1, 4]
        assert any("shows something else" in note for note in slide.notes)
        assert slide.read_associated("label").shape == (60, 40, 3)


def test_a_dicomdir_is_no_part_of_a_slide(tmp_path, pixels):
    write_slide(tmp_path, pixels, Kind(RAW, "RGB"))
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert np.array_equal(read(tmp_path), pixels)
    assert "lists the DICOM files" in refused(tmp_path / "DICOMDIR")


def test_damaged_jpeg_ls_takes_no_time(pixels):
    tile, stream = Size(256, 256), imagecodecs.jpegls_encode(np.ascontiguousarray(pixels[:256, :256]))
    decoded = decode(stream, JPEGLS, "RGB", tile)
    assert np.array_equal(decoded, pixels[:256, :256])
    rng = np.random.default_rng(5)
    for _ in range(300):
        data = bytearray(stream)
        for place in rng.integers(2, len(data), 3):
            data[place] = rng.integers(0, 256)
        start = time.monotonic()
        with suppress(UnreadableError):
            decode(bytes(data[: rng.integers(20, len(data))]), JPEGLS, "RGB", tile)
        assert time.monotonic() - start < 5
    with pytest.raises(UnreadableError, match="ends before"):
        decode(stream[:-2], JPEGLS, "RGB", tile)


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "sample_data/patches", "--out", "s3://b/m"],
        ["models", "import", "--stage1", "a", "--stage2", "b", "--classes", "luad", "--mpp", "1", "--out", "s3://b/m"],
        ["evaluate", "tissue-brca-lite", "sample_data/patches", "--json", "s3://b/m.json"],
        ["dataset", "check", "sample_data/patches", "--sheet", "gs://b/m.png"],
        ["export", "map.zarr", "--csv", "https://b/m.csv"],
        ["predict", "a.svs", "--out", "m.zarr", "--log", "s3://b/log"],
    ],
)
def test_no_command_writes_to_an_address(tmp_path, arguments):
    done = subprocess.run(
        [sys.executable, "-m", "wsiseg", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "outputs are written to folders of this machine" in done.stderr
    assert not list(tmp_path.iterdir())


def test_nor_does_python():
    with pytest.raises(OptionError, match="folders of this machine"):
        refuse_address("s3:/bucket/model")
