"""`wsiseg.evaluate`: a model's maps of the images of a data set, held against what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsiseg.blending import Blender, Block
from wsiseg.classes import ClassTable
from wsiseg.errors import OptionError
from wsiseg.evaluation.figures import bootstrap, confusion_figures
from wsiseg.evaluation.gate import GateReport, gate_report, thresholds_for_recall
from wsiseg.evaluation.inference import Gate, tile_probabilities
from wsiseg.evaluation.result import TITLES, Evaluation, column_of
from wsiseg.evaluation.truth import Case, Source, open_source
from wsiseg.geometry import Box, Grid, Mpp
from wsiseg.models.bundle import TissueModel, load_model
from wsiseg.planning import plan
from wsiseg.prediction import PredictOptions, pick_device
from wsiseg.reading import Patch, batches, read_patches
from wsiseg.slides.array import ArrayReader
from wsiseg.tiling import TileGrid
from wsiseg.training.metrics import confusion_matrix
from wsiseg.training.patches import SplitName

GATES: dict[str, tuple[Gate, bool]] = {
    "no_gate": ("none", False),
    "predicted_gate": ("predicted", False),
    "oracle_gate": ("oracle", False),
    "flips": ("predicted", True),
}
"""Gate, and whether orientations are averaged, of each column."""

Progress = Callable[[int, int], None]
"""Called with the images that are done and all of them."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How to evaluate.

    Attributes:
        split: "train", "val" or "test".
        mpp: microns per pixel of the data set; None takes what it says.
        classes: of the data set, where it does not name them.
        excluded: mask value that is not counted; None takes what the data set says.
        cell_classes: from class values of cell dots to class names.
        device: "auto", "cpu", "cuda", …
        batch_size: patches at once; None fits them to the device.
        precision: "float32" or "bfloat16".
        gate_threshold: probability that a class must exceed; None takes the model's, class by class.
        gate_recall: choose thresholds that keep this recall; on validation only.
        resamples: of the bootstrap over groups.
        seed: of it.
    """

    split: SplitName = "test"
    mpp: float | None = None
    classes: ClassTable | None = None
    excluded: int | None = None
    cell_classes: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    batch_size: int | None = None
    precision: str = "float32"
    gate_threshold: float | None = None
    gate_recall: float | None = None
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        self.predict_options()  # refuses what predict would
        if self.gate_recall is not None and self.split != "val":
            raise OptionError(
                f"thresholds are chosen on --split val alone, not on {self.split}: that would be tuning on it"
            )
        if self.gate_recall is not None and not 0 < self.gate_recall <= 1:
            raise OptionError(f"the gate's recall is a share, above 0 up to 1, got {self.gate_recall}")
        if not 0 <= self.resamples <= 100_000:
            raise OptionError(f"the number of resamples must be 0 to 100000, got {self.resamples}")
        if self.seed < 0:
            raise OptionError(f"the seed must not be negative, got {self.seed}")

    def predict_options(self) -> PredictOptions:
        """What `predict` would be given."""
        return PredictOptions(
            tissue="none",
            gate_threshold=self.gate_threshold,
            device=self.device,
            batch_size=self.batch_size,
            precision=self.precision,
            workers=1,
        )


def evaluate(
    model: str | Path | TissueModel,
    dataset: str | Path,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on a data set with masks, cell dots, or (the gate alone) patch labels.

    Args:
        model: a shipped model's name, a bundle's folder, or a model that is loaded already.
        dataset: the data set's folder.
        options: see `EvaluateOptions`.
        progress: called as images are done.

    Raises:
        WsisegError: on bad input.
    """
    options = options or EvaluateOptions()
    loaded = model if isinstance(model, TissueModel) else load_model(model, pick_device(options.device))
    source = open_source(
        Path(dataset), options.split, loaded.classes, mpp=options.mpp, classes=options.classes,
        excluded=options.excluded, cell_classes=options.cell_classes,
    )  # fmt: skip
    thresholds = loaded.gate
    if options.gate_threshold is not None:
        thresholds = torch.full_like(thresholds, options.gate_threshold)
    tally = _Tally(len(loaded.classes))
    _collect(loaded, source, options, thresholds, tally, progress or (lambda done, total: None))
    names = loaded.classes.names
    columns = {}
    for key, groups in tally.confusions.items():
        matrices = np.stack(groups)  # (G, K, K)
        figures = bootstrap(matrices, confusion_figures, options.resamples, options.seed)
        columns[key] = column_of(key, matrices.sum(axis=0), figures, source.kind, names)
    gate, chosen = _judge_gate(tally, thresholds, names, options)
    unit = {"pixels": "pixels", "cells": "cells", "labels": "patches"}[source.kind]
    true = next(iter(columns.values())).confusion.sum(axis=1) if columns else np.stack(tally.truth).sum(axis=0)
    return Evaluation(
        kind=source.kind,
        classes=names,
        columns=columns,
        gate=gate,
        chosen_thresholds=chosen,
        data={
            "name": source.name, "split": options.split, "mpp": source.mpp, "images": len(source.entries),
            "groups": len(tally.groups), unit: {name: int(n) for name, n in zip(names, true, strict=True)},
        },
        model={"name": loaded.spec.name, "hash": loaded.hash, "mpp": loaded.spec.mpp},
        settings={
            **{k: v for k, v in asdict(options).items() if k not in ("classes", "split", "mpp", "cell_classes")},
            "device": str(loaded.device), "overlap": loaded.spec.overlap, "interval": "95 % bootstrap over groups",
        },
    )  # fmt: skip


