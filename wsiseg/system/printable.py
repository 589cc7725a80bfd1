"""Text from files, made safe to show: it may come from anyone, and must not steer a terminal or break a document."""

from __future__ import annotations

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def readable(text: str) -> str:
    r"""Text that any program can read: bytes of a file's name that are not UTF-8 are written out, as in `h\xe9.svs`.

    Python keeps such bytes as lone surrogates, which neither UTF-8 nor JSON of other programs has.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return text
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return text.encode(errors="backslashreplace").decode()


def printable(text: object, longest: int | None = None) -> str:
    """Text on one line, every letter that cannot be printed replaced.

    Args:
        text: anything; its text is taken.
        longest: letters at most; what is longer is cut and ends in "…". None keeps all.
    """
    line = " ".join(readable(str(text)).split())
    line = "".join(letter if letter.isprintable() else REPLACEMENT for letter in line)
    if longest is not None and len(line) > longest:
        return line[: max(0, longest - 1)] + "…"
    return line


FORMULA_STARTS = "=+-@\uff1d\uff0b\uff0d\uff20"
"""What a formula begins with, also in the full width of East Asian keyboards."""


def table_cell(text: str) -> str:
    """Text as a cell of a table that a spreadsheet may open: what it would take for a formula gets a ' before it.

    Spreadsheets run formulas of files that they open, and names of classes and slides come from anyone. White space in
    front is skipped by some, and a cell that begins with a tab or a new line is split by others.
    """
    return f"'{text}" if text[:1] in tuple("\t\r\n") or text.lstrip()[:1] in tuple(FORMULA_STARTS) else text
