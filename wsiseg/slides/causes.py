"""Errors of libraries that refuse a slide, as one line for the user: the cause, and what to do."""

from __future__ import annotations

import re

from wsiseg.errors import SlideError

_EXPORT = "export it as an RGB OME-TIFF, with QuPath or Bio-Formats' bfconvert"

_UNSUPPORTED = (
    (r"(?P<what>[\w ]+) compression is not supported", "its tiles are compressed by {what}"),
    (r"Unsupported TIFF compression: (?P<what>\d+)", "its tiles have the TIFF compression {what}"),
    (r"Compression (?P<what>\d+) is not supported", "its tiles have the compression {what}"),
    (r"Unrecognized image format: (?P<what>\w+)", "its tiles are stored as {what}"),
    (r"Pixel type (?P<what>\w+) is not supported", "its pixels are of type {what}, expected 8-bit colour"),
    (r"Nonzero subblock channel", "it has several channels, as fluorescence has, expected one in colour"),
    (r"Cannot handle ImageDepth", "it holds several focal planes (a z-stack), expected one"),
    (r"Unrecognized subblock dimension \W*Z", "it has focal planes (dimension Z)"),
    (r"Unrecognized subblock dimension \W*T", "it has times (dimension T)"),
    (r"Unrecognized subblock dimension \W*(?P<what>\w)", "it has a dimension {what} (angles, phases or the like)"),
    (r"No magic string \W*ZISRAWATTDIR", "it has no directory of attachments, which Zeiss' own software writes"),
    (r"dissimilar main images", "it holds several scans that differ in size or resolution"),
    (r"Inconsistent main image resolutions|Found multiple macro", "its scans differ in resolution"),
    (
        r"Bad direction attribute|Unexpected tile join|Area origin not divisible",
        "its tiles are joined in an unusual way",
    ),
    (r"(BitsPerPixel|PixelOrder) must be", "its pixels are not 36-bit RGB"),
    (r"No restart markers", "its JPEGs have no restart markers"),
    (r"Can't read map file", "it names no map file"),
)
"""What OpenSlide says about slides that are intact, but of a kind that it does not read."""

_CODE_WORDS = (
    (r"^[\w.]*(Error|Exception|Warning)\b:?\s*\(?", ""),
    (r"<[\w.]+ (object )?(at )?[^>]*>", ""),
    (r"\bb'[^']*'|\bb\"[^\"]*\"", "unknown bytes"),
    (r"\bdtype\(\W?(\w+)\W*\)", r"\1"),
    (r"\bnumpy\.|\bdtype\b|\bNoneType\b", ""),
    (r"(?:[A-Za-z]:)?[\\/](?:[^\s:\\/]+[\\/])+", ""),
    (r"\[Errno \d+\]\s*", ""),
    (r"header=\S+", ""),
)
_LONGEST = 200


def opening_error(name: str, error: Exception) -> SlideError:
    """The error for a slide whose format OpenSlide knows, and which it does not open.

    Damage is named as likely only where the cause is not that OpenSlide reads no slides of this kind.
    """
    for pattern, kind in _UNSUPPORTED:
        found = re.search(pattern, str(error))
        if found:
            return SlideError(f"{name} is of a kind that is not read: {kind.format(**found.groupdict())}; {_EXPORT}")
    gone = re.search(r"Couldn't open (.+?): (No such file|Permission denied)", str(error))
    if gone:
        part = gone[1].replace("\\", "/").rsplit("/", 1)[-1]
        return SlideError(f"{name} is incomplete: {part} cannot be read; copy all files of the slide together")
    return SlideError(f"{name} cannot be opened, it may be cut off or damaged ({plain(error)}); copy it again")


def plain(error: Exception) -> str:
    """The message of an error, on one line, without the words of a programming language."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for what it states"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    for pattern, instead in _CODE_WORDS:
        text = re.sub(pattern, instead, text)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split()).strip(" :;,.")
    return text[:_LONGEST] or "no cause is given"
