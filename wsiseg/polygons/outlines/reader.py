"""Class map -> the outlines of all its regions, in memory that depends neither on its size nor on their length.

The map is read row by row. What is known of outlines goes to a temporary file; in the end rings are put together to
regions (pixels joined through edges), and read back in the order of the regions' first pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import Int64Array
from wsiseg.errors import OptionError
from wsiseg.geometry import Box
from wsiseg.polygons.class_map import BLOCK, ClassMapSource, Known
from wsiseg.polygons.outlines.rings import Rings, assemble
from wsiseg.polygons.outlines.spool import Spool
from wsiseg.polygons.outlines.tracing import TURNS_AT_ONCE, Tracer

BAND_PX = 48 << 20
"""Most pixels that are read at once, as long as that is `LEAST_ROWS` rows or more."""

LEAST_ROWS = 512
"""Rows that are read at once at least: those of a chunk of a tissue map."""


class Outlines:
    """The outlines of a class map, to be read in order.

    Attributes:
        rings: all rings.
        area_px: by class index, pixels of its regions.
    """

    def __init__(self, rings: Rings, area_px: Int64Array, spool: Spool) -> None:
        self.rings = rings
        self.area_px = area_px
        self._spool = spool

    def vertices(self, index: int) -> int:
        """Vertices of the rings of one class, the closing ones included."""
        mine = self._of_class(index)
        return int(self.rings.vertices[mine].sum() + mine.stop - mine.start)  # one more closes each ring

    def read(
        self, index: int, at_once: int = 1 << 17
    ) -> Iterator[tuple[npt.NDArray[np.int32], Int64Array, Int64Array]]:
        """The rings of one class, region by region in the order of their first pixels, in portions.

        Every ring begins at its first corner (row by row) and ends there. Outer rings run clockwise as one sees them
        (y down), which is counter-clockwise for those who take y as up; holes the other way.

        Args:
            index: the class.
            at_once: about so many vertices make a portion; rings may be cut between two.

        Yields:
            (vertices (N, 2), places in it where a ring begins, those of them where a region begins).
        """
        mine, rings = self._of_class(index), self.rings
        several = np.diff(rings.first_piece)[mine] > 1
        # A number for each portion. It grows with the vertices of rings of one piece, which are read together. A ring
        # of several pieces is read by itself, and gets a number that no other has.
        portion = np.cumsum(rings.vertices[mine]) // at_once + 2 * np.cumsum(several) * (1 << 40) - several
        bounds = np.flatnonzero(np.diff(portion)) + 1 + mine.start
        for start, stop in zip([mine.start, *bounds], [*bounds, mine.stop], strict=True):
            if start == stop:
                continue
            if several[start - mine.start]:
                yield from self._long_ring(start)
            else:
                yield self._short_rings(start, stop)

    def _of_class(self, index: int) -> slice:
        start, stop = np.searchsorted(self.rings.classes, [index, index + 1])
        return slice(int(start), int(stop))

    def _short_rings(self, start: int, stop: int) -> tuple[npt.NDArray[np.int32], Int64Array, Int64Array]:
        """Rings `start` to `stop`, of one piece each, as `read` yields them."""
        pieces = self.rings.pieces[self.rings.first_piece[start] : self.rings.first_piece[stop]]
        offsets, counts = self.rings.offsets[pieces], self.rings.counts[pieces]
        begins = np.cumsum(counts + 1) - (counts + 1)
        vertices = np.empty((int((counts + 1).sum()), 2), np.int32)
        order = np.argsort(offsets)
        # Neighbours in the file are read together.
        apart = np.flatnonzero(offsets[order[1:]] > offsets[order[:-1]] + counts[order[:-1]] + 4096) + 1
        for group in np.split(order, apart):
            low = int(offsets[group[0]])
            found = self._spool.read(low, int(offsets[group[-1]] + counts[group[-1]]) - low)
            source, target = offsets[group] - low, begins[group]
            within = np.arange(counts[group].sum()) - np.repeat(np.cumsum(counts[group]) - counts[group], counts[group])
            vertices[np.repeat(target, counts[group]) + within] = found[np.repeat(source, counts[group]) + within]
        vertices[begins + counts] = vertices[begins]
        return vertices, begins, begins[self.rings.is_shell[start:stop]]

    def _long_ring(self, ring: int) -> Iterator[tuple[npt.NDArray[np.int32], Int64Array, Int64Array]]:
        """A ring of several pieces, piece by piece, beginning at its first corner."""
        pieces = self.rings.pieces[self.rings.first_piece[ring] : self.rings.first_piece[ring + 1]]
        head = self._spool.read(int(self.rings.offsets[pieces[0]]), int(self.rings.counts[pieces[0]]))
        first = int(np.lexsort((head[:, 0], head[:, 1]))[0])
        begins = np.zeros(1, np.int64)
        yield head[first:], begins, begins[: int(self.rings.is_shell[ring])]
        for piece in pieces[1:]:
            yield (
                self._spool.read(int(self.rings.offsets[piece]), int(self.rings.counts[piece])),
                begins[:0],
                begins[:0],
            )
        yield head[: first + 1] if first else head[:1], begins[:0], begins[:0]


@contextmanager
def trace_outlines(
    source: ClassMapSource, class_count: int, block: int = BLOCK, folder: Path | None = None
) -> Iterator[Outlines]:
    """The outlines of a class map, open for reading as long as the context lasts; white is traced as 0.

    Args:
        source: the class map.
        class_count: K, the highest class that may occur.
        block: most rows that are read at once. The result does not depend on it.
        folder: where the temporary file lies, 8 bytes for each vertex; None for the system's temporary folder.

    Raises:
        OptionError: the map holds a value above K.
        OutputError: the temporary file cannot be written.
    """
    with Spool(folder) as spool:
        tracer = Tracer(source.size.width, class_count, spool, min(TURNS_AT_ONCE, block * block))
        for band in bands(Known(source, class_count), block):
            tracer.add(band)
        tracer.finish()
        yield Outlines(assemble(tracer.table), tracer.area_px, spool)


def bands(source: ClassMapSource, block: int = BLOCK) -> Iterator[npt.NDArray[np.uint8]]:
    """The rows of a class map from above to below, at most `block` at once and fewer where they are long."""
    if block < 1:
        raise OptionError(f"a block needs at least one pixel, got {block}")
    size = source.size
    rows = min(block, max(LEAST_ROWS, BAND_PX // max(1, size.width) // LEAST_ROWS * LEAST_ROWS))
    for y in range(0, size.height if size.width else 0, rows):
        yield source.read(Box(0, y, size.width, rows).intersect(Box.from_size(size)))
