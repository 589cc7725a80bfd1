"""What reading a slide over HTTP and from S3 costs beside reading it from the disk: requests, bytes, seconds.

    python -m benchmarks.remote SLIDE [--mpp UM] [--delay MS] [--repeat N] [--predict OPTIONS …]

nginx serves the slide, plainly and as S3 does an object (moto, the server of the tests, copies all of a file for each
range), behind a proxy that counts and delays each answer. Every run is a process of its own that does what `wsiseg
predict` does of reading: opens the slide twice, hashes it, finds the tissue and reads every block of patches of the
model's plan; with --predict the whole of `wsiseg predict`. The bytes needed are those of all the file's tiles that the
plan touches, each once. The same pixels have to come out of every run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.helpers.servers import BUCKET, KEYS, nginx, proxied
from wsiseg.geometry import Box, source_interval
from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.spec import read_spec
from wsiseg.prediction.plan import plan
from wsiseg.slides import open_slide
from wsiseg.slides.expected import expected
from wsiseg.system.control_group import usable_cpus
from wsiseg.system.memory import MemoryPlan
from wsiseg.system.threads import read_ahead
from wsiseg.tiling.pieces import block_patches, blocks_of, pieces_of
from wsiseg.tiling.reading import box_around, read_block

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide")
    parser.add_argument("--mpp", type=float, help="microns per pixel of a slide that does not record them")
    parser.add_argument("--delay", type=float, default=50.0, help="milliseconds before each answer in the slow runs")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each way, of which the quickest is shown")
    parser.add_argument("--only", choices=["http", "s3"], help="one kind of server")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--predict", nargs=argparse.REMAINDER, help="run `wsiseg predict` with these options instead")
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(read_all(asked.slide, asked.mpp)))
        return
    slide = Path(asked.slide).resolve()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = folder / "served"
        served.mkdir()
        (served / BUCKET).mkdir()
        for place in (served, served / BUCKET):
            (place / slide.name).symlink_to(slide)
        port = stack.enter_context(nginx(served, folder))
        kinds = [asked.only] if asked.only else ["http", "s3"]
        ways = [(None, 0.0), *((kind, delay) for kind in kinds for delay in (0.0, asked.delay))]
        results: dict[tuple[str | None, float], list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(asked.repeat):  # by turns, so that what else the machine does meets all of them
            for kind, delay in ways:
                if kind is None:
                    found = measured(str(slide), {}, asked) | {"requests": 0, "bytes": 0}
                else:
                    with proxied(port, delay / 1000) as (through, told):
                        found = measured(*address(kind, through, slide.name), asked) | told()
                assert found["pixels"] == results[None, 0.0][0]["pixels"] if results[None, 0.0] else True
                results[kind, delay].append(found)
        local = min(found["seconds"] for found in results[None, 0.0])
        print(f"{'':14}{'requests':>9}{'MB':>9}{'of needed':>11}{'seconds':>9}{'of local':>10}{'CPU s':>8}")
        for (kind, delay), runs in results.items():
            best = min(runs, key=lambda found: float(found["seconds"]))
            name = "local" if kind is None else f"{kind}, {delay:g} ms"
            show(name, best, local)


def show(name: str, best: dict[str, Any], local: float) -> None:
    needed, sent = best.get("needed", 0), best["bytes"]
    share = f"{sent / needed:.2f}" if needed and sent else ""
    seconds, processor = best["seconds"], best["processor"]
    print(
        f"{name:14}{best['requests']:9}{sent / 1e6:9.1f}{share:>11}{seconds:9.1f}{seconds / local:10.2f}"
        f"{processor:8.1f}", flush=True,
    )  # fmt: skip


def address(kind: str, port: int, name: str) -> tuple[str, dict[str, str]]:
    """The slide's address, and what the environment needs for it."""
    if kind == "http":
        return f"http://127.0.0.1:{port}/{name}", {}
    return f"s3://{BUCKET}/{name}", {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def measured(slide: str, environment: dict[str, str], asked: argparse.Namespace) -> dict[str, Any]:
    """A run in a process of its own."""
    environment = {**os.environ, **environment, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    mpp = [] if asked.mpp is None else ["--mpp", str(asked.mpp)]
    if asked.predict is None:
        command = [sys.executable, "-m", "benchmarks.remote", slide, "--child", *mpp]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
        return dict(json.loads(done.stdout))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "wsiseg", "predict", slide, "--out", f"{folder}/a.zarr", "--quiet", *mpp]
        start, before = time.perf_counter(), children_s()
        subprocess.run([*command, "--no-geojson", *asked.predict], check=True, env=environment, cwd=ROOT)
        seconds, processor = time.perf_counter() - start, children_s() - before
        digest = hashlib.sha256()
        for path in sorted(Path(folder, "a.zarr").rglob("c/**/*")):
            if path.is_file():
                digest.update(path.read_bytes())
        return {"seconds": seconds, "processor": processor, "pixels": digest.hexdigest()}


def children_s() -> float:
    """Seconds of a processor that processes have taken which this one started and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_all(slide: str, mpp: float | None) -> dict[str, Any]:
    """What predict reads, without its networks."""
    start, before = time.perf_counter(), time.process_time()
    with open_slide(slide, mpp=mpp) as opened:
        _ = opened.mpp
    with open_slide(slide, mpp=mpp) as opened:
        opened.quick_hash()
        spec = read_spec(DEFAULT_MODEL)
        todo = plan(opened, spec.mpp, spec.tiling())
        side = block_patches(todo.tiles, max(todo.grid.zoom_x, todo.grid.zoom_y))
        pieces = pieces_of(todo.tiles, todo.selected, MemoryPlan.from_limit(None, 4).piece_px)
        blocks = (block for piece in pieces for block in blocks_of(piece, todo.tiles, todo.selected, side))
        digest = hashlib.sha256()
        workers = min(8, usable_cpus())
        coming = expected(opened, todo.grid, blocks, box_around)
        for _, patches in read_ahead(
            coming, lambda block: read_block(opened, todo.grid, block), workers=workers, ahead=2 * workers
        ):
            for patch in patches:
                digest.update(patch.pixels[::16, ::16].tobytes())
        seconds, processor = time.perf_counter() - start, time.process_time() - before
        assert opened.damaged_tiles == 0
    needed = needed_bytes(opened, todo)
    return {"seconds": seconds, "processor": processor, "pixels": digest.hexdigest(), "needed": needed}


def needed_bytes(slide: Any, todo: Any) -> int:
    """Of the tiles that the plan's patches and the search for tissue touch, each once."""
    touched: set[tuple[int, Any]] = set()
    grid = todo.grid
    for row, column in zip(*todo.selected.nonzero(), strict=True):
        box = todo.tiles.box(int(row), int(column))
        x, width = source_interval(box.x, box.width, grid.zoom_x)
        y, height = source_interval(box.y, box.height, grid.zoom_y)
        inside = Box(x, y, width, height).intersect(Box.from_size(slide.levels[grid.level].size))
        touched |= {(grid.level, cell) for cell in slide.damage.cells(grid.level, inside)}
    tables, length = slide._tiles.tables, slide._source.length
    return sum(count for level, cell in touched for _, count in tables[level].ranges(cell, length) or [])


if __name__ == "__main__":
    main()
