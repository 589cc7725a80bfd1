"""DICOM slides: pixels against what was encoded, one slide for its many files, and what is refused by name."""

import shutil
from pathlib import Path

import numpy as np
import openslide
import pytest

from tests.helpers import dicom_files as dicom
from tests.helpers.dicom_files import Kind, decoded, halved, write_level, write_slide
from wsiseg.errors import SlideError
from wsiseg.geometry import Box, ceil_div
from wsiseg.slides import open_slide
from wsiseg.slides.arguments import slide_name, slides_of
from wsiseg.slides.watch import SlideWatch

SLICE = np.s_[300:750, 300:850]
TILE = 128


@pytest.fixture(scope="module")
def tissue(sample_data: Path) -> np.ndarray:
    """(450, 550, 3) of CMU-1-Small-Region."""
    with openslide.OpenSlide(sample_data / "CMU-1-Small-Region.svs") as slide:
        return np.asarray(slide.read_region((0, 0), 0, (1000, 1000)))[..., :3][SLICE].copy()


def expected(rgb: np.ndarray, kind: Kind) -> np.ndarray:
    """What each tile decodes to by another library, put together; white where it was left out."""
    rows, columns = ceil_div(rgb.shape[0], kind.tile), ceil_div(rgb.shape[1], kind.tile)
    canvas = np.full((rows * kind.tile, columns * kind.tile, 3), 255, np.uint8)
    canvas[: rgb.shape[0], : rgb.shape[1]] = rgb
    for y in range(rows):
        for x in range(columns):
            part = np.s_[y * kind.tile : (y + 1) * kind.tile, x * kind.tile : (x + 1) * kind.tile]
            canvas[part] = 255 if (x, y) in kind.left_out else decoded(canvas[part], kind)
    return canvas[: rgb.shape[0], : rgb.shape[1]]


def level0(path: Path) -> np.ndarray:
    with open_slide(path) as slide:
        region = slide.read_level(0, Box.from_size(slide.size))
        assert region.damaged is None
        return region.pixels


SMALL = Kind(tile=TILE)
LOSSLESS = SMALL.but(photometric="RGB")
KINDS = {
    "jpeg": (SMALL, 0),
    "no table of offsets": (SMALL.but(offsets="none"), 0),
    "extended table": (SMALL.but(offsets="extended"), 0),
    "several fragments a frame": (SMALL.but(fragments=3), 0),
    "sparse": (SMALL.but(sparse=True), 0),
    "sparse with tiles left out": (SMALL.but(sparse=True, left_out=frozenset({(0, 0), (2, 1)})), 0),
    "concatenation": (SMALL.but(parts=3), 0),
    "sparse concatenation": (SMALL.but(sparse=True, parts=2), 0),
    "padded to whole tiles": (SMALL.but(padded=True), 0),
    "no organization type": (SMALL.but(changes={"DimensionOrganizationType": None}), 0),
    "jpeg 2000, ICT": (SMALL.but(syntax=dicom.J2K, photometric="YBR_ICT"), 1),
    "jpeg 2000, RCT": (LOSSLESS.but(syntax=dicom.J2K_LOSSLESS, photometric="YBR_RCT"), 0),
    "jpeg 2000, RGB": (LOSSLESS.but(syntax=dicom.J2K_LOSSLESS, mct=False), 0),
    "jpeg 2000, YBR": (SMALL.but(syntax=dicom.J2K_LOSSLESS, photometric="YBR_FULL", mct=False), 2),
    "jpeg-ls": (LOSSLESS.but(syntax=dicom.JPEGLS), 0),
    "rle": (LOSSLESS.but(syntax=dicom.RLE), 0),
    "rle, YBR": (SMALL.but(syntax=dicom.RLE, photometric="YBR_FULL"), 2),
    "uncompressed": (LOSSLESS.but(syntax=dicom.RAW), 0),
    "uncompressed, YBR": (SMALL.but(syntax=dicom.RAW, photometric="YBR_FULL"), 2),
}


@pytest.mark.parametrize("name", KINDS)
def test_pixels_are_those_that_were_encoded(name: str, tissue: np.ndarray, tmp_path: Path) -> None:
    kind, tolerance = KINDS[name]
    write_slide(tmp_path / "slide", tissue, kind)
    with open_slide(tmp_path / "slide") as slide:
        assert [level.size.shape for level in slide.levels] == [(450, 550), (113, 138)]
        assert [level.downsample for level in slide.levels] == [1, 4]
        assert slide.recorded_mpp is not None
        assert slide.recorded_mpp.x == pytest.approx(0.5)
        assert slide.objective == 20
        assert dict.fromkeys(slide.associated) == {"label": None, "overview": None}
        assert (slide.read_associated("label") > 190).all()
        assert slide.notes == ()
    difference = np.abs(level0(tmp_path / "slide").astype(int) - expected(tissue, kind)).max()
    assert difference <= tolerance


