"""What a whole `wsiseg predict` costs: seconds, peak memory, tissue a minute, and what the networks alone would take.

    python benchmarks/predict.py SLIDE [SLIDE …] [--mpp UM] [--model NAME] [-- OPTIONS OF PREDICT]

Each run is a process of its own, so that its peak memory is its own. The floor, what reading, gating, blending and
writing are measured against, is the time that the networks alone take for patches of the same slide that lie in memory
already: the same batch size, runtime, precision and number of batches at once, before the run and after it, the mean of
both. With several slides the exponent b of seconds ~ tissue**b is fitted; 1 is a straight line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsiseg.cli.predict import predict as predict_command
from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.gate import allowed_classes
from wsiseg.models.gate_kinds import MODES, RULES
from wsiseg.prediction.gated import batch_tensor, make_gate
from wsiseg.prediction.plan import plan
from wsiseg.prediction.run import PredictOptions, loaded_model
from wsiseg.prediction.stream import Stream
from wsiseg.slides import open_slide
from wsiseg.system.memory import MemoryPlan
from wsiseg.system.threads import read_ahead
from wsiseg.tiling.reading import read_block

CHILD = """
import atexit, json, sys
from pathlib import Path
def tell():
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    peak = int(status["VmHWM"].split()[0]) / 1024
    Path(sys.argv[1]).write_text(json.dumps({"read": int(io["rchar"]), "written": int(io["wchar"]), "peak_mb": peak}))
atexit.register(tell)
from wsiseg.cli.main import main
main(sys.argv[2:])
"""


@dataclass(frozen=True)
class Run:
    """One whole run: its result, wall seconds, and what the process took."""

    result: dict[str, Any]
    wall: float
    used: dict[str, float]
    map_mb: float
    geojson_mb: float


def run(arguments: list[str], folder: Path) -> Run:
    out, used = folder / "map.zarr", folder / "used.json"
    command = [sys.executable, "-c", CHILD, str(used), "predict", *arguments, "--out", str(out), "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    wall = time.perf_counter() - start
    map_mb = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    polygons = out.with_suffix(".geojson")
    return Run(
        json.loads(done.stdout), wall, json.loads(used.read_text()), map_mb,
        polygons.stat().st_size / 1e6 if polygons.exists() else 0.0,
    )  # fmt: skip


class Floor:
    """The networks on patches in memory."""

    def __init__(self, slide: str, model: str, options: PredictOptions, patches: int) -> None:
        loaded, self.options = loaded_model(model, options)
        with open_slide(slide, mpp=options.mpp, reader=options.reader) as reader:
            tiling = loaded.spec.tiling(self.options.gate_mode, self.options.overlap)
            todo = plan(reader, loaded.spec.mpp, tiling, options.tissue)
            tiles = list(todo.tiles.tiles(todo.selected))
            size = self.options.batch_size
            starts = np.linspace(0, max(0, len(tiles) - size), max(1, patches // size)).astype(int)
            groups = [tiles[start : start + size] for start in starts.tolist()]
            self.batches = [
                batch_tensor([patch for tile in group for patch in read_block(reader, todo.grid, [tile])])
                for group in groups
            ]
            memory = MemoryPlan.from_limit(options.max_memory, 1 + len(loaded.classes))
            self._gate = make_gate(loaded, self.options)
            self._stream = Stream(loaded, self._gate, self.options, memory)
        self.seconds: list[float] = []

    def measure(self) -> float:
        """Seconds a patch."""
        with self._stream.threads_for_networks():
            self._all()  # warms up, and has the processor as warm as in a run
            start = time.perf_counter()
            self._all()
        self.seconds.append((time.perf_counter() - start) / sum(len(batch) for batch in self.batches))
        return self.seconds[-1]

    def _all(self) -> None:
        workers = 2 if self._stream.side_by_side else 1
        with closing(read_ahead(self.batches, self._networks, workers=workers, ahead=workers)) as found:
            for _, values in found:
                values[0].flatten()[0].item()  # a GPU is waited for

    @torch.inference_mode()
    def _networks(self, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the gate asks the networks, and nothing else; with its own arithmetic in mode "windows"."""
        model, thresholds = self._stream.model, self._stream.gate.thresholds
        mode = MODES[self.options.gate_mode]
        if mode.shared_head:
            return model.segment_scored(patches)
        if mode.large_tiles:
            return self._gate.of_pixels(patches)
        if thresholds is None:
            return (model.segment(patches),)
        seen = model.classify(patches)
        several = allowed_classes(seen, thresholds).sum(dim=1) > 1
        asked = torch.ones_like(several) if RULES[self.options.gate_rule].by_sign else several
        return (seen, model.segment(patches[asked.to(patches.device)])) if asked.any() else (seen,)


