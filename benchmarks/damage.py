"""How many damaged tiles are found, by OpenSlide alone and with the check of the tiles' bytes; what the check costs.

    python benchmarks/damage.py sample_data/CMU-1-Small-Region.svs

Overwrites 64 bytes in the middle of every tile of level 0 with noise, in a copy, and opens each tile alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import openslide
import tifffile

from wsiseg.geometry import Box, ceil_div
from wsiseg.slides import open_slide
from wsiseg.slides.tiff.integrity import join_tables, jpeg_fault

NOISE_BYTES = 64


def main() -> None:
    """Print the figures of one slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path, help="a tiled JPEG TIFF or SVS")
    parser.add_argument("--tiles", type=int, default=400, help="at most so many tiles, spread over the slide")
    arguments = parser.parse_args()
    with tifffile.TiffFile(arguments.slide) as tiff:
        page = tiff.series[0].levels[0].keyframe
        step = ceil_div(len(page.dataoffsets), arguments.tiles)
        places = [(i, page.dataoffsets[i], page.databytecounts[i]) for i in range(0, len(page.dataoffsets), step)]
        tables, columns = page.jpegtables, ceil_div(page.imagewidth, page.tilewidth)
        tile = (page.tilewidth, page.tilelength)
    whole = arguments.slide.read_bytes()
    boxes = [(i % columns * tile[0], i // columns * tile[1]) for i, _, _ in places]
    seconds = _seconds(arguments.slide, boxes, tile)
    began = time.perf_counter()
    false = sum(jpeg_fault(join_tables(whole[o : o + n], tables)) is not None for _, o, n in places)
    check = time.perf_counter() - began
    noisy = bytearray(whole)
    for index, offset, count in places:
        middle = offset + count // 2
        length = min(NOISE_BYTES, count - count // 2)
        noisy[middle : middle + length] = np.random.default_rng(index).bytes(length)
    found = sum(jpeg_fault(join_tables(bytes(noisy[o : o + n]), tables)) is not None for _, o, n in places)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / arguments.slide.name
        path.write_bytes(noisy)
        alone = sum(_fails(path, box, tile) for box in boxes)
    total = len(places)
    per_tile = 1e3 / total
    print(f"{arguments.slide.name}: {total} tiles, {NOISE_BYTES} bytes of noise in each")
    print(f"found by OpenSlide alone   {alone} ({alone / total:.0%})")
    print(f"found by the check         {found} ({found / total:.0%}), sound tiles refused: {false}")
    print(f"check                      {check * per_tile:.2f} ms a tile, {check / seconds[0]:.0%} of OpenSlide's read")
    print(f"OpenSlide's read           {seconds[0] * per_tile:.2f} ms a tile")
    print(f"our read and check         {seconds[1] * per_tile:.2f} ms a tile")


def _seconds(path: Path, boxes: list[tuple[int, int]], tile: tuple[int, int]) -> tuple[float, float]:
    """To read tiles with OpenSlide, and with this package."""
    with openslide.OpenSlide(path) as slide:
        began = time.perf_counter()
        for box in boxes:
            slide.read_region(box, 0, tile)
        theirs = time.perf_counter() - began
    with open_slide(path) as ours:
        began = time.perf_counter()
        for x, y in boxes:
            ours.read_level(0, Box(x, y, *tile))
        return theirs, time.perf_counter() - began


def _fails(path: Path, box: tuple[int, int], tile: tuple[int, int]) -> bool:
    with openslide.OpenSlide(path) as slide:
        try:
            slide.read_region(box, 0, tile)
        except openslide.OpenSlideError:
            return True
    return False


if __name__ == "__main__":
    main()
