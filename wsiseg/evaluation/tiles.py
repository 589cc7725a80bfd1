"""Evaluation in the gate modes of large tiles: what `predict` makes of them, under every gate that is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsiseg.arrays import Float32Array
from wsiseg.choices import GateMode
from wsiseg.evaluation.case_maps import CaseMaps, Tally
from wsiseg.evaluation.inference import orientations, undone
from wsiseg.evaluation.truth import Source
from wsiseg.geometry import Box, Mpp
from wsiseg.models.gate import allowed_classes
from wsiseg.models.large_tiles import Windows, classify_windows, gate_windows, segment_scored
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.plan import plan
from wsiseg.prediction.run import batch_tensor
from wsiseg.slides.array import ArrayReader
from wsiseg.tiling.grid import Tiling
from wsiseg.tiling.reading import Patch, batches, read_patches


def read_tiles(model: TissueModel, source: Source, tiling: Tiling) -> Iterator[tuple[CaseMaps, Patch]]:
    """The patches or tiles that `predict` would read of each image, with the image's maps."""
    for case in source.cases():
        with ArrayReader(case.pixels, path=case.name, stated_mpp=Mpp(source.mpp, source.mpp)) as reader:
            todo = plan(reader, model.spec.mpp, tiling, "none")
            maps = CaseMaps(case, todo.grid, todo.tiles, len(model.classes))
            for patch in read_patches(reader, todo.grid, todo.tiles.tiles(), workers=1):
                yield maps, patch


@torch.inference_mode()
def collect_tiles(
    model: TissueModel,
    source: Source,
    mode: GateMode,
    thresholds: Tensor,
    batch_size: int,
    tally: Tally,
    progress: Callable[[int, int], None],
) -> None:
    """Predict every tile of every image, under every gate; the gate is judged window by window.

    Patches of which labels alone are known are tiles of one window.
    """
    spec, labels = model.spec, source.kind == "labels"
    tiling = spec.tiling("patches" if labels else mode)
    windows = Windows(tiling.side_px, spec.patch_size_px, spec.stride_px)
    done = 0
    progress(0, len(source.entries))
    for batch in batches(read_tiles(model, source, tiling), batch_size):
        pixels = batch_tensor([patch for _, patch in batch])
        logits, seen = scored(model, pixels, windows, mode)
        truth = [_true_classes(maps, patch, windows) for maps, patch in batch]
        columns = {} if labels else _columns(model, pixels, windows, mode, thresholds, (logits, seen), truth)
        for number, (maps, patch) in enumerate(batch):
            for window, known in enumerate(truth[number]):
                if known is not None:
                    tally.probabilities.append(seen[number, window].cpu().numpy().astype(np.float64))
                    tally.truth.append(known)
                    tally.tile_groups.append(tally.group(maps.case.group))
            for key, values in columns.items():
                maps.add(key, patch, values[number])
            maps.left -= 1
            if not maps.left:
                maps.finish(tally)
                done += 1
                progress(done, len(source.entries))


def scored(model: TissueModel, tiles: Tensor, windows: Windows, mode: GateMode) -> tuple[Tensor, Tensor]:
    """Logits (N, K, T, T) of tiles, and what the gate sees in their windows, (N, P, K)."""
    if mode == "shared":
        return segment_scored(model, tiles, windows)
    return model.segment(tiles), classify_windows(model, tiles, windows)


def scored_in_orientations(
    model: TissueModel, tiles: Tensor, windows: Windows, mode: GateMode
) -> tuple[Tensor, Tensor]:
    """The same of the means over eight orientations of the softmax, whose logarithm stands for the logits."""
    softmax, places = [], []
    for index, view in enumerate(orientations(tiles)):
        logits, seen = scored(model, view, windows, mode)
        softmax.append(undone(torch.softmax(logits, dim=1), index))
        grid = seen.transpose(1, 2).reshape(len(tiles), -1, windows.side, windows.side)  # (N, K, R, R)
        places.append(undone(grid, index).flatten(2).transpose(1, 2))
    mean = torch.stack(softmax).mean(dim=0)
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log(), torch.stack(places).mean(dim=0)


def _columns(
    model: TissueModel,
    pixels: Tensor,
    windows: Windows,
    mode: GateMode,
    thresholds: Tensor,
    plain: tuple[Tensor, Tensor],
    truth: list[list[npt.NDArray[np.bool_] | None]],
) -> dict[str, Float32Array]:
    """Probabilities (N, K, T, T) of each column."""

    def gated(logits: Tensor, seen: Tensor) -> Tensor:
        allowed = allowed_classes(seen.flatten(0, 1), thresholds.to(seen.device)).view(seen.shape)
        return gate_windows(logits, allowed, windows)

    logits, seen = plain
    empty = np.zeros(seen.shape[2], np.bool_)
    known = torch.from_numpy(np.stack([[empty if row is None else row for row in rows] for rows in truth]))
    known = known.to(logits.device)
    values = {
        "no_gate": torch.softmax(logits, dim=1),
        "predicted_gate": gated(logits, seen),
        "oracle_gate": gate_windows(logits, known | ~known.any(dim=2, keepdim=True), windows),
        "flips": gated(*scored_in_orientations(model, pixels, windows, mode)),
    }
    return {key: value.cpu().numpy() for key, value in values.items()}


def _true_classes(maps: CaseMaps, patch: Patch, windows: Windows) -> list[npt.NDArray[np.bool_] | None]:
    """Which classes truly occur in each window, (K,); None where nothing is known of it, or it lies beside the map."""
    corner, step, side = patch.tile.box, windows.stride_px, windows.patch_px
    boxes = [
        Box(corner.x + column * step, corner.y + row * step, side, side)
        for row in range(windows.side)
        for column in range(windows.side)
    ]
    whole = Box.of(maps.tiles.map_size)
    return [None if box.intersect(whole).is_empty else maps.true_classes(box) for box in boxes]
