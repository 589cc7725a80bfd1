"""Output on terminals and pipes of any encoding: what a stream cannot print is written in letters that it can."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

PLAIN = {
    **{"²": "2", "µ": "u", "μ": "u", "×": "x", "…": "...", "→": "->", "·": "."},  # noqa: RUF001
    **{"—": "-", "–": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "\N{REPLACEMENT CHARACTER}": "?"},  # noqa: RUF001
}
"""What stands for letters that a stream does not have."""

_NAME = "wsiseg_fallback"
_ASCII = "wsiseg_ascii"
"""ASCII under a name of its own: click takes streams that are ASCII for misconfigured, and writes UTF-8 to them."""


def use_printable_streams() -> None:
    """Have standard output and error fall back to what they can print, instead of ending the program."""
    codecs.register_error(_NAME, _fallback)
    codecs.register(_find)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if ascii_only else None, errors=_NAME)


def _find(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII:
        return None
    plain = codecs.lookup("ascii")
    return codecs.CodecInfo(
        plain.encode, plain.decode, plain.streamreader, plain.streamwriter,
        plain.incrementalencoder, plain.incrementaldecoder, _ASCII,
    )  # fmt: skip


def _fallback(error: UnicodeError) -> tuple[str, int]:
    """Letters in place of those that could not be encoded, as `codecs.register_error` wants them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(letter: str) -> str:
    if letter in PLAIN:
        return PLAIN[letter]
    if 0xDC80 <= ord(letter) <= 0xDCFF:  # a byte of a name that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return base or "?"