class _Tally:
    """What has been counted so far."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.groups: dict[str, int] = {}
        self.confusions: dict[str, list[npt.NDArray[np.int64]]] = {}
        self.probabilities: list[npt.NDArray[np.float64]] = []  # (K,) of each tile
        self.truth: list[npt.NDArray[np.bool_]] = []
        self.tile_groups: list[int] = []

    def group(self, name: str) -> int:
        return self.groups.setdefault(name, len(self.groups))

    def add(self, key: str, group: int, confusion: npt.NDArray[np.int64]) -> None:
        rows = self.confusions.setdefault(key, [])
        while len(rows) <= group:
            rows.append(np.zeros((self.num_classes, self.num_classes), np.int64))
        rows[group] += confusion


class _CaseMaps:
    """The class maps of one image, one for each column, while its tiles come in."""

    def __init__(self, case: Case, grid: Grid, tiles: TileGrid, num_classes: int) -> None:
        self.case = case
        self.grid = grid
        self.left = len(tiles)
        keys = () if case.label is not None else tuple(TITLES)
        self.maps = {key: np.zeros(grid.size.shape, np.uint8) for key in keys}
        self._blenders = {key: Blender(tiles, num_classes) for key in keys}
        self.num_classes = num_classes

    def add(self, key: str, patch: Patch, probabilities: npt.NDArray[np.float32]) -> None:
        for block in self._blenders[key].add(patch.tile, probabilities):
            self._put(key, block)

    def _put(self, key: str, block: Block) -> None:
        self.maps[key][block.box.slices()] = block.probabilities.argmax(axis=0)

    def finish(self, tally: _Tally) -> None:
        """Hold the maps against the truth."""
        group = tally.group(self.case.group)
        for key, blender in self._blenders.items():
            for block in blender.finish():
                self._put(key, block)
            truth, given = compared(self.case, self.maps[key], self.grid)
            tally.add(key, group, confusion_matrix(truth, given, self.num_classes))

    def true_classes(self, box: Box) -> npt.NDArray[np.bool_] | None:
        """Which classes truly occur in a tile, (K,); None where nothing is known of it."""
        case, grid = self.case, self.grid
        if case.label is not None:
            return case.label
        left, top, right, bottom = (
            box.x * grid.step_x, box.y * grid.step_y, box.right * grid.step_x, box.bottom * grid.step_y,
        )  # fmt: skip
        if case.dots is not None:
            x, y = case.dots[:, 0], case.dots[:, 1]
            values = case.dots[(x >= left) & (x < right) & (y >= top) & (y < bottom), 2].astype(np.int64)
        else:
            assert case.mask is not None
            # Pixels whose centre lies in the tile.
            rows, columns = (slice(round(a), max(round(a) + 1, round(b))) for a, b in ((top, bottom), (left, right)))
            values = case.mask[rows, columns].ravel().astype(np.int64)
            if not (values < self.num_classes).any():
                return None
        return np.bincount(values, minlength=self.num_classes + 1)[: self.num_classes] > 0


def compared(
    case: Case, classes: npt.NDArray[np.uint8], grid: Grid
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """(true, predicted) channels of the image's pixels, or of its cells; the map pixel that a centre lies in counts."""
    height, width = classes.shape
    if case.dots is not None:
        x = np.minimum(case.dots[:, 0] / grid.step_x, width - 1).astype(np.int64)
        y = np.minimum(case.dots[:, 1] / grid.step_y, height - 1).astype(np.int64)
        return case.dots[:, 2].astype(np.int64), classes[y, x]
    assert case.mask is not None
    rows = np.minimum((np.arange(case.mask.shape[0]) + 0.5) / grid.step_y, height - 1).astype(np.int64)
    columns = np.minimum((np.arange(case.mask.shape[1]) + 0.5) / grid.step_x, width - 1).astype(np.int64)
    return case.mask, classes[rows[:, None], columns]


