"""What an epoch came to, in one line for people: loss, validation, each class, and classes that collapse."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

CLASS_FIGURES = {"val_ap": "average precision", "val_iou": "IoU", "val_share": "share of pixels"}
"""What is logged for each class, as `val_ap.Tumour`."""

_TOTALS = {"val_map": "mAP", "val_miou": "mIoU"}

CHANCE = 1.05
"""An average precision below this times the share of patches that have the class is chance."""

LEAST_SHARE = 0.001
"""A class that occurs and gets less than this share of the pseudo masks' pixels collapses."""

LEFT_OF_SHARE = 0.1
"""A class that gets less than this part of its share of the pseudo masks' pixels collapses."""


@dataclass(slots=True)
class ClassFigures:
    """Figures of each class on the validation patches of one epoch.

    Attributes:
        names: of the classes.
        figures: by name as in `CLASS_FIGURES`, one value a class; None where there is none.
        collapsed: what collapses, a phrase each.
    """

    names: Sequence[str]
    figures: dict[str, list[float | None]] = field(default_factory=dict)
    collapsed: list[str] = field(default_factory=list)

    def logged(self) -> dict[str, float]:
        """The figures under the names that they are logged by."""
        return {
            f"{kind}.{name}": value
            for kind, values in self.figures.items()
            for name, value in zip(self.names, values, strict=True)
            if value is not None
        }

    def with_precisions(self, precisions: Sequence[float | None], prevalence: Sequence[float]) -> None:
        """Take up average precisions, and name the classes that do no better than chance.

        Args:
            precisions: (K,), 0 to 1; None where the class does not occur.
            prevalence: share of the patches that have each class, (K,).
        """
        self.figures["val_ap"] = list(precisions)
        for name, value, share in zip(self.names, precisions, prevalence, strict=True):
            if value is not None and share < 1 and value < min(CHANCE * share, 1):
                self.collapsed.append(f"{name} is told no better than by chance")

    def with_shares(self, shares: Sequence[float], expected: Sequence[float], occurs: Sequence[bool]) -> None:
        """Take up shares of pixels, and name the classes that nearly vanish.

        Args:
            shares: of the pixels of validation patches that get each class, (K,).
            expected: shares in the pseudo masks, (K,).
            occurs: which classes validation patches have, (K,).
        """
        self.figures["val_share"] = list(shares)
        for name, share, wanted, there in zip(self.names, shares, expected, occurs, strict=True):
            if there and wanted and share < LEFT_OF_SHARE * wanted:
                self.collapsed.append(f"{name} gets {_percent(share)} of pixels, of pseudo masks {_percent(wanted)}")


def told(title: str, epoch: int, epochs: int, seconds: float, metrics: Mapping[str, float], found: ClassFigures) -> str:
    """One line of an epoch.

    Args:
        title: of the stage.
        epoch: that ended, from 1.
        epochs: in all.
        seconds: that it took.
        metrics: logged figures by name.
        found: figures of each class.
    """
    parts = []
    if "train_loss_epoch" in metrics:
        parts.append(f"loss {metrics['train_loss_epoch']:.4g}")
    parts += [f"{text} {metrics[name]:.3f}" for name, text in _TOTALS.items() if name in metrics]
    for kind, values in found.figures.items():
        known = zip(found.names, values, strict=True)
        listed = ", ".join(f"{name} {_text(kind, value)}" for name, value in known if value is not None)
        if listed:
            parts.append(f"{CLASS_FIGURES[kind]}: {listed}")
    parts.append(f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s")
    parts += [f"careful: {text}" for text in found.collapsed]
    return f"{title}, epoch {epoch}/{epochs}: {'; '.join(parts)}"


class EpochLines(Callback):
    """Says one line after each epoch.

    Args:
        title: of the stage.
        say: called with the line, in the first process.
    """

    def __init__(self, title: str, say: Callable[[str], None]) -> None:
        self.title, self.say = title, say
        self._began = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say the line."""
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        found = getattr(pl_module, "found", None) or ClassFigures(())
        seconds = time.monotonic() - self._began
        self.say(told(self.title, trainer.current_epoch + 1, trainer.max_epochs or 0, seconds, metrics, found))


def _text(kind: str, value: float) -> str:
    return _percent(value) if kind == "val_share" else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
