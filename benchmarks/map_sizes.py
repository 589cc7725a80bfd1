"""How small can a map's probabilities be, and what is lost with them?

For each tissue map that has all its probabilities, and for each form in which they could be kept: bytes of the
probabilities and of the whole map, how many times smaller it is, what uncertainty, measures of classes and the report's
endpoints come to, and the time of packing and unpacking. Sizes are those of chunks as the map has them; of levels with
many chunks a sample is packed. Errors of endpoints and measures are those of the program's own functions, which
read the map through a stand-in whose probabilities are those of the form.

    python benchmarks/map_sizes.py map.zarr other.zarr --json sizes.json
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import Blosc, Zstd

from wsiseg.classes import WHITE_VALUE
from wsiseg.geojson.measures import measure_classes
from wsiseg.geometry import Box
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.measure import MeasureOptions, measure
from wsiseg.report.quality import map_flags
from wsiseg.report.roles import roles_of
from wsiseg.server.view.places import uncertain_regions
from wsiseg.tissue_map.finer import estimated, source_of
from wsiseg.tissue_map.pyramid import halved
from wsiseg.tissue_map.reader import TissueMap, open_map, opened

Bytes = npt.NDArray[np.uint8]
Encode = Callable[[Bytes, Bytes], Bytes]
"""Values (K, h, w) and classes (h, w) to what is packed (C, h, w)."""
Decode = Callable[[Bytes, Bytes, int], Bytes]
"""The way back: what was packed (C, h, w), classes and K to values (K, h, w)."""

CHUNK_PX = 512


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
    return table[values]


def rounded(step: int, values: Bytes, classes: Bytes) -> Bytes:
    """The nearest multiples of a step."""
    return ((values.astype(np.uint16) + step // 2) // step * step).astype(np.uint8)


def indexed(bits: int, values: Bytes, classes: Bytes) -> Bytes:
    """As `quantised`, as numbers from 0."""
    return np.rint(np.arange(256) * (2**bits - 1) / 255).astype(np.uint8)[values]


def from_indices(bits: int, packed: Bytes, classes: Bytes, count: int) -> Bytes:
    """The inverse of `indexed`."""
    return np.rint(np.arange(256) * 255 / (2**bits - 1)).clip(0, 255).astype(np.uint8)[packed]


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
    """The probabilities of the first `count` classes by rank; names of all behind the first, whom the class map names."""
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
    return np.rint(found * has_class).astype(np.uint8)


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
        for step in (3, 5, 15):
            found.append(Form(f"{name} resolution, interpolated, steps of {step}", first, partial(rounded, step),
                              interpolated=True, means=True))  # fmt: skip
            found.append(Form(f"{name} resolution, interpolated, steps of {step}, zstd 12", first,
                              partial(rounded, step), codec=Zstd(12), interpolated=True, means=True))  # fmt: skip
    return found


class InForm(TissueMap):
    """A map whose probabilities are those that a form would give."""

    form: Form = Form("full")

    def read_probability(self, index: int, box: Box, level: int = 0) -> Bytes:
        """See `TissueMap.read_probability`."""
        return self.all_of(box, level)[index - 1]

    def all_of(self, box: Box, level: int) -> Bytes:
        """The probabilities of all classes in a box, (K, h, w); finer ones than are kept as the form says."""
        first = self.form.first
        if level >= first:
            return self._kept(box, level)
        factor = 2 ** (first - level)
        source = source_of(box, factor, self.grid.coarsen(2**first))
        classes = self.read(box, level)
        known = (classes > 0) & (classes != WHITE_VALUE)
        if self.form.interpolated:
            return estimated(self._kept(source, first), source, factor, box, known)
        found = self._kept(source, first).repeat(factor, axis=1).repeat(factor, axis=2)
        y, x = box.y - source.y * factor, box.x - source.x * factor
        return found[:, y : y + box.height, x : x + box.width]

    def _kept(self, box: Box, level: int) -> Bytes:
        """Of a level that is kept."""
        up = level - self.form.first if self.form.means else 0
        finest = Box(box.x << up, box.y << up, box.width << up, box.height << up)
        finest = finest.intersect(Box.from_size(self.grid.coarsen(2 ** (level - up))))
        values, classes = self.exact(finest, level - up), self.read(finest, level - up)
        found = self.form.decode(self.form.encode(values, classes), classes, len(self.classes))
        for _ in range(up):
            found = halved(found, labels=False)
        return found

    def exact(self, box: Box, level: int) -> Bytes:
        """What the map has, (K, h, w)."""
        channels = range(1, len(self.classes) + 1)
        return np.stack([super(InForm, self).read_probability(index, box, level) for index in channels])


def sample(source: TissueMap, level: int, most: int) -> tuple[list[Box], float]:
    """Chunks of a level that hold classes, at most so many; and how many such there are for each of them."""
    whole = Box.from_size(source.grid.coarsen(2**level))
    places = [
        Box(x, y, CHUNK_PX, CHUNK_PX).intersect(whole)
        for y in range(0, whole.height, CHUNK_PX)
        for x in range(0, whole.width, CHUNK_PX)
    ]
    held = [box for box in places if source.read(box, level).any()]
    step = max(1, math.ceil(len(held) / most))
    chosen = held[step // 2 :: step]
    return chosen, len(held) / max(1, len(chosen))


def packed_size(source: InForm, most: int) -> tuple[float, float, float]:
    """Bytes of a form's chunks, and seconds of making and of undoing them."""
    form = source.form
    size = write_s = read_s = 0.0
    for level in range(form.first, source.levels):
        plain = form.means and level > form.first
        boxes, weight = sample(source, level, most)
        for box in boxes:
            values, classes = source.exact(box, level), source.read(box, level)
            began = time.perf_counter()
            made = [np.ascontiguousarray(plane) for plane in (values if plain else form.encode(values, classes))]
            parts = [form.codec.encode(plane) for plane in made if plane.any()]
            write_s += weight * (time.perf_counter() - began)
            size += weight * sum(map(len, parts))
            began = time.perf_counter()
            for part in parts:
                form.codec.decode(part)
            if not plain:
                form.decode(np.stack(made), classes, len(values))
            read_s += weight * (time.perf_counter() - began)
    return size, write_s, read_s