def _collect(
    model: TissueModel,
    source: Source,
    options: EvaluateOptions,
    thresholds: Tensor,
    tally: _Tally,
    progress: Progress,
) -> None:
    """Predict every tile of every image, under every gate; batches reach over images."""
    resolved = options.predict_options().resolved(model)
    done = 0
    progress(0, len(source.entries))
    with torch.inference_mode():
        for batch in batches(_tiles(model, source), resolved.batch_size or 1):
            pixels = torch.from_numpy(np.stack([patch.pixels for _, patch in batch])).permute(0, 3, 1, 2)
            known = [maps.true_classes(patch.tile.box) for maps, patch in batch]
            with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
                seen = model.classify(pixels).double().cpu().numpy()
                values = _columns(model, pixels, known, thresholds) if source.kind != "labels" else {}
            for index, (maps, patch) in enumerate(batch):
                truth = known[index]
                if truth is not None:
                    tally.probabilities.append(seen[index])
                    tally.truth.append(truth)
                    tally.tile_groups.append(tally.group(maps.case.group))
                for key, probabilities in values.items():
                    maps.add(key, patch, probabilities[index])
                maps.left -= 1
                if not maps.left:
                    maps.finish(tally)
                    done += 1
                    progress(done, len(source.entries))


def _columns(
    model: TissueModel, pixels: Tensor, known: list[npt.NDArray[np.bool_] | None], thresholds: Tensor
) -> dict[str, npt.NDArray[np.float32]]:
    empty = np.zeros(len(model.classes), np.bool_)
    truth = torch.from_numpy(np.stack([empty if row is None else row for row in known]))
    return {
        key: tile_probabilities(model, pixels, gate, thresholds=thresholds, truth=truth, flips=flips).cpu().numpy()
        for key, (gate, flips) in GATES.items()
    }


def _tiles(model: TissueModel, source: Source) -> Iterator[tuple[_CaseMaps, Patch]]:
    """The tiles that `predict` would read of each image, with the image's maps."""
    spec = model.spec
    for case in source.cases():
        with ArrayReader(case.pixels, path=case.name, stated_mpp=Mpp(source.mpp, source.mpp)) as reader:
            todo = plan(reader, spec.mpp, spec.patch_size_px, spec.overlap, "none")
            maps = _CaseMaps(case, todo.grid, todo.tiles, len(model.classes))
            for patch in read_patches(reader, todo.grid, todo.tiles.tiles(), workers=1):
                yield maps, patch


def _judge_gate(
    tally: _Tally, thresholds: Tensor, names: tuple[str, ...], options: EvaluateOptions
) -> tuple[GateReport, tuple[float, ...] | None]:
    if not tally.truth:
        raise OptionError("no tile has any truth: every pixel is excluded, or no class was marked; check the data set")
    probabilities, truth = np.stack(tally.probabilities), np.stack(tally.truth)
    groups = np.array(tally.tile_groups)
    chosen = None
    if options.gate_recall is not None:
        chosen = tuple(thresholds_for_recall(probabilities, truth, options.gate_recall))
    limits = thresholds.double().cpu().numpy()
    return gate_report(probabilities, truth, groups, limits, names, options.resamples, options.seed), chosen
