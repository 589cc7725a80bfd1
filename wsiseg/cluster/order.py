"""The order in which slides are begun: the largest first, so that none of them is left at the end with one worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from wsiseg.cohort.names import Named
from wsiseg.system.addresses import is_address

AT_ONCE = 10_000
"""Slides that are looked at and sorted together: the list may have a million."""


def largest_first(slides: Iterable[Named]) -> Iterator[Named]:
    """Slides by the size of their files, the largest of each `AT_ONCE` first.

    A file's size says roughly how much tissue there is, and costs no opening. Slides at addresses, folders and files
    that are not there count as empty, in the order of the list.
    """
    left = iter(slides)
    while some := list(islice(left, AT_ONCE)):
        yield from sorted(some, key=lambda named: -_size(named.entry.slide))


def _size(slide: str) -> int:
    if is_address(slide):
        return 0
    path = Path(slide)
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
