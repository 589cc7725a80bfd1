"""What Aperio writes into the descriptions of an SVS, and which of its pictures are levels."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wsiseg.errors import SlideError
from wsiseg.geometry import Size

_ASSOCIATED = ("label", "macro", "thumbnail")
_AGREES = 0.01


def aperio_values(description: str) -> dict[str, str]:
    """The values after the first line: `AppMag = 20|MPP = 0.4990|…`."""
    found = {}
    for part in description.split("|")[1:]:
        key, equals, value = part.partition("=")
        if equals:
            found[key.strip()] = value.strip()
    return found


def aperio_size(description: str) -> Size | None:
    """The size that the picture had when it was described: `46000x32914 [0,100 2220x2967] (240x240) -> 555x742`."""
    lines = re.split(r"[\r\n]+", description.split("|", 1)[0].split(";", 1)[0])  # what was done to it before follows
    text = " ".join(lines[1:])
    ways = (r"->\s*(\d+)x(\d+)", r"\[-?\d+,-?\d+ (\d+)x(\d+)\]", r"^\s*(\d+)x(\d+)")
    found = next((match for way in ways if (match := re.search(way, text))), None)
    return Size(int(found[1]), int(found[2])) if found else None


def require_one_plane(name: str, sizes: Sequence[Size]) -> None:
    """Raise `SlideError` where several pictures have the size of level 0: focal planes, one of which is sharp."""
    planes = sizes.count(sizes[0])
    if planes > 1:
        raise SlideError(
            f"{name} holds {planes} pictures of {sizes[0]} px: a z-stack of {planes} planes, expected 1; "
            "export one plane as SVS or 8-bit RGB TIFF"
        )


def resized(description: str, size: Size) -> str | None:
    """What to note where the picture has another size than its description states, so that its MPP is another."""
    stated = aperio_size(description)
    if stated is None or sizes_agree(stated, size):
        return None
    return (
        f"its description is that of a picture of {stated} px, but it has {size}: it was resized or cut by a program "
        "that left the description, so that its resolution is unknown"
    )


def sizes_agree(stated: Size, size: Size) -> bool:
    """Whether a picture still has the size that its description states, to one in a hundred: writers fill up tiles."""
    return abs(stated.width / size.width - 1) <= _AGREES and abs(stated.height / size.height - 1) <= _AGREES


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
