"""What Aperio writes into the descriptions of an SVS, and which of its pictures are levels."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ASSOCIATED = ("label", "macro", "thumbnail")


def aperio_values(description: str) -> dict[str, str]:
    """The values after the first line: `AppMag = 20|MPP = 0.4990|…`."""
    found = {}
    for part in description.split("|")[1:]:
        key, equals, value = part.partition("=")
        if equals:
            found[key.strip()] = value.strip()
    return found


def aperio_names(pages: Sequence[tuple[str, bool]]) -> list[str]:
    """What each picture is: "level", the name of an associated picture, "tiled label" and so on, or "".

    As OpenSlide has it: tiled pictures are levels, the second picture the thumbnail, and others are called what the
    second line of their description says. A tiled label or macro is none of these.

    Args:
        pages: description of each, and whether it is tiled.
    """
    names = []
    for index, (description, tiled) in enumerate(pages):
        lines = re.split(r"[\r\n]+", description.strip())
        word = lines[1].split(" ", 1)[0].strip().lower() if len(lines) > 1 and lines[1].strip() else ""
        if index == 0:
            names.append("level")
        elif tiled:
            names.append(f"tiled {word}" if word in _ASSOCIATED else "level")
        elif index == 1:
            names.append("thumbnail")
        else:
            names.append(word if word in _ASSOCIATED else "")
    return names
