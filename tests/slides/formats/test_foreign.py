"""What is given as a slide and is none is told plainly; formats that are not read are named, with the way out."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsiseg.errors import SlideError
from wsiseg.slides import open_slide

JARGON = ("Error", "Errno", "None", "b'", "\\x", "<", "dtype", "(0,", "header=")


def refused(path, **options):
    """The message of every way to open it, each one line without words of a programming language."""
    messages = []
    for reader in (None, "image", "tiffslide"):
        with pytest.raises(SlideError) as caught:
            open_slide(path, reader=reader, mpp=0.5, **options)
        messages.append(str(caught.value))
    for message in messages:
        assert "\n" not in message
        assert not any(word in message for word in JARGON), message
    return messages[0]


def packed(kind):
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("slide.svs", b"II*\0" * 100)
    elif kind == "docx":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("[Content_Types].xml", "<x/>")
            archive.writestr("word/document.xml", "<x/>")
    elif kind == "tar":
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("slide.svs"))
    else:
        return gzip.compress(b"II*\0" * 100)
    return out.getvalue()


NO_SLIDES = {
    "git-LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "git-annex": (b"/annex/objects/SHA256E-s123--abc.svs\n", "git annex get"),
    "DVC": (b"outs:\n- md5: a304afb96060aad90176268345e10355\n  path: a.svs\n", "dvc pull"),
    "login page": (b"\n<!DOCTYPE html><html><body>Please log in</body></html>", "a web page"),
    "error page": (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD">\n<html>404</html>', "a web page"),
    "S3's error": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "AccessDenied",
    ),
    "JSON error": (b'{"error": {"code": 404, "message": "no such file"}}', "an error of the server"),
    "text": (b"Dear colleague, here is the slide.\n", "a text file"),
    "text with accents": ("Lames colorées à l'hématoxyline".encode(), "a text file"),
    "UTF-16 text": ("slide;class\r\n1;2\r\n".encode("utf-16"), "a text file"),
    "GeoJSON": (b'{"type":"FeatureCollection","features":[]}', "--tissue"),
    "zip": (packed("zip"), "a ZIP archive; unpack it"),
    "docx": (packed("docx"), "a Word document"),
    "tar": (packed("tar"), "a tar archive"),
    "gzip": (packed("gzip"), "compressed (gzip)"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(99), "compressed (zstd)"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive"),
    "RAR": (b"Rar!\x1a\x07\x01\0" + bytes(99), "a RAR archive"),
    "PDF": (b"%PDF-1.7\n" + bytes(range(256)), "a PDF document"),
    "OLE": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(999), "an Office document"),
    "macOS side file": (b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(99), "a side file of macOS"),
    "shortcut": (b"\x4c\0\0\0\x01\x14\x02\0" + bytes(99), "a Windows shortcut"),
    "zeros": (bytes(100_000), "filled with zeros"),
    "encrypted": (b"Salted__" + bytes(range(256)), "encrypted (OpenSSL)"),
    "crypt4gh": (b"crypt4gh\x01\0\0\0" + bytes(range(256)), "encrypted (Crypt4GH)"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(99), "a HEIC picture"),
    "video": (b"\0\0\0\x18ftypisom" + bytes(99), "a video"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), "a JPEG 2000 picture, which is not read: convert"),
    "noise": (
        np.random.default_rng(1).integers(0, 256, 9999, np.uint8).tobytes(),
        "not a slide or picture in a known format",
    ),
}


@pytest.mark.parametrize("name", ["a.svs", "a.tif", "a.png", "A B é.ndpi"])
@pytest.mark.parametrize("kind", NO_SLIDES)
def test_files_that_are_no_slides(tmp_path, kind, name):
    content, expected = NO_SLIDES[kind]
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path / name)
    assert message.startswith(name)
    assert expected in message
    assert "damaged" not in message


NAMES = {
    "._a.svs": "side file of macOS, which holds no pixels; give a.svs",
    ".DS_Store": "leftover of a file browser",
    "a.svs.part": "an unfinished download",
    "a.svs.crdownload": "an unfinished download",
    ".a.svs.icloud": "a placeholder of iCloud",
    "a.svs.lnk": "a shortcut",
    "a.svs.c4gh": "encrypted",
    "project.qpproj": "a QuPath project",
    "a.geojson": "--tissue",
    "a.svs.dvc": "dvc pull",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_slide_has(tmp_path, sample_data, name):
    """Whatever they hold."""
    (tmp_path / name).symlink_to(sample_data / "CMU-1-Small-Region.svs")
    assert NAMES[name] in refused(tmp_path / name)


def test_a_download_that_goes_on(tmp_path, sample_data):
    (tmp_path / "a.svs").symlink_to(sample_data / "CMU-1-Small-Region.svs")
    (tmp_path / "a.svs.aria2").touch()
    assert "unfinished download" in refused(tmp_path / "a.svs")


NOT_READ = {
    "a.isyntax": (b'<DataObject ObjectType="DPUfsImport">' + bytes(99), "a Philips iSyntax slide", "wsidicomizer"),
    "a.kfb": (b"KFB" + bytes(range(99)), "a KFBio KFB slide", "converter"),
    "a.sdpc": (b"SQ" + bytes(range(99)), "a Sqray SDPC slide", "Sqray"),
    "a.tmap": (b"TMAP" + bytes(range(99)), "a UNIC TMAP slide", "export it as TIFF"),
    "a.mds": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "a Motic slide", "DSAssistant"),
    "a.lif": (b"\x70\0\0\0\x10\0\0\0\x2a" + bytes(99), "a Leica LIF file", "OME-TIFF"),
    "a.nd2": (b"\xda\xce\xbe\x0a" + bytes(99), "a Nikon ND2 file", "OME-TIFF"),
    "a.oir": (b"OLYMPUSRAWFORMAT" + bytes(99), "an Olympus or Evident image", "OME-TIFF"),
    "a.ets": (b"SIS\0" + bytes(99), "an Olympus ETS file", "OME-TIFF"),
    "a.afi": (b"<ImageList><Image><Path>a.svs</Path></Image></ImageList>", "an Aperio AFI list", "H&E"),
    "a.dzi": (b'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" />', "a Deep Zoom image", "made from"),
    "a.ndpis": (
        b"[NanoZoomer Digital Pathology Image Set]\nNoImages=2\nImage0=x.ndpi\nImage1=y.ndpi\n",
        "a Hamamatsu NDPIS set",
        "(x.ndpi, y.ndpi), of which x.ndpi, y.ndpi is not there",
    ),
}


@pytest.mark.parametrize("name", NOT_READ)
def test_formats_that_are_not_read(tmp_path, name):
    """By their names; and where they have a signature, under other names too."""
    content, kind, way_out = NOT_READ[name]
    (tmp_path / name).write_bytes(content)
    message = refused(tmp_path / name)
    assert message.startswith(f"{name} is {kind}")
    assert ", which is not read: " in message
    assert way_out in message
    if name in ("a.isyntax", "a.lif", "a.nd2", "a.oir", "a.afi", "a.dzi", "a.ndpis"):
        (tmp_path / "renamed.tif").write_bytes(content)
        assert refused(tmp_path / "renamed.tif").startswith(f"renamed.tif is {kind}")


@pytest.mark.parametrize("name", ["a.vsi", "a.isyntax", "a.scn", "a.bif", "a.czi", "a.sdpc"])
def test_a_tiff_under_a_vendors_name(tmp_path, name):
    """A .vsi is a TIFF that holds a preview; a .bif that OpenSlide does not know would be read tile beside tile."""
    pixels = np.full((512, 512, 3), 99, np.uint8)
    tifffile.imwrite(tmp_path / name, pixels, tile=(256, 256), photometric="rgb")
    message = refused(tmp_path / name)
    assert message.startswith(name)
    assert "damaged" not in message
    if name == "a.vsi":
        assert "_a_ beside it, are missing as well" in message


@pytest.mark.parametrize("name", ["a.svs", "a.ndpi", "a.scn", "a.czi", "a.vms", "a.mrxs", "a.svslide", "a.vsi"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_picture_under_a_vendors_name(tmp_path, name, kind):
    """Previews, as servers give them; they have the slide's name and a few hundred pixels."""
    Image.new("RGB", (300, 200), (200, 100, 150)).save(tmp_path / name, format=kind)
    assert refused(tmp_path / name).startswith(name)
    (tmp_path / "a.jpg").write_bytes((tmp_path / name).read_bytes())
    with open_slide(tmp_path / "a.jpg") as slide:  # under a picture's name it is one
        assert slide.reader == "Pillow"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_pictures(tmp_path, mode):
    Image.new(mode, (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(SlideError, match="is a grey picture, expected one in colour"):
        open_slide(tmp_path / "a.png", mpp=0.5)


def test_animations_and_turned_pictures(tmp_path):
    frames = [Image.new("RGB", (64, 64), (value, 0, 0)) for value in (1, 99, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(SlideError, match="an animation of 3 pictures"):
        open_slide(tmp_path / "a.gif", mpp=0.5)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames[0].save(tmp_path / "a.jpg", exif=exif)
    with open_slide(tmp_path / "a.jpg", mpp=0.5) as slide:
        assert any("turned" in note for note in slide.notes)
