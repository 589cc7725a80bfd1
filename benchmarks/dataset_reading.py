"""How long a data set takes to be listed, checked and read, by its number of patches; and that it is linear.

    python benchmarks/dataset_reading.py --patches 1000 10000 100000

Patches of 32 px of one colour each, in folders of 1000, a group to ten of them: what is measured is the bookkeeping,
and the decoding of the smallest possible files. Seconds of processor time are given for each step, and per 10,000
patches, so that other programs on the machine do not count.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from wsiseg.datasets.check import check_dataset
from wsiseg.datasets.dataset import list_patches, read_dataset
from wsiseg.datasets.masks import MaskNumbers
from wsiseg.datasets.problems import strict
from wsiseg.datasets.sheet import dataset_sheet

SIDE_PX, FOLDER, GROUP = 32, 1000, 10


def write(root: Path, count: int) -> None:
    """A data set of so many patches."""
    rows = ["file,A,B,group"]
    for number in range(count):
        folder = root / "images" / f"{number // FOLDER:04}"
        folder.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        color = (number % 256, number // 256 % 256, number // 65536)
        pixels = np.full((SIDE_PX, SIDE_PX, 3), color, np.uint8)
        pixels[0, :, :] = 255
        Image.fromarray(pixels).save(data, format="PNG", compress_level=1)
        (folder / f"{number}.png").write_bytes(data.getvalue())
        rows.append(f"images/{number // FOLDER:04}/{number}.png,{number % 2},1,g{number // GROUP}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    (root / "dataset.json").write_text(json.dumps({"mpp": 0.5}))


def measure(root: Path) -> dict[str, float]:
    """Seconds of processor time of each step."""
    check = check_dataset(root)
    steps: dict[str, Callable[[], object]] = {
        "list": lambda: list_patches(root, None, MaskNumbers(), strict),
        "check names": lambda: check_dataset(root, decode=False),
        "check": lambda: check_dataset(root),
        "read, no split": lambda: read_dataset(root, val_share=0),
        "read": lambda: read_dataset(root),
        "sheet": lambda: dataset_sheet(check),
        "json": check.to_json,
    }
    found = {}
    for name, step in steps.items():
        begun = time.process_time()
        step()
        found[name] = time.process_time() - begun
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=[1000, 10_000, 100_000])
    for count in parser.parse_args().patches:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), count)
            for name, seconds in measure(Path(folder)).items():
                print(f"{count:7} {name:15} {seconds:8.2f} s {seconds / count * 10_000:8.2f} s per 10,000", flush=True)


if __name__ == "__main__":
    main()
