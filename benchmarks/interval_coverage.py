"""How often 95 % intervals over blocks hold the truth: on drawn fields, and on windows of real maps.

    python benchmarks/interval_coverage.py                          drawn fields of known share
    python benchmarks/interval_coverage.py map.zarr …               windows of maps; the truth is the whole map's share

A drawn field is Gaussian noise, smoothed to structures of a size and cut at its median, so that half of it is stroma. A
window of a map is a square of 5 mm, anywhere on it: its interval says how much another part of the same tissue would
differ, and so is to hold the share of the whole. Shares are of the first of the map's classes that are not white.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wsiseg.classes import WHITE_VALUE
from wsiseg.report.coarse import CoarseMap
from wsiseg.report.endpoints import percent
from wsiseg.report.intervals import LEAST_BLOCKS, effective, likeness, spatial
from wsiseg.tissue_map.reader import open_map

CELL_UM = 40.0
RESAMPLES = 500


def _interval(
    blocks: npt.NDArray[np.float64], places: npt.NDArray[np.int64], seed: int, *, alone: bool
) -> tuple[float, float]:
    """Of blocks (B, 2), stroma and all, as `wsiseg report` computes it; `alone` as if neighbours were not alike."""
    over, under = blocks.T
    alike = 1.0 if alone else likeness(over - under * (over.sum() / under.sum()), places)
    return spatial(blocks, lambda sums: percent(sums[:, 0], sums[:, 1]), RESAMPLES, seed, effective(under), alike)


def _blocks(
    stroma: npt.NDArray[np.bool_], tissue: npt.NDArray[np.bool_], side: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Cells of stroma and of all, (B, 2), by whole blocks of `side` cells; and the places of those with tissue."""
    rows, columns = (length // side for length in tissue.shape)
    parts = [
        mask[: rows * side, : columns * side].reshape(rows, side, columns, side).sum(axis=(1, 3)).astype(np.float64)
        for mask in (stroma & tissue, tissue)
    ]
    places = np.argwhere(parts[1] > 0)
    return np.stack([part[tuple(places.T)] for part in parts], axis=1), places


def drawn(side_mm: float, structure_mm: float, block_mm: float, trials: int) -> tuple[float, float, float]:
    """Coverage with and without likeness, and the mean width of the former."""
    rng = np.random.default_rng(0)
    cells, sigma = round(side_mm * 1000 / CELL_UM), structure_mm * 1000 / CELL_UM / 2.5
    hits, widths = np.zeros(2), 0.0
    for trial in range(trials):
        rim = int(4 * sigma)
        field = ndimage.gaussian_filter(rng.standard_normal((cells + 2 * rim,) * 2), sigma)
        field = field[rim : rim + cells, rim : rim + cells]
        blocks, places = _blocks(field > 0, np.ones_like(field, np.bool_), round(block_mm * 1000 / CELL_UM))
        for index, alone in enumerate((False, True)):
            low, high = _interval(blocks, places, trial, alone=alone)
            hits[index] += low <= 50 <= high
            widths += 0 if index else high - low
    return float(hits[0]) / trials, float(hits[1]) / trials, widths / trials


def of_map(path: Path, window_mm: float, trials: int) -> tuple[float, float, int]:
    """Coverage with and without likeness over windows of a map, and how many had blocks enough."""
    coarse = CoarseMap.of(open_map(path), CELL_UM)
    tissue = (coarse.classes > 0) & (coarse.classes != WHITE_VALUE)
    values = coarse.classes[tissue]
    first = int(np.bincount(values).argmax())
    stroma, truth = coarse.classes == first, 100 * float((values == first).mean())
    rng = np.random.default_rng(0)
    window, block = (round(mm * 1000 / coarse.mpp.mean) for mm in (window_mm, 1.0))
    hits, used = np.zeros(2), 0
    for trial in range(trials):
        y, x = (int(rng.integers(max(1, length - window + 1))) for length in tissue.shape)
        part = (slice(y, y + window), slice(x, x + window))
        blocks, places = _blocks(stroma[part], tissue[part], block)
        if not len(blocks) or effective(blocks[:, 1]) < LEAST_BLOCKS:
            continue
        used += 1
        for index, alone in enumerate((False, True)):
            low, high = _interval(blocks, places, trial, alone=alone)
            hits[index] += low <= truth <= high
    return float(hits[0]) / max(1, used), float(hits[1]) / max(1, used), used


@click.command()
@click.argument("maps", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--trials", default=300, show_default=True, help="Fields, or windows of a map.")
@click.option("--window", default=5.0, show_default=True, help="Side of a window in mm.")
def main(maps: tuple[Path, ...], trials: int, window: float) -> None:
    """Print coverage of 95 % intervals."""
    if not maps:
        click.echo("side mm  structures mm  blocks mm  coverage  (neighbours not looked at)  mean width, points")
        for side in (5.0, 8.0):
            for structure in (0.1, 0.3, 0.6, 1.0):
                both, alone, width = drawn(side, structure, 1.0, trials)
                click.echo(f"{side:7g}  {structure:13g}  {1:9g}  {both:8.3f}  {alone:27.3f}  {width:18.1f}")
    for path in maps:
        both, alone, used = of_map(path, window, trials)
        click.echo(f"{path.name}: {both:.3f} ({alone:.3f} without) of {used} windows of {window:g} mm")


if __name__ == "__main__":
    main()