def test_rgb_in_jpeg_is_not_taken_for_ybr(tissue: np.ndarray, tmp_path: Path) -> None:
    write_slide(tmp_path / "rgb", tissue, LOSSLESS)
    write_slide(tmp_path / "mistaken", tissue, SMALL.but(stored="RGB"))
    assert np.abs(level0(tmp_path / "rgb").astype(int) - tissue).mean() < 2
    assert np.abs(level0(tmp_path / "mistaken").astype(int) - tissue).mean() < 2
    with open_slide(tmp_path / "mistaken") as slide:
        assert "they are read as RGB" in slide.notes[0]


@pytest.mark.parametrize("name", ["jpeg", "sparse", "uncompressed", "jpeg 2000, RCT"])
def test_openslide_and_wsidicom_see_the_same(name: str, tissue: np.ndarray, tmp_path: Path) -> None:
    from wsidicom import WsiDicom

    paths = write_slide(tmp_path / "slide", tissue, KINDS[name][0])
    ours = level0(tmp_path / "slide")
    with openslide.OpenSlide(paths[0]) as slide:
        assert np.array_equal(np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3], ours)
    with WsiDicom.open(str(tmp_path / "slide")) as other:
        assert np.array_equal(np.asarray(other.read_region((0, 0), 0, (550, 450)).convert("RGB")), ours)


def test_any_file_and_the_folder_are_one_slide(tissue: np.ndarray, tmp_path: Path) -> None:
    paths = write_slide(tmp_path / "1.2.840.77", tissue, SMALL)
    paths[0] = paths[0].rename(paths[0].with_suffix(""))
    seen = set()
    for path in (*paths, tmp_path / "1.2.840.77"):
        with open_slide(path) as slide:
            seen.add((slide.name, slide.size, slide.quick_hash()))
        assert slide_name(path) == "1.2.840.77"
    assert len(seen) == 1
    assert slides_of([str(path) for path in paths]) == [str(tmp_path / "1.2.840.77")]


def test_two_slides_in_one_folder_are_two(tissue: np.ndarray, tmp_path: Path, sample_data: Path) -> None:
    both, other = tmp_path / "both", tmp_path / "other"
    write_slide(both, tissue, SMALL)
    for path in write_slide(other, tissue[:300], SMALL.but(series="1.2.3.4", container="S 2")):
        shutil.copy(path, both / f"b{path.name}")
    with pytest.raises(SlideError, match=r"holds 2 DICOM slides: .*S-2"):
        open_slide(both)
    found = slides_of([str(both), str(sample_data / "CMU-1-Small-Region.svs"), *map(str, sorted(both.iterdir()))])
    assert {slide_name(path) for path in found} == {"S-1", "S-2", None}
    assert len(found) == 3
    for path in found[:2]:
        with open_slide(path) as slide:
            assert slide.size.height == (450 if slide.name == "S-1" else 300)


def test_a_change_of_any_file_is_seen(tissue: np.ndarray, tmp_path: Path) -> None:
    paths = write_slide(tmp_path / "slide", tissue, SMALL)
    with open_slide(paths[0]) as slide:
        watch = SlideWatch(slide)
        watch.check()
        paths[1].write_bytes(paths[1].read_bytes()[:-500])
        with pytest.raises(SlideError, match="changed while it was read"):
            watch.check()


