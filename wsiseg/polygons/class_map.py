"""What vectors are made from: anything that gives boxes of a class map, read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wsiseg.classes import WHITE_VALUE
from wsiseg.errors import OptionError
from wsiseg.geometry import Box, Size

BLOCK = 2048
"""Side of the blocks in which a class map is read, in map pixels: 4 MB of classes, some 50 MB of working memory."""


class ClassMapSource(Protocol):
    """A class map of any size, wherever it lies."""

    @property
    def size(self) -> Size:
        """Size of the map in map pixels."""

    def read(self, box: Box) -> npt.NDArray[np.uint8]:
        """The classes in `box` (inside the map), (height, width).

        0 = not tissue or not read, 1..K the classes, `WHITE_VALUE` = white in tissue.
        """


@dataclass(frozen=True, eq=False)
class ArrayMap:
    """A class map that lies in memory.

    Attributes:
        classes: (height, width) uint8.
    """

    classes: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.classes.ndim != 2 or self.classes.dtype != np.uint8:
            raise OptionError(
                f"a class map is an array (height, width) of uint8, got {self.classes.shape} of {self.classes.dtype}"
            )

    @property
    def size(self) -> Size:
        """Size of the map in map pixels."""
        return Size(self.classes.shape[1], self.classes.shape[0])

    def read(self, box: Box) -> npt.NDArray[np.uint8]:
        """The classes in `box`."""
        return self.classes[box.slices()]


@dataclass(frozen=True, eq=False)
class Known:
    """A class map of nothing but 0, its classes, and one value of choice for white; a `ClassMapSource`.

    Attributes:
        source: the map.
        class_count: K, the highest class that may occur.
        white: what pixels of `WHITE_VALUE` become: 0, or K + 1 where white is to be treated as one more class.
        part: the part of the map that is read, from its upper left; None for all of it.
    """

    source: ClassMapSource
    class_count: int
    white: int = 0
    part: Size | None = None

    @property
    def size(self) -> Size:
        """Size in map pixels."""
        return self.source.size if self.part is None else self.part

    def read(self, box: Box) -> npt.NDArray[np.uint8]:
        """The classes in `box`; raises `OptionError` on a value above K that is not white."""
        classes = self.source.read(box)
        if int(classes.max(initial=0)) <= self.class_count:
            return classes
        white = classes == WHITE_VALUE
        require_known(int(classes[~white].max(initial=0)), self.class_count)
        return np.where(white, np.uint8(self.white), classes)


def require_known(highest: int, class_count: int) -> None:
    """Raise `OptionError` where a class map holds a value that the class table does not have."""
    if highest > class_count:
        raise OptionError(f"the class map holds the value {highest}, its class table has {class_count} classes")


def blocks(size: Size, side: int) -> Iterator[Box]:
    """The boxes of at most `side` x `side` pixels that tile a map, row by row from the upper left."""
    if side < 1:
        raise OptionError(f"a block needs at least one pixel, got {side}")
    for y in range(0, size.height, side):
        for x in range(0, size.width, side):
            yield Box(x, y, side, side).intersect(Box.from_size(size))
