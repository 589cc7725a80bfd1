"""A sheet of pictures an epoch: what the networks make of a handful of patches, always the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as F

from wsiseg.classes import ClassTable
from wsiseg.datasets.dataset import Patch, PatchDataset
from wsiseg.datasets.sizes import read_square_truth
from wsiseg.models.gate import allowed_classes, gate_logits
from wsiseg.models.networks.classifier import Classifier
from wsiseg.models.tissue_model import normalise
from wsiseg.system.files import whole_file
from wsiseg.training.config import NetworkConfig, TrainingConfig
from wsiseg.training.loading import PatchImages
from wsiseg.training.make_masks import mask_options
from wsiseg.training.pseudo_masks import (
    background_mask,
    class_scores,
    gradient_maps,
    masks_from_maps,
)
from wsiseg.training.stage import Stage

Picture = npt.NDArray[np.uint8]

_CELL, _GAP, _HEAD, _LINE = 168, 8, 56, 22
_INK, _MUTED, _PAPER = (30, 30, 30), (110, 110, 110), (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Sheet:
    """Pictures in rows of the same columns.

    Attributes:
        title: of the sheet, with the epoch's figures.
        columns: titles.
        rows: a caption and one picture (P, P, 3) a column, None for none.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Picture | None, ...]], ...]


class SheetCallback(Callback):
    """Draws the sheet of every epoch; takes no random number, and leaves the networks as they were.

    Args:
        patches: that are shown; see `choose_patches`.
        classes: for colours and the legend.
        config: of the training.
        folder: gets `epoch_<number>.png`, numbers from 1.
        classifier: in stage 2 the finished one, in evaluation mode; None in stage 1, where it is being trained.
        thresholds: of the gate, (K,), in stage 2.
    """

    def __init__(
        self,
        patches: Sequence[Patch],
        classes: ClassTable,
        config: TrainingConfig,
        folder: Path,
        classifier: Classifier | None = None,
        thresholds: Tensor | None = None,
    ) -> None:
        self.patches, self.classes, self.config, self.folder = list(patches), classes, config, folder
        self.classifier, self.thresholds = classifier, thresholds
        self._from_classifier: list[list[Picture | None]] | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the sheet of this epoch and write it."""
        if not trainer.is_global_zero or not isinstance(pl_module, Stage):
            return
        images = PatchImages(self.patches, len(self.classes))
        items = [images[index] for index in range(len(images))]
        pixels, labels = (torch.stack([item[name] for item in items]) for name in ("pixels", "label"))
        columns = ["patch", *(f"CAM {depth}" for depth in self._classifier(pl_module).depths), "pseudo mask"]
        if self._from_classifier is None or self.classifier is None:
            with _evaluating(self._classifier(pl_module)):
                self._from_classifier = self._classified(
                    self._classifier(pl_module).to(pl_module.device), pixels, labels, pl_module.device
                )
        rows = [list(row) for row in self._from_classifier]
        if self.classifier is not None:
            columns.append("prediction, gated")
            with _evaluating(pl_module.result) as segmenter:
                predicted = self._segmented(segmenter, pixels, pl_module.device)
            rows = [[*row, picture] for row, picture in zip(rows, predicted, strict=True)]
        if any(patch.mask is not None for patch in self.patches):
            columns.append("truth")
            rows = [[*row, self._truth(patch)] for row, patch in zip(rows, self.patches, strict=True)]
        captions = [self._caption(patch) for patch in self.patches]
        stage = 1 if self.classifier is None else 2
        title = f"Stage {stage}, epoch {trainer.current_epoch + 1}{_figures(trainer)}"
        sheet = Sheet(title, tuple(columns), tuple(zip(captions, map(tuple, rows), strict=True)))
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.folder / f"epoch_{trainer.current_epoch + 1:03d}.png") as temporary:
            draw_sheet(sheet, self.classes).save(temporary, format="PNG", optimize=True)

    def _classifier(self, stage: Stage) -> Classifier:
        network = stage.result if self.classifier is None else self.classifier
        assert isinstance(network, Classifier)
        return network

    def _classified(
        self, classifier: Classifier, pixels: Tensor, labels: Tensor, device: torch.device
    ) -> list[list[Picture | None]]:
        """Patch, activation at each depth and pseudo mask of the deepest, for each patch."""
        options = mask_options(self.config.pseudo_masks)
        maps = gradient_maps(classifier, _normalised(pixels, self.config.classifier, device))
        maps = {depth: value.cpu() for depth, value in maps.items()}
        size = (pixels.shape[2], pixels.shape[3])
        # A patch without label shows every class.
        present = torch.where(labels.any(dim=1, keepdim=True), labels, torch.ones_like(labels)) > 0
        background = background_mask(pixels, options)
        deepest = masks_from_maps(maps[classifier.depths[-1]], present, background, options).numpy()
        scores = [class_scores(maps[depth], present, size, options).numpy() for depth in classifier.depths]
        patches = pixels.permute(0, 2, 3, 1).numpy()
        return [
            [patch, *(self._blend(patch, depth[i]) for depth in scores), self._coloured(deepest[i])]
            for i, patch in enumerate(patches)
        ]

    @torch.no_grad()
    def _segmented(self, segmenter: nn.Module, pixels: Tensor, device: torch.device) -> list[Picture]:
        assert self.classifier is not None
        assert self.thresholds is not None
        logits = segmenter(_normalised(pixels, self.config.segmenter, device)).float().cpu()
        classifier = self.classifier.to(device)
        scores = classifier(_normalised(pixels, self.config.classifier, device))
        allowed = allowed_classes(torch.sigmoid(scores.float()).cpu(), self.thresholds, self.config.gate.floor)
        if logits.shape[2:] != pixels.shape[2:]:
            logits = F.interpolate(logits, pixels.shape[2:], mode="bilinear", align_corners=False)
        return [self._coloured(mask) for mask in gate_logits(logits, allowed).argmax(dim=1).numpy()]

    def _truth(self, patch: Patch) -> Picture | None:
        return None if patch.mask is None else self._coloured(read_square_truth(patch, len(self.classes)))

    def _blend(self, patch: Picture, scores: npt.NDArray[np.float32]) -> Picture:
        """The colour of each pixel's best class over the patch in grey, the stronger the higher its score (K, H, W)."""
        colours = self._palette()[scores.argmax(axis=0)].astype(np.float32)
        strength = 0.85 * scores.max(axis=0).clip(0, 1)[..., None]
        grey = patch.mean(axis=2, keepdims=True).astype(np.float32)
        blended: Picture = (grey * (1 - strength) + colours * strength).round().astype(np.uint8)
        return blended

    def _coloured(self, mask: npt.NDArray[np.integer]) -> Picture:
        coloured: Picture = self._palette()[mask]
        return coloured

    def _palette(self) -> Picture:
        return np.array([*(entry.color for entry in self.classes), (235, 235, 235)], dtype=np.uint8)

    def _caption(self, patch: Patch) -> str:
        names = [entry.name for entry, here in zip(self.classes, patch.label, strict=False) if here == 1]
        return f"{', '.join(names) or 'no label'}  ({patch.name})"


