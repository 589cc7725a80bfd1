"""Where a training keeps its steps, and what these need to know of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from wsiseg.choices import LoggerName, StageName
from wsiseg.datasets.dataset import PatchDataset
from wsiseg.datasets.patch import Patch
from wsiseg.errors import DatasetError, OptionError, OutputError
from wsiseg.models.folder import SPEC_FILE
from wsiseg.system.files import whole_file
from wsiseg.system.json_values import JsonObject
from wsiseg.training.config import TrainingConfig
from wsiseg.training.origin import Origin
from wsiseg.training.resumed import check_same, lengthened

RUN_SUFFIX = ".training"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a training leaves its steps: beside the bundle, under its name with `.training` added.

    Attributes:
        root: the folder.
    """

    root: Path

    @classmethod
    def from_output(cls, out: Path) -> RunFolder:
        """The folder of the training that makes the bundle `out`."""
        return cls(out.with_name(out.name + RUN_SUFFIX))

    @property
    def state(self) -> Path:
        """Configuration and data set that the run began with."""
        return self.root / "run.json"

    @property
    def classifier(self) -> Path:
        """Weights of the finished stage 1."""
        return self.root / "stage1" / "classifier.safetensors"

    @property
    def masks(self) -> Path:
        """Folder of the pseudo masks, `PM_<depth>` below it."""
        return self.root / "train_PM"

    @property
    def masks_done(self) -> Path:
        """Shares of the classes in the finished pseudo masks, and the gate's thresholds."""
        return self.root / "masks.json"

    @property
    def segmenter(self) -> Path:
        """Weights of the finished stage 2."""
        return self.root / "stage2" / "segmenter.safetensors"

    @property
    def shared_gate(self) -> Path:
        """Weights of the gate on the finished segmenter's encoder."""
        return self.root / "shared_gate" / "gate.safetensors"

    @property
    def folds(self) -> Path:
        """Folder of the classifiers of cross-validation, where the model learns from every patch."""
        return self.root / "folds"

    @property
    def comparison(self) -> Path:
        """What a training that went on from a model changed."""
        return self.root / "comparison.json"

    @property
    def shared_gate_done(self) -> Path:
        """The file of the shared gate's thresholds; it is there when the weights are."""
        return self.root / "shared_gate" / "gate.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One training under way: what its steps need to know.

    Attributes:
        data: the data set.
        config: of the training.
        folder: where its steps lie.
        device: what computes.
        devices: how many of them.
        logger: what logs are written as.
        progress: whether progress is shown.
        say: called with what a person should know.
        origin: the model that it goes on from; None begins from the configuration's initial weights.
        held_out: corrected patches that are not learned from, on which before and after are compared.
    """

    data: PatchDataset
    config: TrainingConfig
    folder: RunFolder
    device: torch.device
    devices: int
    logger: LoggerName
    progress: bool
    say: Say
    origin: Origin | None = None
    held_out: tuple[Patch, ...] = ()


def check_outputs(out: Path, folder: RunFolder, stage: StageName, resume: bool, overwrite: bool) -> None:
    """Refuse what would be lost, and a step whose predecessor is missing, before anything is written."""
    if resume and overwrite:
        raise OptionError("--resume and --overwrite exclude each other")
    writes_bundle = stage in ("2", "all")
    if writes_bundle and out.exists() and not ((overwrite or resume) and (out / SPEC_FILE).is_file()):
        hint = "add --overwrite" if (out / SPEC_FILE).is_file() else "it is not a model bundle, choose another name"
        raise OutputError(f"{out} exists: {hint}")
    if stage in ("1", "all") and folder.root.exists() and not (overwrite or resume):
        raise OutputError(f"{folder.root} holds an earlier training: add --resume to go on, or --overwrite")
    if (
        folder.root.exists()
        and not folder.state.is_file()
        and any(p.suffix != ".partial" for p in folder.root.iterdir())
    ):
        raise OutputError(f"{folder.root} is not a training of this program, remove it or choose another --out")
    prerequisites: dict[StageName, Path] = {"masks": folder.classifier, "2": folder.masks_done}
    needed = prerequisites.get(stage)
    if needed is not None and not needed.is_file():
        raise OutputError(f"{needed} is missing: run --stage {'1' if stage == 'masks' else 'masks'} first")


def begin(run: Run, stage: StageName, resume: bool) -> None:
    """Write down what this run is of; a resumed one must be of the same."""
    folder = run.folder
    state: JsonObject = {"dataset": run.data.fingerprint, "config": run.config.model_dump(mode="json")}
    if run.origin is not None:
        state["from"] = run.origin.hash
    if folder.state.is_file() and (resume or stage in ("masks", "2")):
        before = _read_state(folder.state)
        if before["dataset"] != state["dataset"]:
            raise DatasetError(f"{folder.root} was begun with another data set than {run.data.root}")
        if before["from"] != state.get("from"):
            raise OptionError(f"{folder.root} was begun from another model; give the same --from, or --overwrite")
        if resume:
            check_same(folder.root, before["config"], state["config"])
            _extend(folder, lengthened(before["config"], state["config"]))
        if before["config"]["classifier"] != state["config"]["classifier"]:
            raise OptionError(f"{folder.root} has another classifier; give the same --preset and --encoder")
    elif folder.root.exists():
        shutil.rmtree(folder.root)
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        write_text(folder.state, json.dumps(state, indent=2))
    except OSError as error:
        raise OutputError(f"{folder.root} cannot be written: {error.strerror or error}") from error


def _extend(folder: RunFolder, stages: Sequence[str]) -> None:
    """Open finished stages that get more epochs, and remove what was made of them."""
    if "stage1" in stages:
        folder.classifier.unlink(missing_ok=True)
        shutil.rmtree(folder.folds, ignore_errors=True)
        folder.masks_done.unlink(missing_ok=True)
        shutil.rmtree(folder.segmenter.parent, ignore_errors=True)
    if stages:
        folder.segmenter.unlink(missing_ok=True)
        folder.shared_gate_done.unlink(missing_ok=True)


def _read_state(path: Path) -> JsonObject:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        config = {"classifier": None, **state["config"]}
        return {"dataset": state["dataset"], "config": config, "from": state.get("from")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is damaged, begin again with --overwrite") from error


def write_text(path: Path, text: str) -> None:
    """A text file that is complete or absent, whenever the process ends."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
