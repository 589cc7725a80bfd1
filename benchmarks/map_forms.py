"""The forms in which `map_sizes.py` keeps a map's probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import Blosc, Zstd

from wsiseg.classes import WHITE_VALUE
from wsiseg.tissue_map.probability_levels import COARSE

Bytes = npt.NDArray[np.uint8]
Encode = Callable[[Bytes, Bytes], Bytes]
"""Values (K, h, w) and classes (h, w) to what is packed (C, h, w)."""
Decode = Callable[[Bytes, Bytes, int], Bytes]
"""The way back: what was packed (C, h, w), classes and K to values (K, h, w)."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form in which probabilities could be kept.

    Attributes:
        name: for people.
        first: the finest level that is kept.
        encode: see `Encode`.
        decode: see `Decode`.
        codec: packs a chunk.
        means: whether coarser levels are means of the finest one as it is kept; else each is put into this form.
        interpolated: whether levels that are finer than the first are interpolated; else its pixels are repeated.
    """

    name: str
    first: int = 0
    encode: Encode = lambda values, classes: values
    decode: Decode = lambda packed, classes, count: packed
    codec: Any = field(default_factory=lambda: Zstd(3))
    interpolated: bool = False
    means: bool = False


def quantised(bits: int, values: Bytes, classes: Bytes) -> Bytes:
    """The nearest of 2**bits values, 0 and 255 among them."""
    steps = 2**bits - 1
    table = np.rint(np.rint(np.arange(256) * steps / 255) * 255 / steps).astype(np.uint8)
    return np.asarray(table[values])


def rounded(step: int, values: Bytes, classes: Bytes) -> Bytes:
    """The nearest multiples of a step."""
    return ((values.astype(np.uint16) + step // 2) // step * step).astype(np.uint8)


def indexed(bits: int, values: Bytes, classes: Bytes) -> Bytes:
    """As `quantised`, as numbers from 0."""
    return np.asarray(np.rint(np.arange(256) * (2**bits - 1) / 255).astype(np.uint8)[values])


def from_indices(bits: int, packed: Bytes, classes: Bytes, count: int) -> Bytes:
    """The inverse of `indexed`."""
    return np.asarray(np.rint(np.arange(256) * 255 / (2**bits - 1)).clip(0, 255).astype(np.uint8)[packed])


def planes(bits: int, values: Bytes, classes: Bytes) -> Bytes:
    """Planes of single bits, the first ones, eight pixels a byte."""
    flags = [(indexed(bits, values, classes) >> bit) & 1 for bit in range(bits)]
    return np.concatenate([np.packbits(plane, axis=-1) for plane in flags])


def from_planes(bits: int, packed: Bytes, classes: Bytes, count: int) -> Bytes:
    """The inverse of `planes`."""
    flags = np.unpackbits(packed, axis=-1, count=classes.shape[-1]).reshape(bits, count, *classes.shape)
    indices = sum((plane << bit for bit, plane in enumerate(flags)), start=np.zeros_like(flags[0]))
    return from_indices(bits, indices, classes, count)


def top(count: int, values: Bytes, classes: Bytes) -> Bytes:
    """The first `count` probabilities by rank, and the classes of all but the first, which the class map names."""
    order = np.argsort(255 - values, axis=0, kind="stable")[:count].astype(np.uint8)
    ranked = np.take_along_axis(values, order, axis=0)
    return np.concatenate([ranked, order[1:]])


def from_top(count: int, packed: Bytes, classes: Bytes, total: int) -> Bytes:
    """What is left is shared alike by the classes that are not named."""
    found = np.zeros((total, *classes.shape), np.float32)
    has_class = (classes > 0) & (classes <= total)
    first = np.where(has_class, classes, 1)[None].astype(np.int64) - 1
    names = np.concatenate([first, packed[count:].astype(np.int64)])
    left = np.clip(255.0 * has_class - packed[:count].sum(axis=0, dtype=np.float32), 0, None)
    found[:] = left / max(1, total - count)
    np.put_along_axis(found, names, packed[:count].astype(np.float32), axis=0)
    return np.asarray(np.rint(found * has_class).astype(np.uint8))


def all_but_last(values: Bytes, classes: Bytes) -> Bytes:
    """Without the last class, which is what the others leave, up to rounding."""
    return values[:-1]


def with_last(packed: Bytes, classes: Bytes, count: int) -> Bytes:
    """The inverse of `all_but_last`, nearly."""
    has_class = (classes > 0) & (classes != WHITE_VALUE)
    last = np.clip(255 * has_class - packed.sum(axis=0, dtype=np.int32), 0, 255).astype(np.uint8)
    return np.concatenate([packed, last[None]])


def neighbours(values: Bytes, classes: Bytes) -> Bytes:
    """Differences to the pixel on the left."""
    return np.diff(values, axis=-1, prepend=np.uint8(0)).astype(np.uint8)


def from_neighbours(packed: Bytes, classes: Bytes, count: int) -> Bytes:
    """The inverse of `neighbours`."""
    return np.cumsum(packed, axis=-1, dtype=np.uint8)


def between_classes(values: Bytes, classes: Bytes) -> Bytes:
    """Differences to the class before."""
    return np.diff(values, axis=0, prepend=np.uint8(0)).astype(np.uint8)


def from_classes(packed: Bytes, classes: Bytes, count: int) -> Bytes:
    """The inverse of `between_classes`."""
    return np.cumsum(packed, axis=0, dtype=np.uint8)


def forms() -> list[Form]:
    """All that are measured; the first is what maps hold by default."""
    shuffled = Blosc("zstd", 5, Blosc.BITSHUFFLE)
    found = [Form("full, zstd 3")]
    found += [Form(f"full, zstd {level}", codec=Zstd(level)) for level in (1, 9, 19)]
    found += [Form("full, blosc zstd 5 + bitshuffle", codec=shuffled)]
    found += [Form("full, differences of neighbours", 0, neighbours, from_neighbours)]
    found += [Form("full, differences of classes", 0, between_classes, from_classes)]
    found += [Form("full, without the last class", 0, all_but_last, with_last)]
    for bits in (6, 5, 4):
        found.append(Form(f"full, {bits} bits", 0, partial(quantised, bits)))
        found.append(Form(f"full, {bits} bits in planes", 0, partial(planes, bits), partial(from_planes, bits)))
    small = partial(indexed, 4), partial(from_indices, 4)
    found.append(Form("full, 4 bits, bitshuffle", 0, *small, codec=shuffled))
    found.append(Form("top class", 0, partial(top, 1), partial(from_top, 1)))
    found.append(Form("top two", 0, partial(top, 2), partial(from_top, 2)))
    found.append(Form("top class, 4 bits", 0, lambda v, c: indexed(4, top(1, v, c), c),
                      lambda p, c, n: from_top(1, from_indices(4, p, c, n), c, n)))  # fmt: skip
    for first, name in ((1, "half"), (2, "quarter"), (3, "eighth")):
        found.append(Form(f"{name} resolution", first))
        found.append(Form(f"{name} resolution, zstd 19", first, codec=Zstd(19)))
        found.append(Form(f"{name} resolution, differences of neighbours", first, neighbours, from_neighbours))
        found += [Form(f"{name} resolution, {bits} bits", first, partial(quantised, bits)) for bits in (6, 5, 4)]
        found.append(Form(f"{name} resolution, top class", first, partial(top, 1), partial(from_top, 1)))
        found.append(Form(f"{name} resolution, interpolated", first, interpolated=True))
        for step in (3, COARSE.step, 15):
            found.append(Form(f"{name} resolution, interpolated, steps of {step}", first, partial(rounded, step),
                              interpolated=True, means=True))  # fmt: skip
            found.append(Form(f"{name} resolution, interpolated, steps of {step}, zstd 12", first,
                              partial(rounded, step), codec=Zstd(12), interpolated=True, means=True))  # fmt: skip
    return found
