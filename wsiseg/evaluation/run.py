"""`wsiseg.evaluate`: a model's maps of the images of a data set, held against what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from wsiseg.choices import EVALUATION_PRECISIONS, SPLITS, GateMode, SplitName, check_choice
from wsiseg.classes import ClassTable
from wsiseg.errors import OptionError
from wsiseg.evaluation.case_maps import CALIBRATED, Tally
from wsiseg.evaluation.class_match import OTHERS, ClassMatch, Others
from wsiseg.evaluation.collect import Progress, collected
from wsiseg.evaluation.figures import bootstrap, confusion_figures
from wsiseg.evaluation.gate import GateReport, gate_report, thresholds_for_recall
from wsiseg.evaluation.result import Evaluation, column_of
from wsiseg.evaluation.truth import open_source
from wsiseg.models.tissue_model import TissueModel
from wsiseg.prediction.gated import make_gate
from wsiseg.prediction.options import PredictOptions
from wsiseg.prediction.run import loaded_model

_NOT_SETTINGS = ("classes", "split", "mpp", "cell_classes", "ignore_columns")
"""Options that belong to the data."""


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
        gate_floor: of the gate, see `PredictOptions`; None takes the model's.
        gate_recall: choose thresholds that keep this recall; on validation only.
        resamples: of the bootstrap over groups.
        seed: of it.
        flips: compare the mean over flips and rotations as well, which takes eight times the time.
        merged: from classes of the data set to those of the model, or to nothing where one is left out.
        others: what becomes of classes that the model does not know: "count" (as errors) or "leave-out".
        ignore_columns: columns of the data set's table that are no classes.
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
    gate_floor: float | None = None
    gate_recall: float | None = None
    resamples: int = 2000
    seed: int = 0
    flips: bool = False
    merged: Mapping[str, str] = field(default_factory=dict)
    others: Others = "count"
    ignore_columns: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_choice("a split", self.split, SPLITS)
        check_choice("a way with other classes", self.others, OTHERS)
        check_choice("a precision", self.precision, EVALUATION_PRECISIONS)
        self.predict_options()  # refuses what predict would
        if "," in self.device:
            raise OptionError(f"an evaluation uses one device, got {self.device}")
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
            white=False,
            gate_threshold=self.gate_threshold,
            gate_mode=self.gate_mode,
            gate_context=self.gate_context,
            gate_floor=self.gate_floor,
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
        model: a shipped model's name or a bundle's folder, which torch computes layer by layer; or a model that is
            loaded already, which computes as it was prepared, as in `predict`.
        dataset: the data set's folder.
        options: see `EvaluateOptions`.
        progress: called as images are done.

    Raises:
        WsisegError: on bad input.
    """
    options = options or EvaluateOptions()
    asked = options.predict_options()
    if not isinstance(model, TissueModel):
        asked = replace(asked, runtime="torch")  # the reference, on every machine
    loaded, resolved = loaded_model(model, asked)
    source = open_source(
        Path(dataset), options.split, loaded.classes, mpp=options.mpp, classes=options.classes,
        excluded=options.excluded, cell_classes=options.cell_classes, merged=options.merged, others=options.others,
        ignore=options.ignore_columns,
    )  # fmt: skip
    thresholds = make_gate(loaded, resolved).thresholds
    assert thresholds is not None
    tally = collected(loaded, source, resolved, progress or (lambda done, total: None), options.flips)
    match = source.classes
    columns = {}
    for key, groups in tally.confusions.items():
        matrices = np.stack(groups)  # (G, K, K)
        compared = partial(confusion_figures, compared=match.compared)
        figures = bootstrap(matrices, compared, options.resamples, options.seed)
        columns[key] = column_of(key, matrices.sum(axis=0), figures, source.kind, match.names)
    gate, chosen = _judge_gate(tally, thresholds, match, options)
    calibration = None
    if CALIBRATED in columns:  # of what is truly of one of the model's own classes
        known = columns[CALIBRATED].confusion[: len(loaded.classes), : len(loaded.classes)]
        asked_of = (known, loaded.classes.names, options.resamples, options.seed)
        calibration = tally.calibration.report(*asked_of)
        if tally.applied is not None and calibration is not None:
            calibration = calibration.followed_by(tally.calibrated.report(*asked_of))
    names = match.names if columns else loaded.classes.names
    unit = {"pixels": "pixels", "cells": "cells", "labels": "patches"}[source.kind]
    true = next(iter(columns.values())).confusion.sum(axis=1) if columns else np.stack(tally.truth).sum(axis=0)
    return Evaluation(
        kind=source.kind,
        classes=names,
        columns=columns,
        gate=gate,
        calibration=calibration,
        chosen_thresholds=chosen,
        data={
            "name": source.name, "split": options.split, "mpp": source.mpp, "images": len(source.entries),
            "groups": len(tally.groups), unit: {name: int(n) for name, n in zip(names, true, strict=True)},
            "compared": [match.names[k] for k in match.compared], "notes": list(match.notes),
        },
        model={"name": loaded.spec.name, "hash": loaded.hash, "mpp": loaded.spec.mpp},
        settings={
            **{k: v for k, v in asdict(options).items() if k not in _NOT_SETTINGS},
            "device": str(loaded.device), "overlap": loaded.spec.overlap,
            "gate_mode": resolved.gate_mode, "gate_context": resolved.gate_context,
            "gate_floor": resolved.gate_floor,
            "interval": "95 % bootstrap over groups",
        },
    )  # fmt: skip


def _judge_gate(
    tally: Tally, thresholds: Tensor, match: ClassMatch, options: EvaluateOptions
) -> tuple[GateReport, tuple[float, ...] | None]:
    if not tally.truth:
        raise OptionError("no tile has any truth: every pixel is excluded, or no class was marked; check the data set")
    probabilities, truth = np.stack(tally.probabilities), np.stack(tally.truth)
    groups = np.array(tally.tile_groups)
    chosen = None
    limits, own = thresholds.double().cpu().numpy(), list(match.compared)
    if options.gate_recall is not None:
        found = thresholds_for_recall(probabilities, truth, options.gate_recall)
        there = truth.sum(axis=0) > 0  # a class of which there is no tile keeps its threshold
        chosen = tuple(value if there[k] else float(limits[k]) for k, value in enumerate(found))
    names = tuple(match.names[k] for k in own)
    report = gate_report(
        probabilities[:, own], truth[:, own], groups, limits[own], names, options.resamples, options.seed
    )
    return report, chosen
