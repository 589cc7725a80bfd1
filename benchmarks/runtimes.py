"""What the networks cost by runtime and precision, on real patches, as ratios within one run.

    python benchmarks/runtimes.py [SLIDE] [--model NAME] [--threads N] [--map]

Every runtime gets the same batches, in turns, so that a busy machine slows all of them. Seconds are the wall's; CPU is
what all threads together took, which a busy machine changes less. The ratio is of CPU time, to torch in float32. What
differs is the share of pixels whose class behind the gate is another than torch's in float32: of the patches by
themselves, or with `--map` of the whole class map of SLIDE.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsiseg import open_map, open_slide, predict
from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.bundle import load_model
from wsiseg.models.runtime.choose import has_openvino
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.plan import plan
from wsiseg.prediction.run import PredictOptions, batch_tensor, pick_device, predict_patches
from wsiseg.tiling.reading import read_block

SLIDE = Path(__file__).parents[1] / "sample_data" / "CMU-1-Small-Region.svs"


def patches_of(slide: Path, mpp: float | None, model: TissueModel, count: int) -> Tensor:
    """So many patches (N, 3, H, W), uint8, spread over the tissue of a slide."""
    spec = model.spec
    with open_slide(slide, mpp=mpp) as reader:
        todo = plan(reader, spec.mpp, spec.tiling("patches"))
        tiles = list(todo.tiles.tiles(todo.selected))
        chosen = [tiles[index] for index in np.linspace(0, len(tiles) - 1, min(count, len(tiles))).astype(int)]
        return batch_tensor([patch for tile in chosen for patch in read_block(reader, todo.grid, [tile])])


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a call; on a GPU until it is done."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - cpu


def classes_of(model: TissueModel, batches: list[Tensor]) -> Tensor:
    """The gated class map of each patch, (N, H, W)."""
    gated = [predict_patches(model, batch, model.gate, model.spec.gate_rule)[0] for batch in batches]
    return torch.cat([values.max(dim=1).indices for values in gated]).cpu()


def whole_map(slide: Path, mpp: float | None, model: TissueModel) -> npt.NDArray[np.uint8]:
    """The class map that `predict` makes of a slide."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "map.zarr"
        predict(slide, out, model, PredictOptions(mpp=mpp, precision=model.runtime.precision, probabilities=False))
        return np.asarray(open_map(out).class_map())


def measured(models: dict[str, TissueModel], batches: list[Tensor], rounds: int) -> dict[str, list[float]]:
    """For each model the medians of wall and CPU seconds a batch: wall and CPU of the gate, then of the segmenter."""
    seconds: dict[str, list[list[float]]] = {name: [] for name in models}
    for number in range(rounds):
        batch = batches[number % len(batches)]
        for name, model in models.items():
            gate = timed(lambda model=model, batch=batch: model.classify(batch))  # type: ignore[misc]
            segmenter = timed(lambda model=model, batch=batch: model.segment(batch))  # type: ignore[misc]
            seconds[name].append([*gate, *segmenter])
    return {name: list(np.median(values, axis=0)) for name, values in seconds.items()}


def prepared(args: argparse.Namespace) -> dict[str, TissueModel]:
    """The models that are compared; torch in float32, the reference, comes first."""
    device = pick_device(args.device)
    missing = set() if has_openvino() and device == "cpu" else {"openvino"}
    names = [name for name in args.runtimes.split(",") if name not in missing]
    models = {}
    for name in dict.fromkeys(["torch", *names]):
        folded = name == "folded"  # what "auto" is where OpenVINO is not installed
        for precision in ("float32",) if folded else ("float32", "bfloat16"):  # bfloat16 is always folded
            models[f"{name} {precision}"] = load_model(
                args.model,
                device,
                "torch" if folded else name,
                precision,
                exact=False if folded else None,
                batch_size=args.batch_size,
            )
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?", type=Path, default=SLIDE)
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runtimes", default="torch,folded,openvino", help="compiled takes minutes to compile")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=14)
    parser.add_argument("--patches", type=int, default=140)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--map", action="store_true", help="compare the whole class map")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    models = prepared(args)
    reference = next(iter(models))
    batches = list(torch.split(patches_of(args.slide, args.mpp, models[reference], args.patches), args.batch_size))
    start = {name: timed(lambda model=model: classes_of(model, batches[:1]))[0] for name, model in models.items()}  # type: ignore[misc]
    full = [batch for batch in batches if len(batch) == args.batch_size]
    seconds = measured(models, full, args.rounds)
    print(f"{args.slide.name}, {args.threads} threads, batches of {args.batch_size}; milliseconds a patch, wall (CPU)")
    print(
        f"{'':20} {'gate':>14} {'segmenter':>14} {'ratio of CPU':>13} {'first batch, s':>15} {'pixels that differ':>19}"
    )
    base = None
    for name, model in models.items():
        found = whole_map(args.slide, args.mpp, model) if args.map else classes_of(model, batches).numpy()
        base = found if base is None else base
        gate, gate_cpu, segmenter, segmenter_cpu = (1000 * value / args.batch_size for value in seconds[name])
        ratio = (seconds[reference][1] + seconds[reference][3]) / (seconds[name][1] + seconds[name][3])
        counted = base > 0 if args.map else np.ones_like(base, np.bool_)
        differ = (found != base)[counted].mean()
        print(
            f"{name:20} {f'{gate:.2f} ({gate_cpu:.2f})':>14} {f'{segmenter:.2f} ({segmenter_cpu:.2f})':>14} "
            f"{ratio:12.2f}x {start[name]:15.1f} {differ:18.3%}",
            *model.notes,
        )


if __name__ == "__main__":
    main()