def test_damaged_and_missing_frames_are_white_and_marked(tissue: np.ndarray, tmp_path: Path) -> None:
    for offsets in ("basic", "none"):
        paths = write_slide(tmp_path / offsets, tissue, SMALL.but(offsets=offsets))
        data = paths[0].read_bytes()
        paths[0].write_bytes(data[: len(data) // 2])
        with open_slide(paths[0]) as slide:
            region = slide.read_level(0, Box.from_size(slide.size))
            assert region.damaged is not None
            assert region.damaged[-1, -1]
            assert not region.damaged[0, 0]
            assert (region.pixels[region.damaged] == 255).all()
            assert 8 <= slide.damaged_tiles <= 12
            sound = expected(tissue, SMALL)
            assert np.array_equal(region.pixels[~region.damaged], sound[~region.damaged])


REFUSED = {
    "2 optical paths": {"NumberOfOpticalPaths": 2},
    "3 focal planes": {"TotalPixelMatrixFocalPlanes": 3},
    "fluorescence and grey": {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"},
    "16 bits a channel": {"BitsAllocated": 16},
    "parts of the slide are missing": {"NumberOfFrames": 3},
    "several focal planes or optical paths": {"NumberOfFrames": 40},
    "which no slide has": {"TotalPixelMatrixColumns": 2**31},
    "states Rows 0": {"Rows": 0},
    "states NumberOfFrames": {"NumberOfFrames": 2**31 - 1},
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_not_read_is_refused_by_name(words: str, tissue: np.ndarray, tmp_path: Path) -> None:
    write_slide(tmp_path / "slide", tissue, SMALL.but(changes=REFUSED[words]), factors=(1,))
    with pytest.raises(SlideError, match=words) as caught:
        open_slide(tmp_path / "slide")
    assert "\n" not in str(caught.value)


def test_missing_files_are_told(tissue: np.ndarray, tmp_path: Path) -> None:
    write_slide(tmp_path / "a", tissue, SMALL)[0].unlink()
    with pytest.raises(SlideError, match="lacks its original"):
        open_slide(tmp_path / "a")
    with open_slide(tmp_path / "a", mpp=2) as slide:  # who states what the finest level is has it
        assert slide.size.shape == (113, 138)
    for part in (0, 1, 2):
        paths = write_slide(tmp_path / f"b{part}", tissue, SMALL.but(parts=3))
        paths[part].unlink()
        with pytest.raises(SlideError, match=f"part {part + 1} is missing"):
            open_slide(tmp_path / f"b{part}")
    paths = write_slide(tmp_path / "c", tissue, SMALL)
    for path in paths[:2]:
        path.unlink()
    with pytest.raises(SlideError, match="levels are missing"):
        open_slide(paths[2])
    paths = write_slide(tmp_path / "d", tissue, SMALL)
    paths[0].write_bytes(paths[0].read_bytes()[:300])
    with pytest.raises(SlideError, match="may be a part of it"):
        open_slide(tmp_path / "d")


def test_an_image_of_another_shape_or_twice_is_no_level(tissue: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "shape"
    write_slide(folder, tissue, SMALL)
    write_level(folder, tissue[:150], 1.5, SMALL, number=9)
    with open_slide(folder) as slide:
        assert len(slide.levels) == 2
        assert "is not a level" in slide.notes[0]
    write_level(folder, tissue, 0.5, SMALL, number=8)
    with pytest.raises(SlideError, match="both volume images of 550 x 450 px"):
        open_slide(folder)


def test_levels_padded_to_tiles_with_spacing_to_match_have_their_true_downsample(
    tissue: np.ndarray, tmp_path: Path
) -> None:
    """Spacing that was computed from padded sizes differs between x and y, and is not believed."""
    wrong = 0.5 * 550 / 256
    write_level(tmp_path, tissue, 0.5, SMALL)
    small = halved(tissue, 4)
    resampled = ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")
    write_level(tmp_path, small, wrong, SMALL.but(padded=True), number=2, flavor=resampled)
    with open_slide(tmp_path) as slide:
        assert slide.levels[1].downsample == 4
        assert slide.levels[1].size.shape == (113, 138)


def test_a_deflated_dataset_is_refused_unread(tissue: np.ndarray, tmp_path: Path) -> None:
    (path,) = write_level(tmp_path, tissue, 0.5, SMALL)
    data = path.read_bytes()
    old, new = b"1.2.840.10008.1.2.4.50", dicom.DEFLATED.encode()
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(SlideError, match="compressed as a whole"):
        open_slide(path)


def test_the_shared_slide_of_five_files(shared: Path) -> None:
    folder = shared / "cases" / "slides" / "dicom_one_slide"
    assert len(slides_of([str(path) for path in folder.iterdir()])) == 1
    with open_slide(next(folder.iterdir())) as slide, openslide.OpenSlide(next(folder.iterdir())) as other:
        assert slide.name == "dicom_one_slide"
        assert set(slide.associated) == {"label", "overview", "thumbnail"}
        theirs = np.asarray(other.read_region((0, 0), 0, other.dimensions))[..., :3]
        assert np.array_equal(slide.read_level(0, Box.from_size(slide.size)).pixels, theirs)
