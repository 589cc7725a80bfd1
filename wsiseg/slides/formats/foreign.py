"""Files that are given as slides and are none: pointers, error pages, archives, leftovers; each with what to do."""

from __future__ import annotations

import re
from pathlib import Path

_COPY_AGAIN = "fetch the slide itself"
_POLYGONS = "a file of polygons; give a slide, and the polygons with --tissue where they outline its tissue"

_BY_NAME = (
    (r"\._.*", "a side file of macOS, which holds no pixels; give {without} instead"),
    (r"\.ds_store|thumbs\.db|desktop\.ini", "a leftover of a file browser; give a slide"),
    (r".*\.icloud", "a placeholder of iCloud; download the slide first"),
    (r".*\.(part|partial|crdownload|download|opdownload|filepart|!qb|aria2|fdmdownload|tmp)",
     "an unfinished download; wait for its end, or fetch it again"),
    (r".*\.(lnk|url|webloc|desktop)", "a shortcut; give the path of the slide that it leads to"),
    (r".*\.(gdoc|gslides|gsheet)", "a link to a document in Google Drive; give a slide"),
    (r".*\.(gpg|pgp|age|c4gh|enc|aes)", "encrypted; decrypt it first"),
    (r".*\.qpproj", "a QuPath project; give a slide of it"),
    (r".*\.qpdata", "QuPath's data of a slide; give the slide"),
    (r".*\.(geojson|geojson\.gz|geojson\.zip)",
     _POLYGONS),
    (r".*\.dvc", "a pointer of DVC; run dvc pull, and give the slide"),
)  # fmt: skip
"""Patterns of whole names, lower case, and what such a file is."""

