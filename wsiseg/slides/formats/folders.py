"""The message for a folder that is given instead of a slide."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from wsiseg.errors import SlideError
from wsiseg.slides.formats.companions import owner
from wsiseg.slides.formats.foreign import foreign_by_name
from wsiseg.slides.formats.vendors import vendor_by_name

_MOST = 10_000
_NAMED = 3
_PLAIN = (".tif", ".tiff", ".btf", ".tf8", ".qptiff", ".zif", ".dcm", ".png", ".jpg", ".jpeg", ".bmp", ".webp")


def folder_error(path: Path) -> SlideError:
    """The error that says which slides are in a folder, and what to write for them."""
    try:
        return SlideError(f"{path} is a folder; {_advice(path)}")
    except OSError as error:
        return SlideError(f"{path} is a folder, and cannot be listed ({error.strerror}); give the path of a slide")


def _advice(path: Path) -> str:
    slide = owner(path)
    if slide is not None:
        missing = "" if slide.exists() else f", which is missing beside it: copy {slide.name} there"
        return f"it holds the pixels of {slide.name}; give that{missing}"
    if any((path / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup")):
        return "it holds a tissue map or another Zarr image, not a slide; give the path of a slide"
    entries = sorted(islice(path.iterdir(), _MOST))
    slides = _slides(entries)
    if slides:
        return f"it holds {_listed(slides)}: write one of them, or for all the pattern {_patterns(path, slides)}"
    below = [
        (one, _slides(islice(one.iterdir(), _MOST))) for one in entries if one.is_dir() and os.access(one, os.R_OK)
    ]
    below = [(one, found) for one, found in below if found and owner(one) is None]
    if below:
        folder, found = below[0]
        return (
            f"it holds folders with slides ({folder.name} has {_listed(sorted(found))}): write one of them, "
            f"or for all the pattern {_patterns(path / '*', [slide for _, some in below for slide in some])}"
        )
    return "it holds no slides; give the path of a slide"


def _slides(entries: Iterable[Path]) -> list[Path]:
    """What of a folder can be a slide by its name."""
    return [
        one
        for one in entries
        if not foreign_by_name(one) and _is_slide_name(one) and one.is_file() and owner(one) is None
    ]


def _is_slide_name(path: Path) -> bool:
    vendor = vendor_by_name(path)
    return bool(vendor.readers) if vendor else path.name.lower().endswith(_PLAIN)


def _listed(slides: list[Path]) -> str:
    names = ", ".join(one.name for one in slides[:_NAMED])
    more = f" and {len(slides) - _NAMED} more" if len(slides) > _NAMED else ""
    return f"{names}{more}"


def _patterns(folder: Path, slides: list[Path]) -> str:
    """Patterns for all slides, by ending, the most frequent first."""
    endings = Counter(one.suffix for one in slides)
    # A shell takes a quoted folder with a pattern that is not.
    below = folder.name == "*"
    quoted = shlex.quote(str(folder.parent if below else folder)) + (f"{os.sep}*" if below else "")
    return " ".join(f"{quoted}{os.sep}*{ending}" for ending, _ in endings.most_common(4))
