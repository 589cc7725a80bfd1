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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from map_forms import Bytes, Form, forms

from wsiseg.classes import WHITE_VALUE
from wsiseg.geojson.measures import measure_classes
from wsiseg.geometry import Box
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.measure import MeasureOptions, measure
from wsiseg.report.quality import map_flags
from wsiseg.report.roles import roles_of
from wsiseg.server.view.places import uncertain_regions
from wsiseg.tissue_map.finer import estimated, shares_with_class, source_of
from wsiseg.tissue_map.pyramid import halved
from wsiseg.tissue_map.reader import TissueMap, open_map, opened

CHUNK_PX = 512


class InForm(TissueMap):
    """A map whose probabilities are those that a form would give."""

    form: Form = Form("full")

    def channels(self, box: Box, level: int = 0) -> Iterator[Bytes]:
        """See `TissueMap.channels`; levels that are finer than is kept as the form says."""
        first = self.form.first
        if level >= first:
            return iter(self.kept(box, level))
        factor = 2 ** (first - level)
        source = source_of(box, factor, self.grid.coarsen(2**first))
        coarse = self.kept(source, first)
        if self.form.interpolated:
            finest = Box(box.x << level, box.y << level, box.width << level, box.height << level)
            classes = self.read(finest.intersect(Box.from_size(self.size)))
            return iter(estimated(coarse, source, factor, box, shares_with_class(classes, len(self.classes), level)))
        found = coarse.repeat(factor, axis=1).repeat(factor, axis=2)
        y, x = box.y - source.y * factor, box.x - source.x * factor
        return iter(found[:, y : y + box.height, x : x + box.width])

    def kept(self, box: Box, level: int) -> Bytes:
        """Of a level that is kept, (K, h, w)."""
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
        return np.stack([self.read_probability(index, box, level) for index in range(1, len(self.classes) + 1)])


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
        found.append(255 - other.estimate_probabilities(box, level).max(axis=0)[has_class])
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
    for name, measures in zip(source.classes.names, measure_classes(source), strict=True):
        if measures is not None:
            found[f"mean probability of {name}"] = measures.mean_probability
            found[f"uncertain share of {name}"] = measures.uncertain
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
            "map": path.name, "form": form.name,
            "probabilities_kb": size / 1000, "map_kb": (total - kept + size) / 1000,
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
        print(
            f"\n{path.name}\n{'form':44} {'prob. kB':>9} {'map kB':>9} {'x':>5} | uncertainty at level 0: mean, "
            "|error|, p99 | at the report's | endpoints flags regions mean_p unsure | write read"
        )
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
