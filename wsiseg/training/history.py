"""What a kill must not lose: the figures of every epoch, checkpoints that are whole, and a stop that was decided."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping

from wsiseg.system.files import whole_file, write_csv

FIGURES_FILE = "metrics.csv"


class EpochTable(Callback):
    """Figures of each epoch, as a CSV table that is written whole after every one.

    The rows are part of the checkpoint, so that a resumed run has each epoch once, whenever the first was killed.

    Args:
        path: of the table; None keeps the rows alone.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        for name, value in sorted(trainer.callback_metrics.items()):
            if not name.endswith("_step") and f"{name}_epoch" not in trainer.callback_metrics:
                row[name] = float(value)
        row["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.rows.append(row)
        if self.path is not None and trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            columns = list(dict.fromkeys(name for row in self.rows for name in row))
            with whole_file(self.path) as temporary:
                write_csv(temporary, columns, [[row.get(name, "") for name in columns] for row in self.rows])

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, for a checkpoint."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the rows of a checkpoint."""
        self.rows = [dict(row) for row in state_dict["rows"]]


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints under a temporary name in their own folder, then renamed: one that is there is whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as temporary, temporary.open("wb") as file:
            failing = _FirstError(file)
            torch.save(checkpoint, cast(IO[bytes], failing))
            failing.finish()


class _FirstError:
    """A file for torch, which makes an error without a reason of a write that fails, and writes on behind it.

    Args:
        file: open for writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write, unless a write has failed before."""
        if self._error is None:
            try:
                self._file.write(content)
            except OSError as error:
                self._error = error
        return len(content)

    def flush(self) -> None:
        """Nothing: `finish` flushes."""

    def finish(self) -> None:
        """Raise the error of the first write that failed."""
        if self._error is not None:
            raise self._error
        self._file.flush()


class Patience(EarlyStopping):
    """Early stopping that a resumed run keeps to, also where it was killed between the decision and the end."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before another epoch where the checkpoint had run out of patience."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def remove_partial(folder: Path) -> None:
    """Remove what a killed process had half-written."""
    for path in folder.rglob(".*.partial"):
        path.unlink(missing_ok=True)
