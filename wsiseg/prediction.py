"""From a slide to a tissue map: the streaming loop, from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsiseg.blending import Blender, Block
from wsiseg.export import VectorOptions, export_geojson
from wsiseg.geojson import SUFFIXES
from wsiseg.geometry import Grid, Mpp, coarser_grid
from wsiseg.map_writer import MapWriter
from wsiseg.memory import give_back_memory
from wsiseg.models import DEFAULT_MODEL
from wsiseg.models.bundle import load_model
from wsiseg.models.context import in_context
from wsiseg.models.gate import allowed_classes, gate_logits, gate_published
from wsiseg.models.spec import GateRule
from wsiseg.models.tissue_model import TissueModel
from wsiseg.outputs import check_file, check_map
from wsiseg.picture import read_picture
from wsiseg.planning import Plan, plan
from wsiseg.predict_options import PredictOptions
from wsiseg.reading import Patch, batches, read_patches
from wsiseg.report import (
    Areas,
    Counts,
    Damage,
    Prediction,
    results,
    slide_provenance,
    software,
    tissue_provenance,
)
from wsiseg.slides import open_slide
from wsiseg.slides.base import SlideReader
from wsiseg.tiling import Tile, TileGrid
from wsiseg.tissue_map import open_map

__all__ = ["PredictOptions", "batch_tensor", "pick_device", "predict", "predict_patches"]

Progress = Callable[[str, int, int], None]
"""Called with a phase ("tissue", "tiles", "pyramid", "vectors"), the steps of it that are done, and all of them."""


def predict(
    slide: str | Path,
    out: str | Path,
    model: str | Path | TissueModel = DEFAULT_MODEL,
    options: PredictOptions | None = None,
    *,
    geojson: str | Path | None = None,
    vectors: VectorOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prediction:
    """Segment a slide and write its tissue map.

    Memory does not depend on the slide's height, and on its width only through one row of patches and of shards.

    Args:
        slide: a file, or an address that fsspec reaches.
        out: the OME-Zarr store to write, a name that ends in `.zarr`.
        model: a shipped model's name, a bundle's folder, or a model that is loaded already.
        options: see `PredictOptions`.
        geojson: polygons for QuPath to write as well, `.geojson` or `.geojson.gz`.
        vectors: how polygons are made.
        overwrite: replace what is there.
        progress: called as the work goes on.

    Returns:
        What was found and written.

    Raises:
        WsisegError: on bad input; nothing is left half-written then.
    """
    options = options or PredictOptions()
    report: Progress = progress or (lambda phase, done, total: None)
    out = Path(out)
    check_map(out, overwrite)
    if geojson is not None:
        check_file(Path(geojson), SUFFIXES, overwrite)
    clock = Clock()
    with open_slide(slide, mpp=options.mpp, reader=options.reader) as reader:
        _ = reader.mpp  # refused before a model is loaded for nothing
        loaded = model if isinstance(model, TissueModel) else load_model(model, pick_device(options.device))
        options = options.resolved(loaded)
        clock.lap("start")
        report("tissue", 0, 1)
        todo = plan(reader, loaded.spec.mpp, loaded.spec.patch_size_px, options.overlap or 0.0, options.tissue)
        report("tissue", 1, 1)
        clock.lap("tissue")
        areas = Areas.empty(len(loaded.classes))
        counts = Counts(len(todo.tiles), int(todo.selected.sum()), shut=[0] * len(loaded.classes))
        with MapWriter(out, loaded.classes, todo.grid, probabilities=options.probabilities) as writer:
            for block in _blocks(reader, todo, loaded, options, counts, report):
                tissue = todo.mask.rows(todo.grid, block.box)
                areas.add(block, tissue, writer.write(block, tissue))
            clock.lap("tiles")
            for level in writer.finish_levels():
                report("pyramid", level + 1, len(writer.sizes))
            if not options.probabilities:
                writer.write_picture(*_picture(reader, todo.grid, writer.picture_factor))
            clock.lap("pyramid")
            damage = Damage(reader.damaged_tiles, reader.damaged_area_um2 / 1e6)
            found = results(areas, loaded.classes, todo.grid, counts, damage)
            writer.commit(
                {
                    "slide": slide_provenance(reader),
                    "model": {"name": loaded.spec.name, "hash": loaded.hash, "mpp": loaded.spec.mpp},
                    "parameters": {
                        **asdict(options),
                        **tissue_provenance(options.tissue),
                        "gate_thresholds": _listed(_thresholds(loaded, options)),
                    },
                    "software": software(),
                    "times": clock.times(),
                    **found,
                },
                overwrite,
            )
    drawn: dict[str, Any] = {}
    if geojson is not None:
        report("vectors", 0, 1)
        give_back_memory()
        drawn = export_geojson(open_map(out), geojson, vectors, overwrite=overwrite)
        report("vectors", 1, 1)
        clock.lap("vectors")
    return Prediction(
        map_path=out,
        geojson_path=None if geojson is None else Path(geojson),
        areas=areas.of_classes(loaded.classes, todo.grid.mpp.pixel_area_um2),
        tissue_mm2=found["tissue_mm2"],
        unread_mm2=found["unread_mm2"],
        counts=counts,
        damage=damage,
        seconds=clock.seconds,
        enlarged=max(1.0, 1 / todo.grid.zoom_x, 1 / todo.grid.zoom_y),
        vectors=drawn,
    )


def _blocks(
    slide: SlideReader, todo: Plan, model: TissueModel, options: PredictOptions, counts: Counts, report: Progress
) -> Iterator[Block]:
    """Read, gate, segment and blend; finished blocks of the map come out from top to bottom."""
    assert options.workers is not None
    assert options.batch_size is not None
    rule = options.gate_rule or model.spec.gate_rule
    blender = Blender(todo.tiles, len(model.classes))
    thresholds = _thresholds(model, options)
    report("tiles", 0, counts.read)
    done = 0
    half = options.precision == "bfloat16"
    patches = read_patches(slide, todo.grid, todo.tiles.tiles(todo.selected), options.workers)
    for batch, seen in _gated(patches, todo, model, options):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
            probabilities, allowed = predict_patches(model, batch_tensor(batch), thresholds, rule, seen)
        values = probabilities.cpu().numpy()  # (N, K, H, W)
        _count(counts, allowed.cpu().numpy(), rule)
        for patch, value in zip(batch, values, strict=True):
            yield from blender.add(patch.tile, value, patch.readable)
        done += len(batch)
        report("tiles", done, counts.read)
    yield from blender.finish()


def _gated(
    patches: Iterator[Patch], todo: Plan, model: TissueModel, options: PredictOptions
) -> Iterator[tuple[list[Patch], Tensor | None]]:
    """Batches, and what the gate goes by where it looks beyond a patch: the probabilities in context, (N, K)."""
    assert options.batch_size is not None
    if not (options.gate and options.gate_context):
        yield from ((batch, None) for batch in batches(patches, options.batch_size))
        return
    sigma = context_tiles(options.gate_context, todo.tiles)
    seen = classified(patches, model, options.batch_size, options.precision)
    for pairs in batches(in_context(seen, sigma), options.batch_size):
        yield [patch for patch, _ in pairs], torch.from_numpy(np.stack([values for _, values in pairs]))


def classified(
    patches: Iterator[Patch], model: TissueModel, batch_size: int, precision: str
) -> Iterator[tuple[Patch, Tile, npt.NDArray[np.float32]]]:
    """Patches, their tiles, and the classifier's probabilities (K,) of each by itself."""
    for batch in batches(patches, batch_size):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            values = model.classify(batch_tensor(batch)).cpu().numpy()
        yield from ((patch, patch.tile, value) for patch, value in zip(batch, values, strict=True))


