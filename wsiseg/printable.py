"""Text from files, made safe to show: it may come from anyone, and must not steer a terminal or break a document."""

from __future__ import annotations

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: object, longest: int | None = None) -> str:
    """Text on one line, every letter that cannot be printed replaced.

    Args:
        text: anything; its text is taken.
        longest: letters at most; what is longer is cut and ends in "…". None keeps all.
    """
    line = " ".join(str(text).split())
    line = "".join(letter if letter.isprintable() else REPLACEMENT for letter in line)
    if longest is not None and len(line) > longest:
        return line[: max(0, longest - 1)] + "…"
    return line
