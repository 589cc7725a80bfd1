"""Learning from every patch: thresholds come from cross-validation over groups, so that none must be set aside.

Each fold's classifier is trained without the fold and looks at it. What all of them say of patches that they never saw
chooses the gate's thresholds; the networks of the model then learn from all patches, for as many epochs as they have.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wsiseg.datasets.dataset import PatchDataset
from wsiseg.datasets.patch import Patch
from wsiseg.datasets.split import fold_groups
from wsiseg.errors import DatasetError, OptionError
from wsiseg.models.networks.classifier import Classifier
from wsiseg.system.json_values import JsonObject
from wsiseg.training.config import AUTO_FOLDS, AUTO_PATCHES, TrainingConfig
from wsiseg.training.loading import PatchImages
from wsiseg.training.make_masks import classify_patches, gate_thresholds
from wsiseg.training.processes import is_first, wait_for_all
from wsiseg.training.run_folder import Run, RunFolder, write_text
from wsiseg.training.stage1 import average_precision
from wsiseg.training.weights import initial_network, trained_classifier

TrainClassifier = Callable[[Run, Classifier, bool], None]


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """What cross-validation found.

    Attributes:
        gate: threshold of each class, (K,).
        precision: mean average precision over all patches, each judged by a classifier that did not learn from it.
    """

    gate: list[float]
    precision: float

    def to_json(self) -> JsonObject:
        """As JSON."""
        return {"gate": self.gate, "val_map": self.precision}


def check_refit(config: TrainingConfig, going_on: bool) -> None:
    """Refuse what does not go with learning from every patch.

    Raises:
        OptionError: a training that goes on from a model, whose thresholds are kept; a gate that is taught at the end.
    """
    if config.folds and going_on:
        raise OptionError("--refit and --from exclude each other: a model that goes on keeps its validation patches")
    if config.folds and config.gate.is_shared:
        raise OptionError("--refit needs the classifier's own gate: use --gate patches or windows")


def decided(config: TrainingConfig, data: PatchDataset, going_on: bool) -> TrainingConfig:
    """The configuration with a number of folds in the place of "few".

    Every patch teaches where the data set does not split itself, has at most `AUTO_PATCHES` patches of twice as many
    groups as folds, and nothing else needs validation patches: a model that goes on, or a gate that is taught at the
    end. On 67 lung images that was worth three points of mIoU (docs/accuracy.md).
    """
    if config.refit != "few":
        return config
    patches = (*data.train, *data.val)
    groups = {patch.group for patch in patches}
    few = len(patches) <= AUTO_PATCHES and len(groups) >= 2 * AUTO_FOLDS
    fits = data.is_set_aside and few and not going_on and not config.gate.is_shared
    return config.changed(refit=AUTO_FOLDS if fits else 0)


def with_every_patch(data: PatchDataset, folds: int) -> PatchDataset:
    """A data set of which all patches but those for testing are learned from.

    Raises:
        DatasetError: it has fewer groups than folds.
    """
    everything = (*data.train, *data.val)
    count = len({patch.group for patch in everything})
    if count < folds:
        raise DatasetError(
            f"{data.root} has patches of {count} groups, but --refit needs {folds}, one for each fold at least"
        )
    return replace(data, train=everything, val=())


def cross_validate(run: Run, train_classifier: TrainClassifier, resume: bool) -> None:
    """Choose thresholds over folds and write them into the training's folder.

    Args:
        run: of which all patches are training patches.
        train_classifier: trains stage 1 of a run.
        resume: keep what an interrupted run has finished.
    """
    path = _path(run)
    if resume and path.is_file():
        run.say(f"Cross-validation is finished: {path}")
        return
    count = len(run.data.classes)
    rows: list[torch.Tensor] = []
    judged: list[Patch] = []
    labelled = [patch for patch in run.data.train if patch.label]
    for number, fold in enumerate(fold_groups(labelled, run.config.folds, run.config.seed), start=1):
        part = _without(run, fold, number)
        run.say(f"Fold {number} of {run.config.folds}: {len(fold)} of {len(labelled)} patches are kept out")
        train_classifier(part, _network(part), resume)
        wait_for_all()
        rows.append(classify_patches(trained_classifier(part), PatchImages(fold, count), run.config, run.device))
        judged += fold
    probabilities = torch.cat(rows)
    found = CrossValidation(
        gate_thresholds(probabilities, judged, run.config.gate),
        float(average_precision(probabilities, torch.tensor([patch.label for patch in judged]))),
    )
    if is_first():
        write_text(path, json.dumps(found.to_json()))
    wait_for_all()
    told = ", ".join(f"{name} {value:.3g}" for name, value in zip(run.data.classes.names, found.gate, strict=True))
    run.say(f"Cross-validation: mean average precision {found.precision:.3f}; thresholds {told}")


def cross_validated(run: Run) -> CrossValidation:
    """What `cross_validate` wrote."""
    found = json.loads(_path(run).read_text(encoding="utf-8"))
    return CrossValidation(found["gate"], found["val_map"])


def _path(run: Run) -> Path:
    return run.folder.folds / "gate.json"


def _without(run: Run, fold: list[Patch], number: int) -> Run:
    names = {patch.name for patch in fold}
    rest = tuple(patch for patch in run.data.train if patch.name not in names)
    return replace(
        run,
        data=replace(run.data, train=rest, val=tuple(fold)),
        config=run.config.changed(sheet_patches=0),
        folder=RunFolder(run.folder.folds / str(number)),
    )


def _network(run: Run) -> Classifier:
    network = initial_network(run, "classifier", run.config.seed)
    assert isinstance(network, Classifier)
    return network
