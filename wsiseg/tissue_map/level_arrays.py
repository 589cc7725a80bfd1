"""The arrays of a pyramid's levels in a store that is written."""

from __future__ import annotations

import math
from typing import Any

import zarr
from zarr.codecs import ZstdCodec

from wsiseg.geometry import Size, ceil_div
from wsiseg.system.memory import CHUNK_PX

ZarrArray = zarr.Array[Any]


def made_level(
    group: zarr.Group, level: int, size: Size, shard_px: int, channels: int = 0, chunk_px: int | None = None
) -> ZarrArray:
    """The array of one level, made if it is not there: (y, x), or (c, y, x) with channels.

    Args:
        group: of the pyramid.
        level: its number there.
        size: of the level.
        shard_px: side of a shard.
        channels: 0 for an array without them.
        chunk_px: side of a chunk, which divides that of a shard; None takes the largest up to `CHUNK_PX`.
    """
    if str(level) in group:
        return level_of(group, level)
    lead = (channels,) if channels else ()
    chunk = chunk_px or math.gcd(shard_px, CHUNK_PX)
    height, width = (ceil_div(length, chunk) * chunk for length in size.shape)
    return group.create_array(
        str(level),
        shape=(*lead, *size.shape),
        chunks=(*(1 for _ in lead), chunk, chunk),
        shards=(*lead, min(shard_px, height), min(shard_px, width)),
        dtype="uint8",
        fill_value=0,
        compressors=ZstdCodec(level=3),
        dimension_names=(*("c" for _ in lead), "y", "x"),
    )


def level_of(group: zarr.Group, level: int) -> ZarrArray:
    """The array of a level that is there."""
    array = group[str(level)]
    assert isinstance(array, zarr.Array)
    return array
