"""From tiles to batches of patches: neighbouring tiles out of one read, a bounded number of reads ahead, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from wsiseg.arrays import BoolArray, UInt8Array
from wsiseg.geometry import Box, Grid
from wsiseg.slides.base import SlideReader
from wsiseg.tiling.grid import Tile

Item = TypeVar("Item")

READ_PX = 2048
"""Widest read in pixels of the slide's level: larger pieces cost less a pixel, but take memory for each thread."""


@dataclass(frozen=True, slots=True)
class Patch:
    """The pixels of one tile.

    Attributes:
        tile: its place.
        pixels: (patch_px, patch_px, 3) uint8, white outside the slide; a view into a larger read.
        readable: (patch_px, patch_px) bool, false where the slide is damaged; None where all is readable.
        bright: (patch_px, patch_px) bool, where it may be white; None where nobody asked.
    """

    tile: Tile
    pixels: npt.NDArray[np.uint8]
    readable: npt.NDArray[np.bool_] | None
    bright: npt.NDArray[np.bool_] | None = None


def grouped(tiles: Iterable[Tile], read_px: int = READ_PX) -> Iterator[list[Tile]]:
    """Runs of tiles of one row that touch each other and fit into a read of `read_px` width (at least one tile)."""
    run: list[Tile] = []
    for tile in tiles:
        if run and (
            tile.row != run[0].row or tile.box.x > run[-1].box.right or tile.box.right - run[0].box.x > read_px
        ):
            yield run
            run = []
        run.append(tile)
    if run:
        yield run


def read_patches(
    slide: SlideReader, grid: Grid, tiles: Iterable[Tile], workers: int, read_ahead: int | None = None
) -> Iterator[Patch]:
    """The patches of `tiles`, in their order.

    Args:
        slide: read by several threads at once.
        grid: the map's grid.
        tiles: row by row.
        workers: threads that read; the result does not depend on their number.
        read_ahead: reads under way or waiting for the network, default two a worker. Each holds one run of patches,
            READ_PX of the level's pixels wide (or one patch) and a patch high, three bytes a pixel.

    Raises:
        SlideError: the slide as a whole can no longer be read. Damage is marked in the patches instead.
    """
    runs = grouped(tiles, int(READ_PX / max(1.0, grid.zoom_x)))
    limit = read_ahead or 2 * workers
    waiting: deque[Future[list[Patch]]] = deque()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="reader") as pool:
        try:
            for run in runs:
                waiting.append(pool.submit(read_block, slide, grid, run))
                if len(waiting) >= limit:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_block(
    slide: SlideReader, grid: Grid, tiles: Sequence[Tile], bright: Callable[[UInt8Array], BoolArray] | None = None
) -> list[Patch]:
    """The patches of neighbouring tiles, in their order, out of one read of the box around them.

    With `bright`, which says of pixels (h, w, 3) where they may be white, (h, w) bool, patches hold what it says: it is
    asked here, since pixels that patches share are looked at once.

    Raises:
        SlideError: the slide as a whole can no longer be read. Damage is marked in the patches instead.
    """
    box = box_around(tiles)
    region = slide.read(grid, box)
    found = None if bright is None else bright(region.pixels)
    patches = []
    for tile in tiles:
        place = tile.box.slices(box)
        damaged = None if region.damaged is None else region.damaged[place]
        readable = None if damaged is None or not damaged.any() else ~damaged
        patches.append(Patch(tile, region.pixels[place], readable, None if found is None else found[place]))
    return patches


def box_around(tiles: Sequence[Tile]) -> Box:
    """The smallest box that holds all of some tiles, in map pixels."""
    x, y = min(tile.box.x for tile in tiles), min(tile.box.y for tile in tiles)
    right, bottom = max(tile.box.right for tile in tiles), max(tile.box.bottom for tile in tiles)
    return Box(x, y, right - x, bottom - y)


def batches(patches: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    """Patches, or what goes with them, in lists of `batch_size`, the last one possibly shorter."""
    iterator = iter(patches)
    while batch := list(islice(iterator, batch_size)):
        yield batch
