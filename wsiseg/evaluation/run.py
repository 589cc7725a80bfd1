"""`wsiseg.evaluate`: a model's maps of the images of a data set, held against what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import SplitName
from wsiseg.errors import OptionError
from wsiseg.evaluation.case_maps import CaseMaps, Tally
from wsiseg.evaluation.figures import bootstrap, confusion_figures
from wsiseg.evaluation.gate import GateReport, gate_report, thresholds_for_recall
from wsiseg.evaluation.inference import Gate, classified, tile_probabilities
from wsiseg.evaluation.result import Evaluation, column_of
from wsiseg.evaluation.tiles import collect_tiles, read_tiles
from wsiseg.evaluation.truth import Source, open_source
from wsiseg.models.bundle import load_model
from wsiseg.models.context import context_tiles, in_context
from wsiseg.models.devices import pick_device
from wsiseg.models.tile_shape import GateMode
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gated import batch_tensor, make_gate
from wsiseg.prediction.options import PredictOptions, ResolvedOptions
from wsiseg.tiling.reading import Patch, batches

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
        gate_mode: of the gate; None takes the model's, or "patches" where another option needs them, as `predict` does.
        gate_context: of the gate, in sides of a patch; None takes the model's.
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
    gate_mode: GateMode | None = None
    gate_context: float | None = None
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
            gate_mode=self.gate_mode,
            gate_context=self.gate_context,
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
    if loaded is not model or options.precision != loaded.runtime.precision:
        loaded.prepare("torch", options.precision)
    source = open_source(
        Path(dataset), options.split, loaded.classes, mpp=options.mpp, classes=options.classes,
        excluded=options.excluded, cell_classes=options.cell_classes,
    )  # fmt: skip
    resolved = options.predict_options().resolved(loaded)
    thresholds = make_gate(loaded, resolved).thresholds
    assert thresholds is not None
    tally = Tally(len(loaded.classes))
    report = progress or (lambda done, total: None)
    mode = resolved.gate_mode
    if mode == "patches":
        _collect(loaded, source, resolved, thresholds, tally, report)
    else:
        collect_tiles(loaded, source, mode, thresholds, resolved.batch_size, tally, report)
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
            "device": str(loaded.device), "overlap": loaded.spec.overlap,
            "gate_mode": mode, "gate_context": resolved.gate_context,
            "interval": "95 % bootstrap over groups",
        },
    )  # fmt: skip


def _collect(
    model: TissueModel,
    source: Source,
    resolved: ResolvedOptions,
    thresholds: Tensor,
    tally: Tally,
    progress: Progress,
) -> None:
    """Predict every patch of every image, under every gate; batches reach over images."""
    size = resolved.batch_size
    done = 0
    progress(0, len(source.entries))
    seen_tiles = _seen(model, source, size, resolved.gate_context)
    with torch.inference_mode():
        for batch in batches(seen_tiles, size):
            known = [tile.maps.true_classes(tile.patch.tile.box) for tile in batch]
            values = _columns(model, batch, known, thresholds) if source.kind != "labels" else {}
            for index, (tile, truth) in enumerate(zip(batch, known, strict=True)):
                maps = tile.maps
                if truth is not None:
                    tally.probabilities.append(tile.seen[False].astype(np.float64))
                    tally.truth.append(truth)
                    tally.tile_groups.append(tally.group(maps.case.group))
                for key, probabilities in values.items():
                    maps.add(key, tile.patch, probabilities[index])
                maps.left -= 1
                if not maps.left:
                    maps.finish(tally)
                    done += 1
                    progress(done, len(source.entries))


@dataclass(frozen=True, slots=True)
class _SeenTile:
    """A tile, and what the gate goes by: probabilities (K,), of it alone and (True) averaged over orientations."""

    maps: CaseMaps
    patch: Patch
    seen: dict[bool, npt.NDArray[np.float32]]


def _seen(model: TissueModel, source: Source, batch_size: int, context: float) -> Iterator[_SeenTile]:
    """The tiles of all images, classified; where the gate looks beyond a patch, within the tile's own image."""
    turned = (False, True) if source.kind != "labels" else (False,)

    def alone() -> Iterator[_SeenTile]:
        for batch in batches(read_tiles(model, source, model.spec.tiling("patches")), batch_size):
            pixels = batch_tensor([patch for _, patch in batch])
            seen = {flips: classified(model, pixels, flips).float().cpu().numpy() for flips in turned}
            for index, (maps, patch) in enumerate(batch):
                yield _SeenTile(maps, patch, {flips: values[index] for flips, values in seen.items()})

    if not context:
        yield from alone()
        return
    for maps, tiles in groupby(alone(), key=lambda tile: tile.maps):
        items = ((tile, tile.patch.tile, np.concatenate([tile.seen[flips] for flips in turned])) for tile in tiles)
        for tile, values in in_context(items, context_tiles(context, maps.tiles)):
            yield replace(tile, seen=dict(zip(turned, np.split(values, len(turned)), strict=True)))


def _columns(
    model: TissueModel, batch: list[_SeenTile], known: list[npt.NDArray[np.bool_] | None], thresholds: Tensor
) -> dict[str, npt.NDArray[np.float32]]:
    empty = np.zeros(len(model.classes), np.bool_)
    truth = torch.from_numpy(np.stack([empty if row is None else row for row in known]))
    pixels = batch_tensor([tile.patch for tile in batch])
    values = {}
    for key, (gate, flips) in GATES.items():
        seen = torch.from_numpy(np.stack([tile.seen[flips] for tile in batch]))
        given = tile_probabilities(model, pixels, gate, thresholds=thresholds, truth=truth, flips=flips, seen=seen)
        values[key] = given.cpu().numpy()
    return values


def _judge_gate(
    tally: Tally, thresholds: Tensor, names: tuple[str, ...], options: EvaluateOptions
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
