"""How a cohort is done."""

from __future__ import annotations

from dataclasses import dataclass

from wsiseg.errors import OptionError
from wsiseg.export.vector_options import VectorOptions


@dataclass(frozen=True, slots=True)
class CohortOptions:
    """How a cohort is done.

    Attributes:
        part: which part of the list, from 1 on, and of how many.
        skip_locked: leave to other runs what they are doing, without a word.
        retry_failed: try again what failed for good.
        polygons: whether they are written beside each map.
        vectors: how.
        overwrite: replace maps that are there.
        restart: forget unfinished runs.
    """

    part: tuple[int, int] = (1, 1)
    skip_locked: bool = False
    retry_failed: bool = False
    polygons: bool = True
    vectors: VectorOptions | None = None
    overwrite: bool = False
    restart: bool = False

    def __post_init__(self) -> None:
        number, parts = self.part
        if not 1 <= number <= parts:
            raise OptionError(
                f"parts count from 1, so that the last of {max(1, parts)} is {max(1, parts)}/{max(1, parts)}; got "
                f"{number}/{parts}"
            )