def uncertainty_errors(source: TissueMap, other: InForm, level: int, most: int) -> tuple[float, float, float]:
    """Change of the mean, mean and 99th percentile of the absolute error, each by the mean of the full map's."""
    full: list[Bytes] = []
    found: list[Bytes] = []
    for box in sample(source, level, most)[0]:
        classes = source.read(box, level)
        has_class = (classes > 0) & (classes != WHITE_VALUE)
        values = other.exact(box, level)
        full.append(255 - values.max(axis=0)[has_class])
        found.append(255 - other.all_of(box, level).max(axis=0)[has_class])
    a, b = (np.concatenate(parts).astype(np.float32) for parts in (full, found))
    mean = float(a.mean()) or math.nan
    error = np.abs(a - b)
    return float(b.mean()) / mean - 1, float(error.mean()) / mean, float(np.percentile(error, 99)) / mean


def figures(source: TissueMap) -> dict[str, float]:
    """What the program says of a map by its probabilities, besides pictures."""
    coarse = CoarseMap.of(source)
    measured = measure(coarse, roles_of(source.classes, {}), MeasureOptions())
    found: dict[str, float] = {}
    for one in [*measured.counted, *(one for some in measured.variants.values() for one in some)]:
        for part in ("value", "low", "high"):
            if math.isfinite(getattr(one, part)):
                found[f"endpoint {one.name} {part}"] = float(getattr(one, part))
    found |= {f"flag {flag.name}": flag.value for flag in map_flags(coarse) if flag.value is not None}
    regions = uncertain_regions(source)[:20]
    found["mean of the 20 least certain regions"] = float(np.mean([one["mean"] for one in regions]))
    for name, one in zip(source.classes.names, measure_classes(source), strict=True):
        if one is not None:
            found[f"mean probability of {name}"] = one.mean_probability
            found[f"uncertain share of {name}"] = one.uncertain
    return found


def worst(full: dict[str, float], found: dict[str, float], *starts: str) -> tuple[float, str]:
    """The largest relative change of the figures whose names begin so, and which it is."""
    changes = [
        (abs(found[name] / value - 1) if value else abs(found[name]), name)
        for name, value in full.items()
        if name.startswith(starts)
    ]
    return max(changes, default=(math.nan, ""))


def rows_of(path: Path, most: int, chosen: str) -> Iterator[dict[str, Any]]:
    """One row for each form."""
    source = open_map(path)
    files = [(file, file.stat().st_size) for file in path.rglob("*") if file.is_file()]
    total = sum(size for _, size in files)
    kept = sum(size for file, size in files if file.relative_to(path).parts[0].isdigit())
    report_level = CoarseMap.of(source).level
    truth = figures(source)
    base = None
    for number, form in enumerate(forms()):
        if form.first >= source.levels or (number and not re.search(chosen, form.name)):
            continue
        other = opened(path, InForm)
        other.form = form
        size, write_s, read_s = packed_size(other, most)
        base = base or (size, write_s, read_s)
        size *= kept / base[0]  # of samples, and without the index of shards: scaled by what the full form has on disk
        got = figures(other)
        fine = uncertainty_errors(source, other, 0, most)
        own = uncertainty_errors(source, other, report_level, most)
        yield {
            "map": path.name, "form": form.name, "probabilities_kb": size / 1000, "map_kb": (total - kept + size) / 1000,
            "smaller": total / (total - kept + size),
            "uncertainty_fine": fine, "uncertainty_report": own,
            "endpoints": worst(truth, got, "endpoint"), "flags": worst(truth, got, "flag"),
            "regions": worst(truth, got, "mean of"), "mean_probability": worst(truth, got, "mean probability"),
            "uncertain_share": worst(truth, got, "uncertain share"),
            "write": write_s / base[1], "read": read_s / base[2],
        }  # fmt: skip


def main() -> None:
    """Print a table for each map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=24, help="chunks of a level that are looked at")
    parser.add_argument("--forms", default="", help="only those whose names hold this regular expression")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    asked = parser.parse_args()
    rows = []
    for path in asked.maps:
        print(f"\n{path.name}\n{'form':44} {'prob. kB':>9} {'map kB':>9} {'x':>5} | uncertainty at level 0: mean, |error|,"
              " p99 | at the report's | endpoints flags regions mean_p unsure | write read")  # fmt: skip
        for row in rows_of(path, asked.most, asked.forms):
            rows.append(row)
            fine, own = row["uncertainty_fine"], row["uncertainty_report"]
            print(
                f"{row['form']:44} {row['probabilities_kb']:9.0f} {row['map_kb']:9.0f} {row['smaller']:5.1f} |"
                f" {fine[0]:+7.1%} {fine[1]:6.1%} {fine[2]:6.1%} | {own[0]:+7.2%} {own[1]:6.2%} {own[2]:6.2%} |"
                + "".join(f" {row[key][0]:7.2%}" for key in
                          ("endpoints", "flags", "regions", "mean_probability", "uncertain_share"))
                + f" | {row['write']:5.2f} {row['read']:5.2f}",
                flush=True,
            )  # fmt: skip
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
