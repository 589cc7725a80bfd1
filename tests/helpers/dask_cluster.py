"""Runs on Dask clusters in processes of their own, and what they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import tifffile
from PIL import Image

from tests.helpers.maps import chunks

WSISEG = [sys.executable, "-m", "wsiseg"]
ALIKE = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
"""The environment of runs whose maps are to be alike: one thread each."""


def cut_slides(folder: Path, slide: Path, number: int, side: int = 640) -> Path:
    """Write a list of small slides that are cut from one."""
    folder.mkdir()
    whole = Image.fromarray(tifffile.imread(slide, series=0, level=0))
    for index in range(number):
        x, y = 500 + 60 * (index % 8), 900 + 300 * (index // 8)
        whole.crop((x, y, x + side + 16 * index, y + side)).save(folder / f"{index}.png")
    (folder / "list.txt").write_text("".join(f"{index}.png\n" for index in range(number)))
    return folder / "list.txt"


def begin(slides: Path, maps: Path, *more: object, **kinds: Any) -> "subprocess.Popen[str]":
    """Begin a run, whose messages come from `stderr`."""
    command = [*WSISEG, "predict", "--slides", slides, "--out", maps, "--mpp", "0.5", "--tissue", "none", *more]
    return subprocess.Popen(
        [str(part) for part in command], env=ALIKE, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **kinds
    )


def holders(maps: Path) -> list[int]:
    """Processes that hold a slide now."""
    found = []
    for path in maps.glob(".*.lease/holder.json"):
        try:
            process = int(json.loads(path.read_text())["process"])
        except (OSError, ValueError):
            continue
        if Path(f"/proc/{process}").exists():
            found.append(process)
    return found


def same_maps(one: Path, other: Path) -> int:
    """How many maps are there, byte for byte the same in both, with the same polygons."""
    names = sorted(path.name for path in one.glob("*.zarr"))
    assert names == sorted(path.name for path in other.glob("*.zarr"))
    for name in names:
        assert chunks(one / name) == chunks(other / name) != {}, name
        facts = [json.loads((maps / name / "zarr.json").read_text())["attributes"]["wsiseg"] for maps in (one, other)]
        assert facts[0].pop("times") != facts[1].pop("times")
        for fact in facts:
            del fact["parameters"]["workers"]
        assert facts[0] == facts[1], name
        drawn = [(maps / name).with_suffix(".geojson").read_bytes() for maps in (one, other)]
        assert drawn[0] == drawn[1], name
    return len(names)