_BY_START = (
    (b"version https://git-lfs.github.com/", "a pointer of git-LFS, not the slide; run git lfs pull"),
    (b"\0\x05\x16\x07", "a side file of macOS, which holds no pixels; give the slide"),
    (b"\0\0\0\x01Bud1", "a leftover of macOS' file browser; give a slide"),
    (b"\x4c\0\0\0\x01\x14\x02\0", "a Windows shortcut; give the path of the slide that it leads to"),
    (b"book\0\0\0\0mark", "an alias of macOS; give the path of the slide that it leads to"),
    (b"[InternetShortcut]", "a shortcut to a web page; give the path of the slide that it leads to"),
    (b"bplist00", "a property list of macOS, such as a placeholder; download the slide first"),
    (b"Salted__", "encrypted (OpenSSL); decrypt it first"),
    (b"-----BEGIN PGP", "encrypted (PGP); decrypt it first"),
    (b"age-encryption.org/", "encrypted (age); decrypt it first"),
    (b"crypt4gh", "encrypted (Crypt4GH); decrypt it first"),
    (b"%PDF", "a PDF document; give the slide"),
    (b"%!PS", "a PostScript document; give the slide"),
    (b"{\\rtf", "a text document; give the slide"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document, or a Motic, Zeiss or Olympus image, "
     "none of which is read; export the slide as TIFF from its own software"),
    (b"\x1f\x8b", "compressed (gzip); unpack it, and give the slide inside"),
    (b"BZh", "compressed (bzip2); unpack it, and give the slide inside"),
    (b"\xfd7zXZ\0", "compressed (xz); unpack it, and give the slide inside"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd); unpack it, and give the slide inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it, and give the slide inside"),
    (b"Rar!", "a RAR archive; unpack it, and give the slide inside"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file; give a slide"),
    (b"\x93NUMPY", "a NumPy array; give a slide"),
    (b"SIMPLE  =", "a FITS image; give a slide"),
    (b"8BPS", "a Photoshop document; save it as TIFF"),
    (b"8BPB", "a Photoshop document; save it as TIFF"),
    (b"\xff\x0a", "a JPEG XL picture; convert it to TIFF or PNG"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture; convert it to TIFF or PNG"),
    (b"II\xbc", "a JPEG XR picture; convert it to TIFF or PNG"),
    (b"AT&TFORM", "a DjVu document; give the slide"),
    (b"\x1aE\xdf\xa3", "a video; give a slide"),
    (b"\x7fELF", "a program; give a slide"),
    (b"MZ", "a Windows program; give a slide"),
)  # fmt: skip

_BY_TEXT = (
    (r"<(!doctype html|html|head|body|[?!].{0,300}<html)",
     f"a web page, such as an error or a login, not the slide; {_COPY_AGAIN}"),
    (r"(/annex/objects/|.{0,300}\.git/annex/objects/)", "a pointer of git-annex, not the slide; run git annex get"),
    (r"outs:.{0,100}md5", "a pointer of DVC, not the slide; run dvc pull"),
    (r"\{.{0,1000}\"featurecollection\"", _POLYGONS),
    (r"\{.{0,300}\"error", f"an error of the server that it was fetched from, not the slide; {_COPY_AGAIN}"),
)  # fmt: skip
"""How texts begin that are known."""

_FTYP = {
    b"heic": "a HEIC picture; convert it to TIFF or PNG",
    b"heix": "a HEIC picture; convert it to TIFF or PNG",
    b"mif1": "a HEIC picture; convert it to TIFF or PNG",
    b"avif": "an AVIF picture; convert it to TIFF or PNG",
}
_OFFICE = ((b"word/", "a Word document"), (b"ppt/", "a PowerPoint document"), (b"xl/", "an Excel document"))
_PICTURES = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
)
_TAR_MAGIC = slice(257, 262)
_LONGEST_TEXT = 4096


def foreign_by_name(path: Path) -> str | None:
    """What a file is by its name alone, and what to do; None where the name says nothing of the kind."""
    for pattern, what in _BY_NAME:
        if re.fullmatch(pattern, path.name.lower()):
            return what.format(without=path.name[2:] or "the slide")
    if path.with_name(path.name + ".aria2").exists():
        return "an unfinished download (its .aria2 file is still there); finish it first"
    return None


def foreign_by_content(head: bytes) -> str | None:
    """What a file is by its first bytes, and what to do; None where it may be a slide.

    Args:
        head: the first bytes of the file, some thousands.
    """
    for start, what in _BY_START:
        if head.startswith(start):
            return what
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    if head[_TAR_MAGIC] == b"ustar":
        return "a tar archive; unpack it, and give the slide inside"
    if head[4:8] == b"ftyp":
        return _FTYP.get(head[8:12], "a video; give a slide")
    if not head.strip(b"\0"):
        return "filled with zeros: it was never written, or never downloaded; copy it again"
    return _text(head)


def picture(head: bytes) -> str | None:
    """The kind of plain picture that a file is, None where it is none."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    return next((name for start, name in _PICTURES if head.startswith(start)), None)


def _zip(head: bytes) -> str:
    office = next((name for part, name in _OFFICE if part in head), None)
    if office:
        return f"{office}; give the slide"
    if head[6] & 1:
        return "an encrypted ZIP archive; unpack it with its password, and give the slide inside"
    return "a ZIP archive; unpack it, and give the slide inside"


def _text(head: bytes) -> str | None:
    """The message for a text that was given as a slide; None if it is not a text."""
    text = _decoded(head[:_LONGEST_TEXT])
    if text is None:
        return None
    start = text.lstrip("\ufeff \t\r\n")
    code = re.match(r".{0,500}<Error>.{0,500}<Code>(\w{1,40})</Code>", start, re.DOTALL)
    if code:
        return f"an error of the store that it was fetched from ({code[1]}), not the slide; {_COPY_AGAIN}"
    found = next((what for pattern, what in _BY_TEXT if re.match(pattern, start, re.IGNORECASE | re.DOTALL)), None)
    return found or f"a text file; {_COPY_AGAIN}"


def _decoded(raw: bytes) -> str | None:
    """The text that bytes are, None where they hold what no text does."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw[: len(raw) // 2 * 2].decode("utf-16", "replace")
    else:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.start < len(raw) - 4:  # else a letter is cut in two
                return None
            text = raw[: error.start].decode("utf-8")
    printable = all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text)
    return text if text and printable else None
