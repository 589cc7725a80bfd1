"""Paths that lead nowhere, and folders: the message says what was probably meant, and what to write."""

import os
import unicodedata

import pytest

from wsiseg.errors import SlideError
from wsiseg.slides import open_slide


def refused(path):
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert not any(word in message for word in ("Errno", "Error", "None", "PosixPath"))
    return message


@pytest.fixture
def slides(tmp_path, sample_data, monkeypatch):
    """A folder `slides` with links to a slide, from beside it."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("a.svs", "b.svs", "c.svs", "d.svs", "e.ndpi", "._a.svs", ".DS_Store", "notes.txt"):
        (folder / name).symlink_to(sample_data / "CMU-1-Small-Region.svs")
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_folder_of_slides(slides):
    message = refused("slides")
    assert message.startswith("slides is a folder; it holds a.svs, b.svs, c.svs and 2 more")
    assert message.endswith(f"slides{os.sep}*.svs slides{os.sep}*.ndpi")
    assert "holds folders with slides (slides has a.svs" in refused(".")
    slides.rename(slides.with_name("my slides"))
    assert refused("my slides").endswith(f"'my slides'{os.sep}*.svs 'my slides'{os.sep}*.ndpi")


def test_other_folders(tmp_path):
    assert "it holds no slides" in refused(tmp_path)
    (tmp_path / "map.zarr").mkdir()
    (tmp_path / "map.zarr" / "zarr.json").write_text("{}")
    assert "a tissue map or another Zarr image" in refused(tmp_path / "map.zarr")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Slidedat.ini").touch()
    assert "it holds the pixels of a.mrxs; give that, which is missing beside it" in refused(tmp_path / "a")
    (tmp_path / "a.mrxs").touch()
    assert refused(tmp_path / "a").endswith("the pixels of a.mrxs; give that")
    (tmp_path / "_b_" / "stack1").mkdir(parents=True)
    (tmp_path / "b.vsi").touch()
    assert "the pixels of b.vsi" in refused(tmp_path / "_b_")


MISSING = {
    "slides/*.tif": "as a pattern it matches nothing; files in slides end in .ndpi, .svs, .txt",
    "slides/?.svs": "as a pattern it matches 4 (a.svs, ...): write it without quotes",
    "elsewhere/*.svs": "there is no folder elsewhere",
    "sl*/*.tif": "as a pattern it matches nothing; write one",
    "slides/A.SVS": "there is a.svs, whose letters are written otherwise",
    "slides/a": "there is a.svs",
    "slides\\a.svs": "write slides/a.svs, with forward slashes",
    "slides/a.svs\r": "a space or a line end too many",
    " slides/a.svs": "a space or a line end too many",
    "~/a.svs": "~ is not expanded",
    "https:/images.org/a.svs": "write https://images.org/a.svs",
    "s3:/bucket/a.svs": "write s3://bucket/a.svs",
    "file:/data/a.svs": "write the path alone, or file:///data/a.svs",
    "www.images.org/a.svs": "write https://www.images.org/a.svs",
    "slides/nothing.like.it": "give the path of a slide",
    "slides/a.svs/inside": "give the path of a slide",
}


@pytest.mark.parametrize("path", MISSING)
def test_what_was_probably_meant(slides, path):
    message = refused(path)
    assert "does not exist" in message
    assert MISSING[path] in message


def test_accents_in_their_two_forms(tmp_path, sample_data):
    name = unicodedata.normalize("NFD", "lame colorée.svs")
    (tmp_path / name).symlink_to(sample_data / "CMU-1-Small-Region.svs")
    with open_slide(tmp_path / name) as slide:
        assert slide.name == name
    assert "whose letters are written otherwise" in refused(tmp_path / unicodedata.normalize("NFC", name))


def test_links_and_downloads(tmp_path):
    (tmp_path / "a.svs").symlink_to(tmp_path / "gone.svs")
    assert "it is a link to" in refused(tmp_path / "a.svs")
    (tmp_path / "b.svs.crdownload").touch()
    assert "b.svs.crdownload is its unfinished download" in refused(tmp_path / "b.svs")
    (tmp_path / "b.svs").touch()
    assert "is empty (0 bytes); b.svs.crdownload is its unfinished download" in refused(tmp_path / "b.svs")


def test_names_of_all_kinds(tmp_path, sample_data):
    for name in ("with space.svs", "标本.svs", "a[1].svs", "x" * 240 + ".svs", "-dash.svs", "ß #%&.svs", "a*b?.svs"):
        (tmp_path / name).symlink_to(sample_data / "CMU-1-Small-Region.svs")
        with open_slide(tmp_path / name) as slide:
            assert slide.name == name
    assert "cannot be read (file name too long)" in refused(tmp_path / ("x" * 300))
    assert "cannot be read (its name holds a character" in refused(tmp_path / "a\0b")
