"""Text files of a data set: bytes that do not leave its folder, in the encodings that programs write."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import BinaryIO

from wsiseg.errors import DatasetError

_CONTROL = frozenset(range(0x80, 0xA0))
"""Bytes that are no letters in Latin-1; in the code pages of Windows and of old Macs they are, others in each."""

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
"""Byte order marks."""


def bytes_below(root: Path, path: Path, most: int) -> bytes:
    """The content of a file of a data set.

    Raises:
        DatasetError: it is no file of the data set (a link leads out of it, a pipe), or too large.
    """
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise DatasetError(f"{path} is a link that leads outside the data set's folder: copy the file into it")
        if not path.is_file():
            raise DatasetError(f"{path} is not a file; is the data set complete?")
        if path.stat().st_size > most:
            raise DatasetError(f"{path} has more than {most} bytes; is it the right file?")
        return path.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} cannot be read ({error!s:.80}); is the data set whole?") from error


def encoding_of(path: str | Path, file: BinaryIO) -> str:
    """The encoding of an open file, as `decoded` takes it, read in parts: for files that memory need not hold.

    Raises:
        DatasetError: it is none of these.
    """
    head = file.read(4)
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if marked is not None:
        return marked
    if b"\0" in head:
        return "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
    decoder, plain, latin = codecs.getincrementaldecoder("utf-8")(), True, True
    part = head
    while True:
        if plain:
            try:
                decoder.decode(part, final=not part)
            except UnicodeDecodeError:
                plain = False
        latin = latin and _CONTROL.isdisjoint(part)
        if not part:
            break
        part = file.read(2**20)
    if not (plain or latin):
        raise DatasetError(f"{path} is not text in UTF-8, UTF-16 or Latin-1: save it in UTF-8")
    return "utf-8" if plain else "latin-1"


def decoded(path: Path, data: bytes) -> str:
    """The text of a file: UTF-8, UTF-16, or Latin-1 where it can be nothing else.

    Raises:
        DatasetError: it is none of these.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:4]:  # the first letters are plain ones
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is None and _CONTROL.isdisjoint(data):
            return data.decode("latin-1")
        raise DatasetError(f"{path} is not text in UTF-8, UTF-16 or Latin-1: save it in UTF-8") from error
