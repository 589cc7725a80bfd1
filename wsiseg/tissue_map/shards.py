"""Shards of an array on disk: those that hold anything. Zarr writes none that would be all zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zarr
from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding
from zarr.storage import LocalStore

from wsiseg.geometry import Box, ceil_div


def shards_in(array: zarr.Array[Any], box: Box) -> Iterator[Box]:
    """The parts of a box that lie in one shard each, row by row, without those that have no file and so are all zero.

    Args:
        array: (…, y, x), not divided along its other axes.
        box: inside it.
    """
    store = array.store
    if not isinstance(store, LocalStore) or not _as_written_here(array):
        yield box
        return
    folder = store.root.joinpath(array.path, "c", *["0"] * (array.ndim - 2))
    height, width = shard_shape(array)
    for row in range(box.y // height, ceil_div(box.bottom, height)):
        for column in range(box.x // width, ceil_div(box.right, width)):
            if folder.joinpath(str(row), str(column)).exists():
                yield Box(column * width, row * height, width, height).intersect(box)


def shard_shape(array: zarr.Array[Any]) -> tuple[int, int]:
    """Height and width of an array's shards; its chunks where it has none."""
    height, width = (array.shards or array.chunks)[-2:]
    return height, width


def _as_written_here(array: zarr.Array[Any]) -> bool:
    """Whether a missing file means zeros and files have Zarr's default names: others may have copied a map."""
    encoding = getattr(array.metadata, "chunk_key_encoding", None)
    return array.fill_value == 0 and encoding == DefaultChunkKeyEncoding(separator="/")
