"""A whole training: patches, stage 1, pseudo masks, stage 2, model bundle; each step alone, and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wsiseg.classes import ClassTable
from wsiseg.errors import DatasetError, OptionError, OutputError
from wsiseg.models.architectures import build_network
from wsiseg.models.bundle import checked_device, save_bundle
from wsiseg.models.classifier import Classifier
from wsiseg.models.spec import SPEC_FILE
from wsiseg.outputs import whole_file
from wsiseg.training.config import TrainingConfig, lite_config
from wsiseg.training.initial import initialise, share_encoder
from wsiseg.training.loading import PatchImages, plain_loader, train_loader
from wsiseg.training.make_masks import classify_patches, gate_thresholds, write_masks
from wsiseg.training.mask_files import is_made_of, made_of
from wsiseg.training.patches import PatchDataset, read_dataset
from wsiseg.training.stage1 import ClassifierStage
from wsiseg.training.stage2 import SegmenterStage
from wsiseg.training.trainer import LoggerName, check_logger, fit, seed_everything

StageName = Literal["1", "masks", "2", "all"]
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
    def of(cls, out: Path) -> RunFolder:
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
    """

    data: PatchDataset
    config: TrainingConfig
    folder: RunFolder
    device: torch.device
    devices: int
    logger: LoggerName
    progress: bool
    say: Say


def train(
    dataset: str | Path,
    out: str | Path,
    config: TrainingConfig | None = None,
    *,
    mpp: float | None = None,
    classes: ClassTable | None = None,
    stage: StageName = "all",
    device: str = "auto",
    devices: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    logger: LoggerName = "csv",
    progress: bool = True,
    say: Say = print,
) -> Path:
    """Train a model from labelled patches.

    Args:
        dataset: folder of patches; see `wsiseg.training.patches`.
        out: folder of the bundle to write; the steps of the training lie beside it, in `<out>.training`.
        config: of the training; the lite preset by default.
        mpp: microns per pixel of the patches, where the data set does not say.
        classes: names and colours, where the data set does not say.
        stage: "1", "masks", "2", or "all" of them.
        device: "auto", "cpu", "cuda" or "cuda:1".
        devices: number of devices of that kind.
        resume: go on where an interrupted training of the same data set and configuration stopped.
        overwrite: replace a bundle and the steps of an earlier training.
        logger: "csv", "tensorboard" or "none".
        progress: show progress bars.
        say: called with what a person should know.

    Returns:
        The bundle's folder, or that of the last step that was asked for.

    Raises:
        WsisegError: of the kind that fits, before anything is written.
    """
    config, out = config or lite_config(), Path(out).resolve()
    if not out.name:
        raise OptionError(f"expected the folder of a model to write, got {out}")
    check_logger(logger)
    target = checked_device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    folder = RunFolder.of(out)
    _check_outputs(out, folder, stage, resume, overwrite)
    data = read_dataset(dataset, mpp, classes, config.val_share, config.seed)
    data.check_for_training()
    for note in data.notes:
        say(note)
    run = Run(data, config, folder, target, devices, logger, progress, say)
    # Built before anything is written, since initial weights may be missing.
    classifier = _initial_network(run, "classifier", config.seed) if stage in ("1", "all") else None
    segmenter = _initial_network(run, "segmenter", config.seed + 1) if stage in ("2", "all") else None
    _begin(run, stage, resume)
    say(
        f"{len(data.train)} patches of {data.patch_size_px} px at {data.mpp:g} um/px for training, "
        f"{len(data.val)} for validation; classes: {', '.join(data.classes.names)}"
    )
    seed_everything(config.seed)
    if classifier is not None:
        _train_classifier(run, cast(Classifier, classifier), resume)
    if stage == "1":
        return folder.classifier.parent
    if stage in ("masks", "all"):
        _make_masks(run, resume and stage == "all")
    if stage == "masks":
        return folder.masks
    assert segmenter is not None
    _train_segmenter(run, segmenter, resume)
    _write_bundle(run, out, overwrite)
    return out


