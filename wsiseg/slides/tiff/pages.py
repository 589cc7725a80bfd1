"""The directories of a TIFF, through one open file: each page with those that hang below it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import tifffile

from wsiseg.errors import SlideError
from wsiseg.geometry import Size
from wsiseg.slides.tiff.ome_xml import ome_text
from wsiseg.slides.tiff.pyramid import Candidate

MAX_PAGES = 4096
_MAX_SUBS = 64
_DESCRIPTION = 270
_MAX_DESCRIPTION = 2**26
_REDUCED, _MASK = 1, 4


@dataclass(frozen=True)
class Page:
    """A directory.

    Attributes:
        index: its place in the file's chain, or of the one it hangs below.
        tiff: tifffile's page.
        subs: those that hang below it (SubIFDs).
        is_sub: whether it is one of those.
    """

    index: int
    tiff: Any
    subs: tuple[Page, ...] = field(default=())
    is_sub: bool = False

    @property
    def size(self) -> Size:
        """Size of the stored picture."""
        return Size(int(self.tiff.imagewidth), int(self.tiff.imagelength))

    @property
    def candidate(self) -> Candidate:
        """The page as a candidate for a level of a pyramid."""
        tiled = self.tiff.is_tiled
        return Candidate(self.size, Size(int(self.tiff.tilewidth), int(self.tiff.tilelength)) if tiled else None)

    @property
    def is_reduced(self) -> bool:
        """Whether it says that it is a smaller version of another."""
        return bool(int(self.tiff.subfiletype) & _REDUCED)

    @property
    def is_level_by_name(self) -> bool:
        """Whether the file itself calls it a smaller version of another, not only its shape."""
        return self.is_sub or self.is_reduced

    @property
    def is_mask(self) -> bool:
        """Whether it says that it is a mask of another's transparent pixels."""
        return bool(int(self.tiff.subfiletype) & _MASK)

    @property
    def description(self) -> str:
        """Its description, "" where it has none."""
        text = self.tiff.description
        return text if isinstance(text, str) else ""

    def text(self, tag: int) -> str:
        """A tag of text, "" where it has none."""
        found = self.tiff.tags.get(tag)
        return found.value.strip() if found is not None and isinstance(found.value, str) else ""


@dataclass(frozen=True)
class TiffPages:
    """What a TIFF's directories say.

    Attributes:
        tiff: tifffile's object; its file is closed by whoever opened it.
        pages: of the chain, in order.
        ome: OME-XML, None where there is none.
    """

    tiff: Any
    pages: Sequence[Page]
    ome: str | None


def read_pages(name: str, file: BinaryIO, *, first_only: bool = False) -> TiffPages:
    """Read the directories of a TIFF.

    Args:
        name: of the file, for messages.
        file: its bytes; stays open.
        first_only: whether to look at the first page alone.

    Raises:
        SlideError: it is no TIFF, or damaged.
    """
    # What tifffile logs on a damaged file is said in one line by the error, unless somebody listens.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    try:
        tiff = tifffile.TiffFile(file, name=name, _multifile=False)
        pages = _chain(name, tiff, first_only)
        for page in pages:
            _look_at(page)
        ome = next((text for page in pages if (text := _ome(file, page.tiff)) is not None), None)
    except SlideError:
        raise
    except Exception as error:  # tifffile looks at many values only when they are asked for, and raises what it likes
        reason = " ".join(str(error).split())[:100] or "no reason given"
        raise SlideError(f"{name} is not a TIFF that can be read, it may be cut off or damaged ({reason})") from error
    if not pages:
        raise SlideError(f"{name} holds no picture; it is cut off or damaged, copy it again")
    return TiffPages(tiff, pages, ome)


def _chain(name: str, tiff: Any, first_only: bool) -> list[Page]:
    found: list[Page] = []
    seen: set[int] = set()
    while not (first_only and found):
        try:
            page = tiff.pages[len(found)]
        except IndexError:
            return found
        if page.offset in seen or len(found) >= MAX_PAGES:
            what = "leads back to itself" if page.offset in seen else f"has more than {MAX_PAGES} entries"
            raise SlideError(f"{name}: its chain of pictures {what}; write it anew with one picture")
        seen.add(page.offset)
        count = min(_MAX_SUBS, len(page.subifds or ()))
        subs = tuple(Page(len(found), page.pages[i], is_sub=True) for i in range(count)) if count else ()
        found.append(Page(len(found), page, subs))
    return found


def _look_at(page: Page) -> None:
    """Have tifffile compute what it leaves until it is asked for."""
    for one in (page, *page.subs):
        assert one.size.area >= 0
        _ = (one.candidate, one.is_reduced, one.tiff.dtype, int(one.tiff.photometric), int(one.tiff.compression))


def _ome(file: BinaryIO, page: Any) -> str | None:
    """OME-XML of a page, from its own bytes: tifffile takes it for text of one byte a letter."""
    tag = page.tags.get(_DESCRIPTION)
    if tag is None or not 0 < tag.count <= _MAX_DESCRIPTION:
        return None
    file.seek(tag.valueoffset)
    return ome_text(file.read(tag.count * max(1, int(tag.valuebytecount) // tag.count)))
