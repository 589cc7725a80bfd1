"""Unpacking the chunks of a tissue map within bounds: a few kilobytes of Zstandard can unpack to gigabytes."""

from __future__ import annotations

import math
import struct
from contextlib import AbstractContextManager
from typing import Any

import zarr
from zarr.codecs import ZstdCodec
from zarr.registry import register_codec

_MAGIC = b"\x28\xb5\x2f\xfd"
_HEAD_BYTES = 18
"""Longest head of a frame."""

_SPARE_BYTES = 64
"""What a checksum or the like may add to a chunk."""


class BoundedZstd(ZstdCodec):
    """Zstandard that unpacks no chunk to more than its shape says."""

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        head = chunk_bytes.as_numpy_array()[:_HEAD_BYTES].tobytes()
        most = math.prod(chunk_spec.shape) * chunk_spec.dtype.item_size + _SPARE_BYTES
        stated = frame_bytes(head)
        if stated is None or stated > most:
            raise ValueError(f"a chunk states that it unpacks to {stated} bytes, expected at most {most}")
        return await super()._decode_single(chunk_bytes, chunk_spec)


def frame_bytes(head: bytes) -> int | None:
    """How many bytes a Zstandard frame unpacks to, as its head says (RFC 8878, 3.1.1.1); None where it does not."""
    if len(head) < 6 or head[:4] != _MAGIC:
        return None
    described = head[4]
    single = described >> 5 & 1
    place = 5 + (1 - single) + (0, 1, 2, 4)[described & 3]
    width = (single, 2, 4, 8)[described >> 6]
    field = head[place : place + width]
    if width == 0 or len(field) < width:
        return None
    value: int = struct.unpack("<" + {1: "B", 2: "H", 4: "I", 8: "Q"}[width], field)[0]
    return value + 256 if width == 2 else value


def bounded() -> AbstractContextManager[Any]:
    """Arrays that are opened inside this context unpack within bounds, and go on to do so behind it."""
    name = f"{BoundedZstd.__module__}.{BoundedZstd.__qualname__}"
    register_codec("zstd", BoundedZstd)
    context: AbstractContextManager[Any] = zarr.config.set({"codecs.zstd": name})
    return context