def rows(slide: str, found: Run, floor: Floor) -> dict[str, str]:
    result, seconds = found.result, found.result["seconds"]
    counts = result["counts"]
    networks = float(np.mean(floor.seconds)) * counts["read"]
    work = seconds["total"] - seconds["start"]
    return {
        "slide": Path(slide).name,
        "wall, s": f"{found.wall:.1f}",
        "start-up, s": f"{found.wall - work:.1f}",
        "phases, s": ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()),
        "floor: networks alone, s": f"{networks:.1f} ({', '.join(f'{1e3 * s:.2f}' for s in floor.seconds)} ms a patch)",
        "tiles / floor": f"{seconds['tiles'] / networks:.3f}",
        "all but start-up / floor": f"{work / networks:.3f}",
        "patches": f"{counts['read']} of {counts['tiles']}, {counts['decided']} without segmenter",
        "patches/s": f"{counts['read'] / seconds['tiles']:.1f}",
        "waited for pixels": f"{100 * result['waited_s'] / seconds['tiles']:.1f} %",
        "tissue, mm2": f"{result['tissue_mm2']:.2f}",
        "tissue, mm2 a minute": f"{result['tissue_mm2'] / work * 60:.1f}",
        "peak memory, MiB": f"{found.used['peak_mb']:.0f}",
        "read, written, MB": f"{found.used['read'] / 1e6:.0f}, {found.used['written'] / 1e6:.0f}",
        "map, GeoJSON, MB": f"{found.map_mb:.1f}, {found.geojson_mb:.1f}",
    }


def options_of(extra: Sequence[str]) -> PredictOptions:
    """What `wsiseg predict` would make of these options."""
    context = predict_command.make_context("predict", ["slide", "--out", "out.zarr", *extra])
    known = PredictOptions.__dataclass_fields__
    return PredictOptions(**{k: v for k, v in context.params.items() if k in known and k != "max_memory"})


def main() -> None:
    arguments, extra = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, extra = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="+")
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--patches", type=int, default=400, help="patches that the floor is measured with")
    parser.add_argument("--keep", type=Path, help="folder that keeps the maps, under the slides' names")
    args = parser.parse_args(arguments)
    given = [*(["--mpp", str(args.mpp)] if args.mpp else []), *extra]
    work, tissue = [], []
    for slide in args.slides:
        floor = Floor(slide, args.model, options_of(given), args.patches)
        floor.measure()
        with tempfile.TemporaryDirectory(dir=args.keep) as folder:
            found = run([slide, "--model", args.model, *given], Path(folder))
            if args.keep:
                (Path(folder) / "map.zarr").rename(args.keep / f"{Path(slide).stem}.zarr")
        floor.measure()
        for name, value in rows(slide, found, floor).items():
            print(f"{name:28} {value}")
        print(flush=True)
        work.append(found.result["seconds"]["total"] - found.result["seconds"]["start"])
        tissue.append(found.result["tissue_mm2"])
    if len(work) > 1:
        print(f"seconds ~ tissue ** {np.polyfit(np.log(tissue), np.log(work), 1)[0]:.3f}")


if __name__ == "__main__":
    main()
