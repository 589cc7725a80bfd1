"""Slides of several files: read where all are there, refused by name where one is not, whatever their preview holds."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.mirax_files import write_mirax
from tests.helpers.scn_files import write_scn
from tests.helpers.vms_files import write_vms
from wsiseg.errors import SlideError
from wsiseg.geometry import Box, Size
from wsiseg.slides import open_slide
from wsiseg.slides.formats.companions import owner
from wsiseg.slides.watch import SlideWatch

RESTARTS = range(0xD0, 0xD8)
"""Markers in a JPEG after which decoding can begin anew."""


@pytest.fixture(scope="module")
def pixels(sample_data):
    """(256, 512, 3) of a real slide."""
    with open_slide(sample_data / "CMU-1-Small-Region.svs") as slide:
        return slide.read_level(0, Box(600, 600, 512, 256)).pixels


@pytest.fixture
def mirax(tmp_path, pixels):
    (tmp_path / "in").mkdir()
    return write_mirax(tmp_path / "in" / "a.mrxs", pixels)


@pytest.fixture
def vms(tmp_path, pixels):
    (tmp_path / "in").mkdir()
    return write_vms(tmp_path / "in" / "a.vms", pixels)


def refused(path, **options):
    """The message of every way to open it, which is one line and the same."""
    messages = set()
    for reader in (None, "openslide", "image", "tiffslide"):
        with pytest.raises(SlideError) as caught:
            open_slide(path, reader=reader, **options)
        messages.add(str(caught.value))
    assert len(messages) == 1
    message = messages.pop()
    assert "\n" not in message
    assert not any(word in message for word in ("Error", "Errno", "None", "b'"))
    return message


def test_a_whole_mirax_slide(mirax, pixels):
    with open_slide(mirax, mpp=None) as slide:
        assert (slide.reader, slide.vendor, slide.name, slide.mpp.x) == ("OpenSlide", "mirax", "a.mrxs", 0.5)
        assert [level.size for level in slide.levels] == [Size(512, 256), Size(256, 128)]
        assert np.array_equal(slide.read_level(0, Box(0, 0, 512, 256)).pixels, pixels)
        assert np.array_equal(slide.read_level(1, Box(0, 0, 256, 128)).pixels, pixels[::2, ::2])


def test_a_mirax_preview_is_no_slide_even_where_the_picture_reader_is_asked_for(mirax):
    with pytest.raises(SlideError, match=r"is a MIRAX slide .* format that image reads"):
        open_slide(mirax, mpp=0.5, reader="image")


def test_an_empty_mirax_file_beside_its_whole_folder(mirax, pixels):
    """OpenSlide never looks into it; it was lost and made anew."""
    mirax.write_bytes(b"")
    with open_slide(mirax) as slide:
        assert np.array_equal(slide.read_level(0, Box(0, 0, 512, 256)).pixels, pixels)


BROKEN_MIRAX = {
    "no folder": (shutil.rmtree, "pixels belong in a folder a beside it; copy it there"),
    "folder renamed": (lambda f: f.rename(f.with_name("b")), "if b is its folder, give both the same name"),
    "folder in capitals": (lambda f: f.rename(f.with_name("A")), "there is A: give both the same name"),
    "folder empty": (lambda f: [one.unlink() for one in f.iterdir()], "Slidedat.ini is missing"),
    "no Slidedat.ini": (lambda f: (f / "Slidedat.ini").unlink(), "Slidedat.ini is missing"),
    "slidedat.ini": (lambda f: (f / "Slidedat.ini").rename(f / "slidedat.ini"), "slidedat.ini is there: rename it"),
    "no Index.dat": (lambda f: (f / "Index.dat").unlink(), "Index.dat is missing"),
    "no Data0001.dat": (lambda f: (f / "Data0001.dat").unlink(), "Data0001.dat is missing"),
    "DATA0001.DAT": (lambda f: (f / "Data0001.dat").rename(f / "DATA0001.DAT"), "DATA0001.DAT is there: rename it"),
    "data a link to nowhere": (lambda f: relink(f / "Data0001.dat"), "Data0001.dat is a link that leads nowhere"),
    "data cut off": (lambda f: cut(f / "Data0000.dat", 1), "Data0000.dat is cut off, it has"),
    "data empty": (lambda f: cut(f / "Data0001.dat", 10**9), "Data0001.dat is cut off, it has 0 bytes of"),
    "index cut off": (lambda f: cut(f / "Index.dat", 1), "Index.dat is cut off"),
    "index a half": (lambda f: cut(f / "Index.dat", 300), "Index.dat is cut off"),
    "index empty": (lambda f: cut(f / "Index.dat", 10**9), "Index.dat"),
    "Slidedat.ini a half": (lambda f: cut(f / "Slidedat.ini", 60), "names no index and no data files"),
    "folder of another slide": (lambda f: other_id(f / "Slidedat.ini"), "belongs to another slide"),
    "an index that goes round": (lambda f: endless(f / "Index.dat"), "Index.dat is cut off or damaged"),
    "Slidedat.ini leads out": (lambda f: leads_out(f / "Slidedat.ini"), "outside of the slide's folder"),
    "git-LFS": (lambda f: (f / "Slidedat.ini").write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs"),
}


def cut(path: Path, count: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - count)])


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def other_id(path: Path) -> None:
    path.write_text(path.read_text().replace("ABCDEF0123456789", "ABCDEF0123456780"))


def leads_out(path: Path) -> None:
    path.write_text(path.read_text().replace("Data0001.dat", "../../Data0001.dat"))


def endless(path: Path) -> None:
    """The first page of tiles names itself as the next."""
    content = bytearray(path.read_bytes())
    root = struct.unpack_from("<i", content, 21)[0]
    page = struct.unpack_from("<i", content, struct.unpack_from("<i", content, root)[0] + 4)[0]
    struct.pack_into("<i", content, page + 4, page)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("kind", BROKEN_MIRAX)
def test_a_mirax_slide_without_a_part(mirax, kind):
    change, expected = BROKEN_MIRAX[kind]
    change(mirax.with_suffix(""))
    message = refused(mirax, mpp=0.5)
    assert message.startswith("a.mrxs")
    assert expected in message


def test_a_mirax_slide_whose_file_was_renamed(mirax):
    mirax.rename(mirax.with_name("b.mrxs"))
    assert "if a is its folder, give both the same name" in refused(mirax.with_name("b.mrxs"), mpp=0.5)
    shutil.copytree(mirax.with_suffix(""), mirax.with_name("c"))
    capital = mirax.with_name("c.MRXS")
    mirax.with_name("b.mrxs").rename(capital)
    assert "ends in .mrxs: rename it" in refused(capital, mpp=0.5)


def test_links_to_mirax_slides(mirax, pixels, tmp_path):
    link = tmp_path / "case1.mrxs"
    link.symlink_to(mirax)
    with open_slide(link) as slide:  # the folder lies beside the target
        assert np.array_equal(slide.read_level(0, Box(0, 0, 512, 256)).pixels, pixels)
    (tmp_path / "case1").symlink_to(mirax.with_suffix(""))
    with open_slide(link) as slide:  # as in data sets that are made of links alone
        assert slide.name == "case1.mrxs"
        assert np.array_equal(slide.read_level(0, Box(0, 0, 512, 256)).pixels, pixels)
    mirax.unlink()
    assert "is a link to" in refused(link)


def test_the_hash_of_a_mirax_slide_is_that_of_its_pixels(mirax):
    with open_slide(mirax) as slide:
        before = slide.quick_hash()
        assert before == slide.quick_hash()
    data = mirax.with_suffix("") / "Data0001.dat"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 255
    data.write_bytes(bytes(content))
    with open_slide(mirax) as slide:
        assert slide.quick_hash() != before


def test_a_data_file_that_changes_while_it_is_read(mirax):
    with open_slide(mirax) as slide:
        watch = SlideWatch(slide)
        watch.check()
        cut(mirax.with_suffix("") / "Data0001.dat", 100)
        with pytest.raises(SlideError, match="changed while it was read"):
            watch.check()


@pytest.mark.parametrize("name", ["Slidedat.ini", "Index.dat", "Data0000.dat"])
def test_a_part_is_no_slide(mirax, name):
    assert "is a part of the slide a.mrxs; give that" in refused(mirax.with_suffix("") / name)
    mirax.unlink()
    assert "a.mrxs; give that, which is missing" in refused(mirax.with_suffix("") / name)


def test_tiles_of_a_kind_that_is_not_read(mirax):
    slidedat = mirax.with_suffix("") / "Slidedat.ini"
    slidedat.write_text(slidedat.read_text().replace("= PNG", "= JPEGXR"))
    with pytest.raises(SlideError, match="its tiles are stored as JPEGXR; export") as caught:
        open_slide(mirax)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("line", ["OBJECTIVE_MAGNIFICATION = 20\n", "CameraImageDivisionsPerSide = 1\n"])
@pytest.mark.parametrize("instead", ["", " = False\n"])
def test_old_and_odd_slidedats(mirax, line, instead, pixels):
    """Reported to OpenSlide as 232 and 255: no objective, and lines without a key."""
    slidedat = mirax.with_suffix("") / "Slidedat.ini"
    slidedat.write_text(slidedat.read_text(encoding="utf-8-sig").replace(line, instead), encoding="utf-8-sig")
    with open_slide(mirax) as slide:
        assert np.array_equal(slide.read_level(0, Box(0, 0, 512, 256)).pixels, pixels)


def test_a_whole_vms_slide(vms, pixels):
    with open_slide(vms) as slide:
        assert (slide.vendor, slide.size, slide.mpp.x) == ("hamamatsu", Size(512, 256), 0.5)
        read = slide.read_level(0, Box(0, 0, 512, 256)).pixels
        assert np.abs(read.astype(int) - pixels).mean() < 3  # JPEG at quality 95


@pytest.mark.parametrize("name", ["a.jpg", "a(1,0).jpg", "a_map2.jpg", "a_macro.jpg"])
def test_a_vms_slide_without_a_part(vms, name):
    part = vms.with_name(name)
    assert "is a part of the slide a.vms" in refused(part, mpp=0.5)
    content = part.read_bytes()
    for cut_off in (content[: len(content) // 2], content[:-2], b""):
        part.write_bytes(cut_off)
        assert f"{name} is cut off" in refused(vms, mpp=0.5)
    part.rename(part.with_suffix(".JPG"))
    assert f"{name} is missing ({part.stem}.JPG is there: rename it)" in refused(vms, mpp=0.5)
    part.with_suffix(".JPG").unlink()
    assert f"{name} is missing" in refused(vms, mpp=0.5)


def test_links_to_and_other_names_of_vms_slides(vms, tmp_path):
    (tmp_path / "b.vms").symlink_to(vms)
    other = vms.rename(vms.with_name("slide.txt"))
    (tmp_path / "c.vms").symlink_to(other)
    with open_slide(other) as slide, open_slide(tmp_path / "c.vms") as linked:
        assert slide.size == linked.size == Size(512, 256)


@pytest.mark.parametrize(
    "content", [b"", b"[Virtual Microscope Specimen]\nNoJpegColumns=1\n", b"\xff\xd8\xff\xe0" * 99]
)
def test_a_vms_file_that_names_nothing(tmp_path, content):
    (tmp_path / "a.vms").write_bytes(content)
    assert refused(tmp_path / "a.vms").startswith("a.vms")


def test_what_a_batch_may_leave_out(mirax, tmp_path, pixels):
    vms = write_vms(mirax.with_name("v.vms"), pixels)
    assert owner(mirax.with_suffix("")) == mirax
    assert owner(vms.with_name("v(1,0).jpg")) == vms
    (tmp_path / "_b_" / "stack1").mkdir(parents=True)
    (tmp_path / "b.vsi").touch()
    assert owner(tmp_path / "_b_") == tmp_path / "b.vsi"
    assert owner(tmp_path / "_b_" / "stack1" / "frame_t.ets") == tmp_path / "b.vsi"
    (mirax.parent / "other.jpg").touch()
    for alone in (mirax, vms, mirax.parent, tmp_path, mirax.parent / "other.jpg"):
        assert owner(alone) is None


def test_tiles_that_a_mirax_slide_leaves_out_are_white(mirax, pixels):
    """OpenSlide gives transparent black there; reported of a dozen programs."""
    index = bytearray((mirax.with_suffix("") / "Index.dat").read_bytes())
    page = struct.unpack_from("<i", index, struct.unpack_from("<i", index, 21)[0])[0] + 8
    struct.pack_into("<i", index, page, 31)  # one of 32 tiles of level 0 fewer, the last
    (mirax.with_suffix("") / "Index.dat").write_bytes(bytes(index))
    with open_slide(mirax) as slide:
        region = slide.read_level(0, Box(0, 0, 512, 256))
        assert slide.damage.count == 0
    assert (region.pixels[192:, 448:] == 255).all()
    assert np.array_equal(region.pixels[:192], pixels[:192])


def test_a_leica_slide_of_two_areas(tmp_path, pixels):
    """Each at its place, white between them; a reader that takes pages as they come would read the macro, or black."""
    areas = [(pixels[:, :256], 500, 400), (pixels[:128, 256:], 1500, 3000)]
    for name in ("a.scn", "renamed.tif"):
        path = write_scn(tmp_path / name, areas)
        with open_slide(path) as slide:
            assert (slide.vendor, slide.bounds, slide.size) == ("leica", Box(500, 400, 1256, 2728), Size(1256, 2728))
            assert slide.mpp.x == pytest.approx(0.5)
            read = slide.read_level(0, Box.from_size(slide.size)).pixels
        assert np.abs(read[:256, :256].astype(int) - pixels[:, :256]).mean() < 4  # JPEG at quality 95
        assert np.abs(read[2600:, 1000:].astype(int) - pixels[:128, 256:]).mean() < 4
        assert (read[256:2600] == 255).all()
        with pytest.raises(SlideError, match="format that tiffslide reads"):
            open_slide(path, reader="tiffslide")
    with pytest.raises(SlideError, match="its scans differ in resolution; export") as caught:
        open_slide(write_scn(tmp_path / "b.scn", areas, last_nm=1000))
    assert "damaged" not in str(caught.value)


def test_the_optimisation_file_of_a_vms_slide(vms, pixels):
    """Reported to OpenSlide as 165: by a table of other places it finds no tile, and all would count as damaged."""
    content = vms.with_name("a.jpg").read_bytes()
    starts = [
        place + 2 for place in range(len(content) - 1) if content[place] == 0xFF and content[place + 1] in RESTARTS
    ]
    table = vms.with_name("a.opt")
    for places, is_own in ((starts, True), ([place + 1 for place in starts], False), ([10**12] * 9, False)):
        table.write_bytes(b"".join(struct.pack("<q", place) + bytes(32) for place in [600, *places]))
        if is_own:
            with open_slide(vms) as slide:
                read = slide.read_level(0, Box(0, 0, 256, 256)).pixels
                assert np.abs(read.astype(int) - pixels[:, :256]).mean() < 3
                assert slide.damage.count == 0
        else:
            assert "a.opt is of another slide or damaged; copy it again, or remove it" in refused(vms)


def test_a_vms_slide_that_leads_out_of_its_folder(vms):
    vms.with_name("a.jpg").rename(vms.parent.parent / "secret.jpg")
    vms.write_text(vms.read_text().replace("ImageFile=a.jpg", "ImageFile=../secret.jpg"))
    assert "names files outside of its folder" in refused(vms)
