"""What a whole `wsiseg predict` costs: seconds, peak memory, tissue a minute, and what the networks alone would take.

    python benchmarks/predict.py SLIDE [--mpp UM] [--model NAME]

The run is a process of its own, so that its peak memory is its own. The networks are timed afterwards, in this
process, on patches that lie in memory already: the floor that reading, blending and writing are measured against.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.bundle import load_model
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction import predict_patches


def run(arguments: list[str], out: Path) -> tuple[dict[str, Any], float, float]:
    """One `wsiseg predict`: its result, wall seconds, and peak memory in MB."""
    command = [sys.executable, "-m", "wsiseg", "predict", *arguments, "--out", str(out), "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    result: dict[str, Any] = json.loads(done.stdout)
    return result, wall, peak


def floor(model: TissueModel, decided: float, batch_size: int, patches: int) -> float:
    """Seconds a patch that gate and segmenter take; `decided` is the share that needs no segmenter."""
    side = model.spec.patch_size_px
    batch = torch.randint(0, 256, (batch_size, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    both = torch.full_like(model.gate, -1.0)  # every class passes, so that the segmenter is always asked
    seconds = 0.0
    rounds = max(3, patches // batch_size)
    for index in range(rounds + 1):
        start = time.perf_counter()
        predict_patches(model, batch, both)
        seconds += time.perf_counter() - start if index else 0.0  # the first warms up
    start = time.perf_counter()
    for _ in range(rounds):
        model.classify(batch)
    gate = (time.perf_counter() - start) / (rounds * batch_size)
    whole = seconds / (rounds * batch_size)
    return whole - decided * (whole - gate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide")
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--patches", type=int, default=400, help="patches that the floor is measured with")
    args = parser.parse_args()
    arguments = [args.slide, "--model", args.model, *(["--mpp", str(args.mpp)] if args.mpp else [])]
    with tempfile.TemporaryDirectory() as folder:
        result, wall, peak = run(arguments, Path(folder) / "map.zarr")
        written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    model = load_model(args.model)
    counts, seconds = result["counts"], result["seconds"]
    batch_size = max(1, 2**17 // model.spec.patch_size_px**2)
    per_patch = floor(model, counts["decided"] / max(1, counts["read"]), batch_size, args.patches)
    networks = per_patch * counts["read"]
    work = seconds["total"] - seconds["start"]
    rows = {
        "wall, s": f"{wall:.1f}",
        "of that start-up, s": f"{wall - work:.1f}",
        "phases, s": ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()),
        "networks alone, s": f"{networks:.1f}",
        "tiles / networks alone": f"{seconds['tiles'] / networks:.2f}",
        "all but start-up / networks alone": f"{work / networks:.2f}",
        "patches read": f"{counts['read']} of {counts['tiles']}",
        "patches/s": f"{counts['read'] / seconds['tiles']:.1f}",
        "tissue, mm2": f"{result['tissue_mm2']:.2f}",
        "tissue, mm2 a minute": f"{result['tissue_mm2'] / wall * 60:.2f}",
        "peak memory, MB": f"{peak:.0f}",
        "written, MB": f"{written / 1e6:.1f}",
        "threads of torch": str(torch.get_num_threads()),
    }
    for name, value in rows.items():
        print(f"{name:36} {value}")


if __name__ == "__main__":
    main()
