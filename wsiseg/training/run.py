"""A whole training: patches, stage 1, pseudo masks, stage 2, model bundle; each step alone, and resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from torch import Tensor, nn

from wsiseg.choices import STAGES, LoggerName, StageName, check_choice
from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import Patch, read_dataset
from wsiseg.errors import OptionError
from wsiseg.models.devices import keep_to_quota, pick_device
from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.networks.segmenter import Segmenter
from wsiseg.models.tissue_model import checked_device
from wsiseg.system.files import cannot_write, refuse_address
from wsiseg.system.json_values import JsonObject
from wsiseg.system.locks import locked
from wsiseg.training.compare import Networks, measure, told
from wsiseg.training.config import TrainingConfig, lite_config
from wsiseg.training.encoder_training import FROZEN, check_encoder_training, merged, prepare_encoder
from wsiseg.training.encoders import fitted_encoders, licence_notes
from wsiseg.training.epochs import LEAST_SHARE
from wsiseg.training.held_out import hold_out
from wsiseg.training.initial import share_encoder
from wsiseg.training.loading import PatchImages, patch_weights, plain_loader, positive_weights, train_loader
from wsiseg.training.make_masks import classify_patches, gate_thresholds, write_masks
from wsiseg.training.mask_files import is_made_of, made_of
from wsiseg.training.origin import Origin, with_old
from wsiseg.training.processes import is_first, launched, process_group, wait_for_all
from wsiseg.training.refit import check_refit, cross_validate, cross_validated, with_every_patch
from wsiseg.training.run_folder import Run, RunFolder, Say, begin, check_outputs, write_text
from wsiseg.training.shared_gate import check_carries_gate, train_shared_gate
from wsiseg.training.sheets import SheetCallback, choose_patches
from wsiseg.training.stage1 import ClassifierStage
from wsiseg.training.stage2 import SegmenterStage
from wsiseg.training.summary import write_summary
from wsiseg.training.trainer import check_logger, fit, seed_everything
from wsiseg.training.weights import initial_network, plain_network, save_weights, trained_classifier
from wsiseg.training.with_features import drop_features, use_features
from wsiseg.training.write_bundle import write_bundle


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
    origin: Origin | None = None,
    old: str | Path | None = None,
    ignore_columns: Sequence[str] = (),
    strict: bool = False,
) -> Path:
    """Train a model from labelled patches.

    Args:
        dataset: folder of patches; see `wsiseg.datasets.dataset`.
        out: folder of the bundle to write; the steps of the training are beside it, in `<out>.training`.
        config: of the training; the lite preset by default.
        mpp: microns per pixel of the patches, if the data set does not say.
        classes: names and colours, if the data set does not say.
        stage: "1", "masks", "2", or "all" of them.
        device: "auto", "cpu", "cuda" or "cuda:1".
        devices: number of devices of that kind.
        resume: continue where an interrupted training of the same data set and configuration stopped.
        overwrite: replace a bundle and the steps of an earlier training.
        logger: "csv", "tensorboard", "both" or "none".
        progress: show progress bars.
        say: called with notes for the user.
        origin: a model to go on from; `config` is then best its own, `origin.config()`. Batches are half corrections,
            where there are any, of which some regions are kept out to compare both models on.
        old: folder of patches that are learned from and validated on as well, so that they are not forgotten.
        ignore_columns: columns of the data set's table that are no classes.
        strict: refuse a data set of which something cannot be learned, see `wsiseg.datasets.learnable`.

    Returns:
        The bundle's folder, or that of the last step that was run.

    Raises:
        WsisegError: on bad input, before anything is written.
    """
    refuse_address(out)
    config, out = config or (origin.config() if origin else lite_config()), Path(out).resolve()
    if not out.name:
        raise OptionError(f"expected the folder of a model to write, got {out}")
    check_choice("a stage", stage, STAGES)
    check_refit(config, origin is not None)
    check_logger(logger)
    keep_to_quota()
    target = checked_device(pick_device(device))
    folder = RunFolder.from_output(out)
    if not is_first():
        progress, say = False, _nothing
    with process_group(target, devices), ExitStack() as held:
        # Before anything is read, where its place is there: a second run need not read all patches to be refused.
        if is_first() and out.parent.is_dir():
            held.enter_context(locked(out))
        check_outputs(out, folder, stage, resume, overwrite)
        share = 0 if config.refit else config.val_share
        data = read_dataset(dataset, mpp, classes, share, config.seed, ignore=ignore_columns)
        if config.refit:
            data = with_every_patch(data, config.refit)
        if old is not None:
            data = with_old(data, old, config)
        held_out: list[Patch] = []
        if origin is not None:
            origin.require_fits(data)
            kept, held_out = hold_out(data.train, config.seed)
            data = replace(data, train=tuple(kept))
        if origin is None:
            config = fitted_encoders(config, data.patch_size_px)
        notes = [*data.notes, *(f"careful: {found}" for found in data.check_for_training(strict))]
        if launched() and target.type == "cuda":
            target = torch.device("cuda", torch.cuda.current_device())
        run = Run(data, config, folder, target, devices, logger, progress, say, origin, tuple(held_out))
        with cannot_write(folder.root):
            return _train(run, notes, out, stage, resume, overwrite, held)


def _nothing(text: str) -> None:
    """Prints nothing; used by all processes but the first."""


def _train(
    run: Run, notes: Sequence[str], out: Path, stage: StageName, resume: bool, overwrite: bool, held: ExitStack
) -> Path:
    """The steps one after the other; of several processes the first alone writes, and all wait for it."""
    config, data, folder = run.config, run.data, run.folder
    # Built before anything is written, since initial weights may be missing.
    classifier = initial_network(run, "classifier", config.seed) if stage in ("1", "all") else None
    segmenter = initial_network(run, "segmenter", config.seed + 1) if stage in ("2", "all") else None
    _check_networks(config, classifier, segmenter)
    wait_for_all()
    if is_first():
        if not out.parent.is_dir():
            out.parent.mkdir(parents=True)
            held.enter_context(locked(out))
        begin(run, stage, resume)
    wait_for_all()
    for note in notes:
        run.say(note)
    run.say(
        f"{len(data.train)} patches of {data.patch_size_px} px at {data.mpp:g} um/px for training, "
        f"{len(data.val)} for validation; classes: {', '.join(data.classes.names)}"
    )
    for note in licence_notes(config) if run.origin is None else ():
        run.say(f"careful: {note}")
    seed_everything(config.seed)
    if classifier is not None:
        if config.refit:
            cross_validate(run, _train_classifier, resume)
        _train_classifier(run, cast(Classifier, classifier), resume)
        wait_for_all()
    if stage == "1":
        return folder.classifier.parent
    if stage in ("masks", "all"):
        if is_first():
            _make_masks(run, resume and stage == "all")
        wait_for_all()
    if stage == "masks":
        return folder.masks
    assert segmenter is not None
    _train_segmenter(run, segmenter, resume)
    wait_for_all()
    if is_first():
        if config.gate.is_shared:
            _train_shared_gate(run, resume)
        write_bundle(run, out, overwrite, _compare(run))
        page = write_summary(run, out)
        run.say(f"Summary: {page}")
    wait_for_all()
    return out


def _check_networks(config: TrainingConfig, classifier: nn.Module | None, segmenter: nn.Module | None) -> None:
    """Refuse networks that cannot be trained, or gated, as the configuration says."""
    for network, part in ((classifier, config.classifier), (segmenter, config.segmenter)):
        if network is not None:
            check_encoder_training(network, config.encoder_training, part.architecture)
    if config.gate.is_shared and segmenter is not None:
        check_carries_gate(segmenter, config.segmenter.architecture)


def _train_classifier(run: Run, network: Classifier, resume: bool) -> None:
    target, config, data = run.folder.classifier, run.config, run.data
    if resume and target.is_file():
        run.say(f"Stage 1 is finished: {target}")
        return
    labels = np.array([patch.label or (0,) * len(data.classes) for patch in data.train], dtype=np.float64)
    weights = positive_weights(labels) if config.imbalance == "weights" else None
    prepare_encoder(network, config.encoder_training, config.lora_rank, config.seed)
    stage = ClassifierStage(network, config, weights, unknown=bool((labels < 0).any()), names=data.classes.names)
    images = PatchImages(data.train, len(data.classes))
    labelled = [patch for patch in data.val if patch.label]
    judged = PatchImages(labelled, len(data.classes)) if labelled else None
    use_features(run, stage, images, judged, target.parent, {})
    fit(
        stage,
        train_loader(
            images,
            config.stage1.batch_size,
            config.seed,
            patch_weights(labels) if config.imbalance == "sampler" else None,
            launched() or run.devices,
            config.stage1.drop_incomplete,
            _corrected(run),
        ),
        plain_loader(judged, config.stage1.batch_size) if judged is not None else None,
        run_folder=target.parent,
        title="Stage 1, classifier",
        optimiser=config.stage1,
        precision=config.precision,
        device=run.device,
        devices=run.devices,
        logger=run.logger,
        progress=run.progress,
        resume=resume,
        say=run.say,
        figure="val_map" if labelled else None,
        callbacks=_sheets(run, target.parent),
    )
    save_weights(merged(stage.result), target)
    drop_features(stage)
    run.say(f"Stage 1 is finished: {target}")


def _make_masks(run: Run, resume: bool) -> None:
    folder, config, data = run.folder, run.config, run.data
    classifier = trained_classifier(run)
    if resume and folder.masks_done.is_file() and is_made_of(folder.masks, made_of(classifier, data, config)):
        run.say(f"Pseudo masks are finished: {folder.masks}")
        return
    folder.masks_done.unlink(missing_ok=True)
    written = write_masks(classifier, data, config, folder.masks, run.device, run.progress)
    for note in written.notes:
        run.say(note)
    if config.refit:
        thresholds = cross_validated(run).gate
    else:
        seen = classify_patches(classifier, PatchImages(data.val, len(data.classes)), config, run.device)
        thresholds = gate_thresholds(seen, data.val, config.gate)
    judged = data.train if config.refit else data.val
    if lacking := [n for k, n in enumerate(data.classes.names) if not any(patch.has(k) for patch in judged)]:
        kept = f"{config.gate.threshold:g}" if thresholds or not run.origin else "the model's"
        run.say(f"no validation patch has {', '.join(lacking)}: no threshold is chosen, {kept} stays")
    if not thresholds:
        thresholds = list(run.origin.spec.gate) if run.origin else [config.gate.threshold] * len(data.classes)
    shares = written.class_shares.tolist()
    write_text(folder.masks_done, json.dumps({"gate": thresholds, "class_shares": shares}))
    percent = ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(data.classes.names, shares, strict=True))
    run.say(f"Pseudo masks are finished: {folder.masks} ({percent})")
    for k, name in enumerate(data.classes.names):
        if shares[k] < LEAST_SHARE and (count := sum(patch.has(k) for patch in data.train)):
            run.say(f"careful: {name} has {100 * shares[k]:.2f} % of the pseudo masks, though {count} patches have it")


def _train_segmenter(run: Run, network: nn.Module, resume: bool) -> None:
    target, config, data, folder = run.folder.segmenter, run.config, run.data, run.folder
    if resume and target.is_file():
        run.say(f"Stage 2 is finished: {target}")
        return
    done = json.loads(folder.masks_done.read_text(encoding="utf-8"))
    classifier = trained_classifier(run)
    if config.start_from_classifier or config.shared_encoder:
        share_encoder(classifier, network)
    prepare_encoder(
        network, FROZEN if config.shared_encoder else config.encoder_training, config.lora_rank, config.seed
    )
    count = len(data.classes)
    probabilities = classify_patches(classifier, PatchImages(data.val, count), config, run.device)
    shares: npt.NDArray[np.float64] = np.array(done["class_shares"])
    gate = torch.tensor(done["gate"])
    masks = [folder.masks / f"PM_{depth}" for depth in reversed(classifier.depths)]
    images, judged = PatchImages(data.train, count, masks), PatchImages(data.val, count) if data.val else None
    stage = SegmenterStage(network, config, shares, list(data.val), probabilities, gate, data.classes.names, images)
    use_features(run, stage, images, judged, target.parent, {"masks": dict(made_of(classifier, data, config))})
    fit(
        stage,
        train_loader(
            images,
            config.stage2.batch_size,
            config.seed + 1,
            None,
            launched() or run.devices,
            config.stage2.drop_incomplete,
            _corrected(run),
        ),
        plain_loader(judged, config.stage2.batch_size) if judged is not None else None,
        run_folder=target.parent,
        title="Stage 2, segmenter",
        optimiser=config.stage2,
        precision=config.precision,
        device=run.device,
        devices=run.devices,
        logger=run.logger,
        progress=run.progress,
        resume=resume,
        say=run.say,
        figure="val_miou" if data.val and data.val[0].mask is not None else None,
        callbacks=_sheets(run, target.parent, classifier, gate),
    )
    save_weights(merged(stage.result), target)
    drop_features(stage)
    run.say(f"Stage 2 is finished: {target}")


def _corrected(run: Run) -> npt.NDArray[np.bool_] | None:
    """Which training patches are corrections, where a training goes on from a model; half of each batch are."""
    return np.array([patch.corrected for patch in run.data.train]) if run.origin else None


def _compare(run: Run) -> JsonObject:
    """Before and after, on corrections that were kept out and on the validation patches; also written down."""
    if run.origin is None:
        return {}
    before, config = run.origin.model().to(run.device), run.config
    segmenter = plain_network(run, "segmenter")
    segmenter.load_state_dict(load_file(run.folder.segmenter))
    gate = json.loads(run.folder.masks_done.read_text(encoding="utf-8"))["gate"]
    models = (
        Networks(
            before.classifier.eval(),
            before.segmenter.eval(),
            torch.tensor(run.origin.spec.gate),
            run.origin.spec.gate_floor,
        ),
        Networks(trained_classifier(run), segmenter.to(run.device).eval(), torch.tensor(gate), run.config.gate.floor),
    )
    found: JsonObject = {"from": {"name": run.origin.spec.name, "hash": run.origin.hash}}
    for key, name, patches in (
        ("corrections_held_out", "corrections kept out", run.held_out),
        ("validation", "validation", run.data.val),
    ):
        if not patches:
            run.say(f"{name}: there are none, so that nothing can be said of them")
            continue
        one, other = (measure(networks, patches, config, run.device) for networks in models)
        found[key] = {"before": one.to_json(), "after": other.to_json()}
        for line in told(name, one, other):
            run.say(line)
    write_text(run.folder.comparison, json.dumps(found, indent=2))
    return found


def _train_shared_gate(run: Run, resume: bool) -> None:
    folder = run.folder
    if resume and folder.shared_gate_done.is_file():
        run.say(f"The shared gate is finished: {folder.shared_gate}")
        return
    folder.shared_gate_done.unlink(missing_ok=True)
    segmenter = cast(Segmenter, plain_network(run, "segmenter"))
    segmenter.load_state_dict(load_file(folder.segmenter))
    trained = train_shared_gate(segmenter.to(run.device), run.data, run.config, run.device, run.progress)
    save_weights(trained.gate, folder.shared_gate)
    write_text(folder.shared_gate_done, json.dumps({"gate": trained.thresholds, "val_map": trained.precision}))
    known = "" if trained.precision is None else f" (mean average precision {trained.precision:.3f} on validation)"
    run.say(f"The shared gate is finished: {folder.shared_gate}{known}")


def _sheets(
    run: Run, folder: Path, classifier: Classifier | None = None, thresholds: Tensor | None = None
) -> list[Callback]:
    """The callbacks that draw a sheet after each epoch, where one is wanted."""
    if not run.config.sheet_patches:
        return []
    chosen = choose_patches(run.data, run.config.sheet_patches)
    return [SheetCallback(chosen, run.data.classes, run.config, folder / "sheets", classifier, thresholds)]