def _check_outputs(out: Path, folder: RunFolder, stage: StageName, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise OptionError("--resume and --overwrite exclude each other")
    writes_bundle = stage in ("2", "all")
    if writes_bundle and out.exists() and not ((overwrite or resume) and (out / SPEC_FILE).is_file()):
        hint = "add --overwrite" if (out / SPEC_FILE).is_file() else "it is no model bundle, choose another name"
        raise OutputError(f"{out} exists: {hint}")
    if stage in ("1", "all") and folder.root.exists() and not (overwrite or resume):
        raise OutputError(f"{folder.root} holds an earlier training: add --resume to go on, or --overwrite")
    if overwrite and folder.root.exists() and not folder.state.is_file():
        raise OutputError(f"{folder.root} is no training of this program, remove it or choose another --out")
    prerequisites: dict[StageName, Path] = {"masks": folder.classifier, "2": folder.masks_done}
    needed = prerequisites.get(stage)
    if needed is not None and not needed.is_file():
        raise OutputError(f"{needed} is missing: run --stage {'1' if stage == 'masks' else 'masks'} first")


def _begin(run: Run, stage: StageName, resume: bool) -> None:
    """Write down what this run is of; a resumed one must be of the same."""
    folder = run.folder
    state: dict[str, Any] = {"dataset": run.data.fingerprint, "config": run.config.model_dump(mode="json")}
    if folder.state.is_file() and (resume or stage in ("masks", "2")):
        before = _read_state(folder.state)
        if before["dataset"] != state["dataset"]:
            raise DatasetError(f"{folder.root} was begun with another data set than {run.data.root}")
        if resume and before["config"] != state["config"]:
            raise OptionError(f"{folder.root} was begun with other options; give the same, or --overwrite")
        if before["config"]["classifier"] != state["config"]["classifier"]:
            raise OptionError(f"{folder.root} has another classifier; give the same --preset and --encoder")
    elif folder.root.exists():
        shutil.rmtree(folder.root)
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.state.write_text(json.dumps(state, indent=2), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder.root} cannot be written: {error.strerror or error}") from error


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return {"dataset": state["dataset"], "config": {"classifier": None, **state["config"]}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is damaged, begin again with --overwrite") from error


def _train_classifier(run: Run, network: Classifier, resume: bool) -> None:
    target, config, data = run.folder.classifier, run.config, run.data
    if resume and target.is_file():
        run.say(f"Stage 1 is finished: {target}")
        return
    stage = ClassifierStage(network, config)
    images = PatchImages(data.train, len(data.classes))
    labelled = [patch for patch in data.val if patch.label]
    fit(
        stage,
        train_loader(images, config.stage1.batch_size, config.seed),
        plain_loader(PatchImages(labelled, len(data.classes)), config.stage1.batch_size) if labelled else None,
        run_folder=target.parent,
        title="Stage 1, classifier",
        epochs=config.stage1.epochs,
        precision=config.precision,
        device=run.device,
        devices=run.devices,
        logger=run.logger,
        progress=run.progress,
        resume=resume,
    )
    _save(stage.result, target)
    run.say(f"Stage 1 is finished: {target}")


def _make_masks(run: Run, resume: bool) -> None:
    folder, config, data = run.folder, run.config, run.data
    classifier = _trained_classifier(run)
    if resume and folder.masks_done.is_file() and is_made_of(folder.masks, made_of(classifier, data, config)):
        run.say(f"Pseudo masks are finished: {folder.masks}")
        return
    folder.masks_done.unlink(missing_ok=True)
    written = write_masks(classifier, data, config, folder.masks, run.device, run.progress)
    if written.kept:
        run.say(f"Pseudo masks of {written.kept} patches were finished, {written.computed} were made")
    if written.differing is not None:
        run.say(f"In bfloat16 {written.differing:.2%} of mask pixels differ from float32, on the first patches")
    validation = PatchImages(data.val, len(data.classes))
    thresholds = gate_thresholds(classify_patches(classifier, validation, config, run.device), data.val, config.gate)
    if not thresholds:
        thresholds = [config.gate.threshold] * len(data.classes)
    shares = written.class_shares.tolist()
    with whole_file(folder.masks_done) as temporary:
        temporary.write_text(json.dumps({"gate": thresholds, "class_shares": shares}), encoding="utf-8")
    percent = ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(data.classes.names, shares, strict=True))
    run.say(f"Pseudo masks are finished: {folder.masks} ({percent})")


def _train_segmenter(run: Run, network: nn.Module, resume: bool) -> None:
    target, config, data, folder = run.folder.segmenter, run.config, run.data, run.folder
    if resume and target.is_file():
        run.say(f"Stage 2 is finished: {target}")
        return
    done = json.loads(folder.masks_done.read_text(encoding="utf-8"))
    classifier = _trained_classifier(run)
    if config.start_from_classifier:
        share_encoder(classifier, network)
    count = len(data.classes)
    probabilities = classify_patches(classifier, PatchImages(data.val, count), config, run.device)
    shares: npt.NDArray[np.float64] = np.array(done["class_shares"])
    stage = SegmenterStage(network, config, shares, list(data.val), probabilities, torch.tensor(done["gate"]))
    masks = [folder.masks / f"PM_{depth}" for depth in reversed(classifier.depths)]
    fit(
        stage,
        train_loader(PatchImages(data.train, count, masks), config.stage2.batch_size, config.seed + 1),
        plain_loader(PatchImages(data.val, count), config.stage2.batch_size) if data.val else None,
        run_folder=target.parent,
        title="Stage 2, segmenter",
        epochs=config.stage2.epochs,
        precision=config.precision,
        device=run.device,
        devices=run.devices,
        logger=run.logger,
        progress=run.progress,
        resume=resume,
        best_by="val_miou" if data.val and data.val[0].mask is not None else None,
    )
    _save(stage.result, target)
    run.say(f"Stage 2 is finished: {target}")


def _write_bundle(run: Run, out: Path, overwrite: bool) -> None:
    config, data = run.config, run.data
    segmenter = _network(run, "segmenter")
    segmenter.load_state_dict(load_file(run.folder.segmenter))
    fields: dict[str, Any] = {
        "classes": data.classes,
        "mpp": data.mpp,
        "patch_size_px": data.patch_size_px,
        "overlap": config.overlap,
        "gate": json.loads(run.folder.masks_done.read_text(encoding="utf-8"))["gate"],
        "networks": {
            kind: {"architecture": part.architecture, "arguments": part.arguments, "mean": part.mean, "std": part.std}
            for kind, part in (("classifier", config.classifier), ("segmenter", config.segmenter))
        },
        "licence": data.about.get("licence", "not stated"),
        "training_data": data.about.get("description") or data.about.get("name") or data.root.resolve().name,
        "citation": data.about.get("citation", ""),
        "training": {
            **config.model_dump(mode="json"),
            "train_patches": len(data.train),
            "val_patches": len(data.val),
            "dataset_sha256": data.fingerprint,
        },
    }
    save_bundle(
        out, fields, _trained_classifier(run), segmenter, overwrite=overwrite or out.exists(), half=config.half_weights
    )
    run.say(f"Model: {out} (steps of its training: {run.folder.root})")


def _initial_network(run: Run, kind: Literal["classifier", "segmenter"], seed: int) -> nn.Module:
    """A network with its initial weights; what is random in them comes from `seed`."""
    torch.manual_seed(seed)
    network = _network(run, kind)
    initialise(network, getattr(run.config, kind))
    return network


def _network(run: Run, kind: Literal["classifier", "segmenter"]) -> nn.Module:
    part = getattr(run.config, kind)
    network = build_network(kind, part.architecture, len(run.data.classes), part.arguments)
    return network.to(memory_format=torch.channels_last)


def _trained_classifier(run: Run) -> Classifier:
    network = cast(Classifier, _network(run, "classifier"))
    network.load_state_dict(load_file(run.folder.classifier))
    return network.to(run.device).eval()


def _save(network: nn.Module, path: Path) -> None:
    """Write weights to a temporary name, then rename: a file that is there is whole."""
    state: dict[str, Tensor] = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary)
    temporary.rename(path)