def choose_patches(data: PatchDataset, count: int) -> list[Patch]:
    """Validation patches (training ones where there are none) that show all classes: one of each by turns."""
    known = list(data.val or data.train)
    labels = np.array([patch.label or (0,) * len(data.classes) for patch in known]).clip(0)
    frequency = labels.sum(axis=0)
    # Patches with masks first, then those with more classes; names decide between equals.
    order = sorted(range(len(known)), key=lambda i: (known[i].mask is None, -int(labels[i].sum()), known[i].name))
    chosen: list[int] = []
    turns = [k for k in np.argsort(frequency, kind="stable") if frequency[k]]
    while len(chosen) < min(count, len(known)):
        before = len(chosen)
        for k in turns:
            used = [known[i].group for i in chosen]  # slides that are not there yet come first
            free = (i for i in order if labels[i, k] and i not in chosen)
            found = min(free, key=lambda i: used.count(known[i].group), default=None)
            if found is not None and len(chosen) < count:
                chosen.append(found)
        if len(chosen) == before:
            chosen += [i for i in order if i not in chosen][: count - before]
    return [known[i] for i in chosen]


def draw_sheet(sheet: Sheet, classes: ClassTable) -> Image.Image:
    """The sheet as a picture: title, columns with titles, rows with captions, and a legend of the classes."""
    plain, small = ImageFont.load_default(15), ImageFont.load_default(13)
    width = max(640, _GAP + len(sheet.columns) * (_CELL + _GAP))
    legend = _legend(classes, width, small)
    step = _CELL + _LINE + _GAP
    below = _HEAD + len(sheet.rows) * step
    height = below + max(row for _, _, row, _ in legend) * _LINE + _LINE + _GAP
    image = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_GAP, 8), _fitting(sheet.title, width - 2 * _GAP, plain), _INK, plain)
    for column, name in enumerate(sheet.columns):
        draw.text((_GAP + column * (_CELL + _GAP), 34), _fitting(name, _CELL, small), _MUTED, small)
    for index, (caption, pictures) in enumerate(sheet.rows):
        top = _HEAD + index * step
        for column, picture in enumerate(pictures):
            if picture is not None:
                # Patches smoothly; classes keep their colours, which a blend of two would not.
                way = Image.Resampling.BICUBIC if column == 0 else Image.Resampling.NEAREST
                cell = Image.fromarray(picture).resize((_CELL, _CELL), way)
                image.paste(cell, (_GAP + column * (_CELL + _GAP), top))
        draw.text((_GAP, top + _CELL + 2), _fitting(caption, width - 2 * _GAP, small), _MUTED, small)
    for (name, colour), left, row, _ in legend:
        top = below + row * _LINE
        draw.rectangle((left, top + 2, left + 14, top + 16), colour, _MUTED)
        draw.text((left + 20, top), name, _INK, small)
    return image


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _legend(
    classes: ClassTable, width: int, font: Font
) -> list[tuple[tuple[str, tuple[int, int, int]], int, int, int]]:
    """Entry, left edge, line and width of each entry of the legend."""
    placed, left, row = [], _GAP, 0
    for name, colour in [*((entry.name, entry.color) for entry in classes), ("background", (235, 235, 235))]:
        text = _fitting(name, width - 40, font)
        size = 36 + int(font.getlength(text))
        if left > _GAP and left + size > width:
            left, row = _GAP, row + 1
        placed.append(((text, colour), left, row, size))
        left += size
    return placed


def _fitting(text: str, width: int, font: Font) -> str:
    """One line of text, cut where it would be wider."""
    text = " ".join(text.split())[:300]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _figures(trainer: Trainer) -> str:
    known = {"train_loss_epoch": "training loss", "val_map": "validation mAP", "val_miou": "validation mIoU"}
    metrics = trainer.callback_metrics
    return "".join(f", {text} {float(metrics[name]):.3f}" for name, text in known.items() if name in metrics)


def _normalised(pixels: Tensor, config: NetworkConfig, device: torch.device) -> Tensor:
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (config.mean, config.std))
    return normalise(pixels.to(device), mean, std)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """The network in evaluation mode, each of its modules put back afterwards as it was."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield network
    finally:
        for module, training in before.items():
            module.training = training
