"""What vectors are made from: anything that gives boxes of a class map, read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

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
        """The classes in `box` (inside the map): (height, width), 0 = not tissue or not read, 1..K the classes."""


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


def blocks(size: Size, side: int) -> Iterator[Box]:
    """The boxes of at most `side` x `side` pixels that tile a map, row by row from the upper left."""
    if side < 1:
        raise OptionError(f"a block needs at least one pixel, got {side}")
    for y in range(0, size.height, side):
        for x in range(0, size.width, side):
            yield Box(x, y, side, side).intersect(Box.of(size))
