"""Lightning, set up so that a user sees progress and nothing else."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from wsiseg.choices import LOGGERS, LoggerName, check_choice, left_open
from wsiseg.errors import OptionError
from wsiseg.training.config import OptimiserConfig
from wsiseg.training.epochs import EpochLines
from wsiseg.training.history import FIGURES_FILE, EpochTable, Patience, WholeCheckpoints, remove_partial
from wsiseg.training.loading import Batch
from wsiseg.training.processes import launched
from wsiseg.training.stage import ADVISERS, Stage

LAST = "last.ckpt"


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch."""
    with _quiet():
        lightning.seed_everything(seed, verbose=False)


def check_logger(name: LoggerName) -> None:
    """Raise `OptionError` for an unknown logger, and where what one needs is not installed."""
    check_choice("a logger", name, LOGGERS)
    if name in ("tensorboard", "both") and find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
        raise OptionError("TensorBoard is not installed: pip install 'wsiseg[tensorboard]', or use --logger csv")


def fit(
    stage: Stage,
    training: DataLoader[Batch],
    validation: DataLoader[Batch] | None,
    *,
    run_folder: Path,
    title: str,
    optimiser: OptimiserConfig,
    precision: str,
    device: torch.device,
    devices: int,
    logger: LoggerName,
    progress: bool,
    resume: bool,
    say: Callable[[str], None] | None = None,
    figure: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train a stage to its end; `stage` then holds the weights to keep.

    Args:
        stage: what is trained.
        training: batches.
        validation: batches, None for none.
        run_folder: for checkpoints (one after each epoch) and logs.
        title: shown beside the progress.
        optimiser: how many epochs, when to stop early, which to keep.
        precision: "auto", or as Lightning names it.
        device: what computes.
        devices: how many of them; more than one train in step (DDP).
        logger: "csv", "tensorboard", "both" or "none".
        progress: show it.
        resume: go on from the last checkpoint, if there is one.
        say: called with one line after each epoch; None says nothing.
        figure: of validation, higher is better: for the best epoch and for early stopping; None for none.
        callbacks: called after each epoch, before its checkpoint is written.
    """
    best_by = figure if optimiser.keep == "best" else None
    remove_partial(run_folder)
    checkpoint = ModelCheckpoint(
        dirpath=run_folder,
        filename="best",
        monitor=best_by,
        mode="max",
        save_last=True,
        enable_version_counter=False,
        # Behind validation and the end of the epoch, so that a resumed run begins with the next one.
        save_on_train_epoch_end=True,
    )
    table = EpochTable(run_folder / "logs" / FIGURES_FILE if logger in ("csv", "both") else None)
    used: list[Callback] = [table, *callbacks]
    if say is not None and (launched() or devices == 1 or _can_be_sent(say)):
        used.append(EpochLines(title, say))
    if figure is not None and optimiser.patience is not None:
        used.append(Patience(figure, patience=optimiser.patience, mode="max", check_on_train_epoch_end=True))
    used.append(checkpoint)
    if progress:
        used.append(_Progress(title))
    last = run_folder / LAST
    accelerator = "gpu" if device.type == "cuda" else device.type
    chosen: int | list[int] = [device.index] if device.index is not None else devices
    with _quiet():
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=chosen if device.type != "cpu" else devices,
            strategy="ddp" if launched() else "ddp_spawn" if devices > 1 else "auto",
            num_nodes=max(1, launched() // devices),
            plugins=[WholeCheckpoints()],
            use_distributed_sampler=False,  # the training loader shares out; validation is everyone's
            accumulate_grad_batches=optimiser.accumulate,
            precision=_precision(precision, device),  # type: ignore[arg-type]
            max_epochs=optimiser.epochs,
            callbacks=used,
            logger=_logger(logger, run_folder),
            default_root_dir=run_folder,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            deterministic="warn" if device.type == "cuda" else True,
            log_every_n_steps=10,
        )
        resumed = str(last) if resume and last.is_file() else None
        try:
            trainer.fit(stage, training, validation, ckpt_path=resumed, weights_only=True)
        except SystemExit:  # what Lightning makes of an interrupt
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
        if best_by is not None and checkpoint.best_model_path:
            best = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
            stage.load_state_dict(best["state_dict"], strict=False)


def _precision(precision: str, device: torch.device) -> str:
    if not left_open(precision):
        return precision
    return "bf16-mixed" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "32-true"


def _can_be_sent(say: Callable[[str], None]) -> bool:
    """Whether processes that Lightning starts can get a copy of a function; a lambda they cannot."""
    name = getattr(say, "__qualname__", "<")
    return "<" not in name and getattr(sys.modules.get(say.__module__), name, None) is say


def _logger(name: LoggerName, folder: Path) -> TensorBoardLogger | bool:
    """Lightning's loggers; CSV is `EpochTable`, as Lightning's begins anew when a run is resumed."""
    return TensorBoardLogger(folder, name="logs", version="") if name in ("tensorboard", "both") else False


class _Progress(RichProgressBar):
    """Lightning's bars, with the stage's name instead of the epoch's alone."""

    def __init__(self, title: str) -> None:
        super().__init__(leave=False)
        self.title = title

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self.title}, epoch {current_epoch + 1}/{self.trainer.max_epochs}"

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """Figures beside the bar, without the run's number."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advertisements and advice to developers off a user's screen."""
    loggers = [logging.getLogger(name) for name in ADVISERS]
    levels = [entry.level for entry in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for entry in loggers:
                entry.setLevel(logging.ERROR)
            yield
        finally:
            for entry, level in zip(loggers, levels, strict=True):
                entry.setLevel(level)