def context_tiles(gate_context: float, tiles: TileGrid) -> float:
    """The standard deviation of the gate's context in tiles, from sides of a patch."""
    return gate_context * tiles.patch_px / tiles.stride_px


def batch_tensor(batch: list[Patch]) -> Tensor:
    """Patches as one tensor (N, 3, H, W) uint8, channels last in memory, as they come from the slide."""
    return torch.from_numpy(np.stack([patch.pixels for patch in batch])).permute(0, 3, 1, 2)


@torch.inference_mode()
def predict_patches(
    model: TissueModel,
    patches: Tensor,
    thresholds: Tensor | None,
    rule: GateRule = "exclude",
    seen: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Probabilities of patches, gated.

    Where the gate leaves a single class its probability is 1 whatever the segmenter says, so it is not asked; by the
    published rule it always is.

    Args:
        model: both networks.
        patches: (N, 3, H, W) uint8.
        thresholds: of the gate, (K,); None leaves every class open.
        rule: see `PredictOptions.gate_rule`.
        seen: probabilities (N, K) that the gate goes by; None asks the classifier, about each patch by itself.

    Returns:
        Probabilities (N, K, H, W) float32, and which classes the gate allowed, (N, K) bool.
    """
    count, height, width = patches.shape[0], patches.shape[2], patches.shape[3]
    if thresholds is not None:
        seen = model.classify(patches) if seen is None else seen.to(model.device)  # (N, K)
        if rule == "multiply_logits":
            return torch.softmax(gate_published(model.segment(patches), seen, thresholds), dim=1), seen > thresholds
        allowed = allowed_classes(seen, thresholds)
    else:
        allowed = torch.ones(count, len(model.classes), dtype=torch.bool, device=model.device)
    probabilities = allowed[:, :, None, None].float().repeat(1, 1, height, width)
    several = allowed.sum(dim=1) > 1
    if several.any():
        logits = model.segment(patches[several.to(patches.device)])  # (n, K, H, W)
        probabilities[several] = torch.softmax(gate_logits(logits, allowed[several]), dim=1)
    return probabilities, allowed


def _picture(slide: SlideReader, grid: Grid, factor: int) -> tuple[npt.NDArray[np.uint8], Mpp]:
    coarse = coarser_grid(grid, factor, slide.levels)
    return read_picture(slide, coarse), coarse.mpp


def _thresholds(model: TissueModel, options: PredictOptions) -> Tensor | None:
    if not options.gate:
        return None
    return model.gate if options.gate_threshold is None else torch.full_like(model.gate, options.gate_threshold)


def _listed(thresholds: Tensor | None) -> list[float] | None:
    return None if thresholds is None else [float(value) for value in thresholds]


def _count(counts: Counts, allowed: npt.NDArray[np.bool_], rule: GateRule) -> None:
    counts.gated += int((~allowed).any(axis=1).sum())
    if rule == "exclude" and allowed.shape[1] > 1:  # by the published rule the segmenter decides everywhere
        counts.decided += int((allowed.sum(axis=1) == 1).sum())
    counts.shut = [before + int(n) for before, n in zip(counts.shut, (~allowed).sum(axis=0), strict=True)]


def pick_device(name: str) -> str:
    """The device that "auto" means: the first GPU where there is one, else the CPU."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


class Clock:
    """Seconds of the phases of a run."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._start = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """Book the time since the last call to a phase."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self.seconds["total"] = now - self._start
        self._last = now

    def times(self) -> dict[str, Any]:
        """Start, end and the seconds of each phase, plain JSON."""
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {phase: round(value, 3) for phase, value in self.seconds.items()},
        }
